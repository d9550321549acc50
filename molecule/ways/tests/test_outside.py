"""A client on a host from which only ssh leads to the fleet, whose controller does not listen on loopback."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterator

import pytest
from fleet import INVENTORY, ROOT, python_alone, shell
from ways import addresses, command, is_open_from


@pytest.fixture(scope="module", autouse=True)
def login() -> Iterator[None]:
    """The desk's root logs in to head by a key."""
    shell("desk", "ssh-keygen -q -t ed25519 -N '' -C desk -f /root/.ssh/id_ed25519")
    shell("desk", "ssh-keyscan -t ed25519 head.cluster >/root/.ssh/known_hosts 2>/dev/null")
    (config,) = [each for each in blocks("") if "ControlMaster" in each]
    config = config.replace("User ops", "User root\n  HostName head.cluster")
    shell("desk", f"cat >/root/.ssh/config <<'END'\n{config}\nEND")
    shell("head", f"cat >>/root/.ssh/authorized_keys <<'END'\n{shell('desk', 'cat /root/.ssh/id_ed25519.pub')}\nEND")
    yield
    shell("head", "sed -i '/ desk$/d' /root/.ssh/authorized_keys")
    shell("desk", "ssh -O exit head 2>/dev/null; rm -f /root/.ssh/config /root/.ssh/known_hosts /root/.ssh/id_ed25519*")


def blocks(language: str) -> list[str]:
    """Code of the page, from where it comes to clients outside."""
    text = (ROOT / "docs" / "connect.md").read_text().split("## An ipyparallel client from outside")[1]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for each, code in found if each == language]


def test_the_way_is_closed_but_for_ssh() -> None:
    info = json.loads(shell("desk", "cat /root/.ipython/profile_lab/security/ipcontroller-client.json"))
    assert not is_open_from("desk", addresses("head")["cluster"], info["registration"])
    assert is_open_from("desk", addresses("head")["cluster"], 22)


def test_ports_that_one_ssh_forwards() -> None:
    words = shlex.split(json.loads(command("connect", str(INVENTORY), "--print", "--json").stdout)["command"])
    ports = [word.split(":") for before, word in itertools.pairwise(words) if before == "-L"]
    # on the desk every port is free
    forwards = " ".join(f"-L 127.0.0.1:{port}:{address}:{port}" for _, _, address, port in ports)
    shell("desk", f"ssh -o ControlPath=none -o ExitOnForwardFailure=yes -f -N {forwards} head")
    (code,) = [each for each in blocks("python") if "127.0.0.1" in each]
    try:
        assert python_alone("desk", code + "\nprint(rc[:].apply_sync(lambda: 42))") == [42] * 4
    finally:
        shell("desk", "pkill -f '[E]xitOnForwardFailure'")


def test_ipyparallel_s_own_way() -> None:
    (code,) = [each for each in blocks("python") if "sshserver" in each]
    shell("desk", "ssh head true")
    assert python_alone("desk", code + "\nprint(rc[:].apply_sync(lambda: 42))") == [42] * 4
