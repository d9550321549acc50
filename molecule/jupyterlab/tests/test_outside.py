"""A client on a host from which only ssh leads to the fleet, as docs/connect.md has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from fleet import PYTHON, ROOT, python_alone, shell

# seconds in which a client that finds nothing gives up
PATIENCE = "timeout 15"


@pytest.fixture(scope="module", autouse=True)
def only_ssh() -> Iterator[None]:
    """The desk's root logs in to head by a key, and reaches nothing of head but that."""
    shell("desk", "test -e /root/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -C desk -f /root/.ssh/id_ed25519")
    shell("desk", "ssh-keyscan -t ed25519 head >>/root/.ssh/known_hosts 2>/dev/null")
    shell("desk", f"cat >>/root/.ssh/config <<'END'\n{config()}\nEND")
    shell("head", f"cat >>/root/.ssh/authorized_keys <<'END'\n{shell('desk', 'cat /root/.ssh/id_ed25519.pub')}\nEND")
    address = shell("desk", "hostname -I").split()[0]
    shell("head", "nft add table inet desk; nft add chain inet desk in '{ type filter hook input priority 0; }'")
    shell("head", f"nft add rule inet desk in ip saddr {address} tcp dport != 22 reject with tcp reset")
    yield
    shell("head", "nft delete table inet desk; sed -i '/ desk$/d' /root/.ssh/authorized_keys")
    shell("desk", "ssh -O exit head 2>/dev/null; rm -f /root/.ssh/config /root/.ssh/known_hosts /root/.ssh/id_ed25519*")


def blocks(language: str) -> list[str]:
    """Code of the page, from where it comes to clients outside."""
    text = (ROOT / "docs" / "connect.md").read_text().split("## An ipyparallel client from outside")[1]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for each, code in found if each == language]


def config() -> str:
    """What the page has for ~/.ssh/config, for the user of this scenario."""
    (found,) = [each for each in blocks("") if "ControlMaster" in each]
    return found.replace("User ops", "User root")


def test_the_way_is_closed_but_for_ssh() -> None:
    code = "import ipyparallel as ipp; ipp.Client(profile='lab', timeout=5)"
    assert shell("desk", f'HOME=/root {PATIENCE} {PYTHON} -c "{code}" >/dev/null 2>&1 && echo in || echo out') == "out"


def test_ports_that_one_ssh_forwards() -> None:
    (code,) = [each for each in blocks("python") if "127.0.0.1" in each]
    info = json.loads(shell("desk", "cat /root/.ipython/profile_lab/security/ipcontroller-client.json"))
    forwards = " ".join(f"-L 127.0.0.1:{port}:127.0.0.1:{port}" for port in info.values() if isinstance(port, int))
    shell("desk", f"ssh -o ControlPath=none -o ExitOnForwardFailure=yes -f -N {forwards} head")
    try:
        assert python_alone("desk", code + "\nprint(rc[:].apply_sync(lambda: 42))") == [42, 42]
    finally:
        shell("desk", "pkill -f '[E]xitOnForwardFailure'")


def test_ipyparallel_s_own_way() -> None:
    (code,) = [each for each in blocks("python") if "sshserver" in each]
    shell("desk", "ssh head true")
    assert python_alone("desk", code + "\nprint(rc[:].apply_sync(lambda: 42))") == [42, 42]
