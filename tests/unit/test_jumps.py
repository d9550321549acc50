"""Hosts behind jump hosts: why they are not reached, and locations that do not lead to the controller."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import explain, jumps

from ipyfleet import ssh

CLOSED = "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535"
# what OpenSSH says, and what is made of it
SAID = [
    (
        "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed\n",
        "expected the jump host to lead on, got refused; see AllowTcpForwarding and PermitOpen of its sshd",
    ),
    (
        "channel 0: open failed: connect failed: No route to host\r\nstdio forwarding failed\r\n",
        "expected the jump host to reach it, got: No route to host; check ansible_host and ansible_port, which have to hold from there",
    ),
    (
        "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n",
        "expected the host key of the jump host that is known, got another one; if it is a new one, forget the old key with ssh-keygen -R",
    ),
    (
        "No ED25519 host key is known for jump and you have requested strict checking.\nHost key verification failed.\n",
        "expected a host key of the jump host that is known, got an unknown one; log in to it once by ssh to accept it",
    ),
    (
        "ops@jump: Permission denied (publickey).\n",
        "expected the jump host to let us in with a key, got refused; check its user and key, in ~/.ssh/config",
    ),
    (
        "ssh: Could not resolve hostname jump: Name or service not known\n",
        "expected the name jump of the jump host to resolve, got an unknown one; check ansible_ssh_common_args",
    ),
    (
        "ssh: connect to host 10.0.0.1 port 22: Connection refused\n",
        "expected an SSH server on the jump host 10.0.0.1, port 22, got: Connection refused;"
        " check that it is up, and ansible_ssh_common_args",
    ),
]


@pytest.mark.parametrize(("said", "meaning"), SAID)
def test_what_a_jump_host_says_is_not_taken_for_what_the_host_says(said: str, meaning: str) -> None:
    assert explain.unreached(said + CLOSED) == meaning
    assert ssh.meaning((said + CLOSED).splitlines(), 255) == meaning


def test_the_package_and_the_hosts_have_the_same_words() -> None:
    assert ssh.JUMPS == explain.JUMPS


def test_the_host_itself_is_not_taken_for_its_jump_host() -> None:
    assert "check ansible_user" in explain.unreached("ops@head: Permission denied (publickey).")
    assert "jump host" not in explain.unreached("Host key verification failed.")


class Connection:
    """As much of Ansible's connection as is asked."""

    transport = "ssh"

    def __init__(self, program: Path, **options: Any) -> None:
        self.options = {"ssh_executable": str(program), "host": "head", "timeout": 10, **options}

    def get_option(self, name: str) -> Any:
        return self.options.get(name)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An ssh that keeps its words, and says what the jump host says."""
    path = tmp_path / "ssh"
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/words\ncat {tmp_path}/says >&2\nexit 255\n")
    path.chmod(0o755)
    return path


def test_ssh_is_asked_again_for_what_it_throws_away(program: Path, tmp_path: Path) -> None:
    (tmp_path / "says").write_text(SAID[0][0] + CLOSED)
    given = {
        "ssh_args": "-o ControlMaster=auto -o ControlPersist=60s",
        "ssh_common_args": "-J 'ops@jump'",
        "port": 2222,
        "remote_user": "ops",
    }
    connection = Connection(program, **given)
    assert explain.unreached(jumps.reason(connection, f"Failed to connect to the host via ssh: {CLOSED}")) == SAID[0][1]
    words = (tmp_path / "words").read_text().splitlines()
    # ssh takes the first that it sees
    assert words.index("ControlPersist=no") < words.index("ControlPersist=60s")
    assert words[words.index("-J") + 1] == "ops@jump"
    assert words[words.index("-p") + 1] == "2222"
    assert words[-2:] == ["head", "true"]


@pytest.mark.parametrize("message", ["ssh: connect to host head port 22: Connection refused", "Connection to UNKNOWN port 65535 timed out"])
def test_ssh_is_not_asked_again_where_that_would_tell_nothing(program: Path, tmp_path: Path, message: str) -> None:
    assert jumps.reason(Connection(program), message) == message
    assert not (tmp_path / "words").exists()


def test_what_was_said_first_stands_where_ssh_gets_there_the_second_time(program: Path, tmp_path: Path) -> None:
    (tmp_path / "says").write_text("")
    assert jumps.reason(Connection(program), CLOSED) == CLOSED
    os.remove(program)
    assert jumps.reason(Connection(program), CLOSED) == CLOSED


def test_an_ssh_that_hangs_ends_in_time_with_what_it_has_started(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jumps, "ALLOWANCE_SECONDS", 0)
    program.write_text(f"#!/bin/sh\nsleep 300 &\necho $! >{tmp_path}/child\nsleep 300\n")
    begin = time.monotonic()
    assert jumps.reason(Connection(program, timeout=1), CLOSED) == CLOSED
    assert time.monotonic() - begin < 10
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "cmdline")
    while child.exists() and child.read_bytes():
        assert time.monotonic() - begin < 20
        time.sleep(0.05)


def test_a_host_that_answers_or_refuses_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert fleet_facts.no_way(["127.0.0.1"], port) == ""
    assert fleet_facts.no_way(["127.0.0.1"], port) == ""
    assert fleet_facts.no_way([], port) == ""

    def silent(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    assert fleet_facts.no_way(["127.0.0.1"], port) == "no answer in 5 s"


def test_own_addresses_are_those_that_others_may_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    table = (
        b"Local:\n  |-- 10.0.0.5\n     /32 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 10.0.0.255\n     /32 link BROADCAST\n"
    )
    monkeypatch.setattr(fleet_facts, "read_bytes", lambda _: table)
    assert fleet_facts.own_addresses() == ["10.0.0.5"]
