"""Engines that a login holds: what is asked for, how they are started, and when they end."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipyfleet_engines
import ipyfleet_ssh
import psutil
import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_held import Held
from conftest import ROOT

PROGRAM = ROOT / "roles" / "ipp_node" / "files" / "ipyfleet_engines.py"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2, (2, [])), ((2, ["--a"]), (2, ["--a"])), ([1], (1, [])), ({"n": 3, "engine_args": ["--a"]}, (3, ["--a"])), ({}, (1, []))],
)
def test_engines_of_a_host_are_written_in_many_ways(value: Any, expected: tuple[int, list[str]]) -> None:
    assert ipyfleet_ssh.wanted({"h": value}, 9) == {"h": expected}


def test_no_more_engines_are_started_than_asked_for() -> None:
    assert ipyfleet_ssh.wanted({"a": 2, "b": 2, "c": 2}, 3) == {"a": (2, []), "b": (1, [])}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "expected a request such as"),
        ("rm -rf /", "expected a request such as"),
        ("[]", "expected a request such as"),
        ('{"n": 0}', "expected a number of engines from 1 on"),
        ('{"n": true}', "expected a number of engines from 1 on"),
        ('{"n": 1, "args": "--x"}', "expected options of ipengine as a list of strings"),
    ],
)
def test_other_requests_are_refused(line: str, problem: str) -> None:
    with pytest.raises(ipyfleet_engines.RequestError, match=problem):
        ipyfleet_engines.read_request(line)


def test_a_profile_of_ones_own_wins(tmp_path: Path) -> None:
    args = argparse.Namespace(etc="/etc/x", security="/s", profile="/p")
    assert "--profile-dir=/p" in ipyfleet_engines.engine_command(args, [])
    command = ipyfleet_engines.engine_command(args, [f"--profile_dir={tmp_path}/mine"])
    assert [each for each in command if "profile" in each] == [f"--profile-dir={tmp_path}/mine"]
    # an engine does not start where it is not there
    assert (tmp_path / "mine" / "security").is_dir()


class Host:
    """A host with two slots, and programs that stand for engines: they note that they run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("etc", "security", "lib", "work"):
            (folder / name).mkdir()
        for number in (0, 1):
            (folder / "etc" / f"engine-{number}.json").write_text("{}")
        for name in ("ipyfleet_engines.py", "ipyfleet_unit.py"):
            (folder / "lib" / name).write_text((PROGRAM.parent / name).read_text())
        text = (
            "import subprocess, sys, time\nsubprocess.Popen(['sleep', '300'], start_new_session=True)\n"
            "open(sys.argv[1] + '.ran', 'a').write('x')\nopen('mine', 'w').close()\ntime.sleep(60)\n"
        )
        (folder / "lib" / "ipengine.py").write_text(text)
        self.processes: list[subprocess.Popen[bytes]] = []

    def login(self, number: int) -> subprocess.Popen[bytes]:
        options = [f"--{name}={self.folder}/{name}" for name in ("security", "etc", "profile", "work")]
        command = [sys.executable, str(self.folder / "lib" / "ipyfleet_engines.py"), *options, json.dumps({"n": number})]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    def engines(self) -> list[psutil.Process]:
        """Engines that run now."""
        found = []
        for each in psutil.process_iter():
            try:
                if str(self.folder / "lib" / "ipengine.py") in each.cmdline() and each.status() != psutil.STATUS_ZOMBIE:
                    found.append(each)
            except psutil.Error:
                continue
        return found

    def children(self) -> list[psutil.Process]:
        """What engines have started."""
        return [each for each in psutil.process_iter(["name"]) if each.info["name"] == "sleep" and self.is_mine(each)]

    def is_mine(self, process: psutil.Process) -> bool:
        """Whether an engine of this host has started a process."""
        try:
            return bool(process.environ().get("IPYFLEET_UNIT", "").startswith(str(self.folder)))
        except psutil.Error:
            return False


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    found = Host(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()
    for each in [*found.engines(), *found.children()]:
        each.kill()


def eventually(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@pytest.mark.parametrize("end", ["hang up", "ask", "kill"])
def test_engines_end_with_the_login(host: Host, end: str) -> None:
    login = host.login(2)
    eventually(lambda: len(host.engines()) == 2)
    if end == "hang up":
        assert login.stdin
        login.stdin.close()
    else:
        login.send_signal(signal.SIGTERM if end == "ask" else signal.SIGKILL)
    eventually(lambda: host.engines() == [])
    # a login that is killed cannot; its successor does
    if end != "kill":
        eventually(lambda: host.children() == [])


def test_what_an_engine_has_started_is_gone_before_its_successor_comes(host: Host) -> None:
    login = host.login(1)
    eventually(lambda: len(host.children()) == 1)
    login.kill()
    (child,) = host.children()
    host.login(1)
    eventually(lambda: [each.pid for each in host.children()] not in ([], [child.pid]))
    assert len(host.children()) == 1


def test_engines_work_where_services_do(host: Host) -> None:
    host.login(1)
    eventually(lambda: (host.folder / "work" / "mine").exists())
    assert (host.folder / "work" / "mine").stat().st_mode & 0o777 == 0o600


def test_an_engine_that_ends_is_started_anew(host: Host) -> None:
    host.login(1)
    eventually(lambda: len(host.engines()) == 1)
    eventually(lambda: (host.folder / "etc" / "engine-0.json.ran").exists())
    host.engines()[0].kill()
    eventually(lambda: (host.folder / "etc" / "engine-0.json.ran").read_text() == "xx")


def test_two_logins_share_the_slots(host: Host) -> None:
    host.login(1)
    eventually(lambda: (host.folder / "etc" / "engine-0.json.ran").exists())
    other = host.login(2)
    eventually(lambda: (host.folder / "etc" / "engine-1.json.ran").exists())
    other.terminate()
    assert b"expected 2 free slots on this host, got 1" in other.communicate()[1]


def held(host: Host, by: str = "ssh", check_mode: bool = False, **more: Any) -> Held:
    """What a deployment does with a fleet's engines."""
    programs = {"engine": str(host.folder / "lib" / "ipengine.py"), "program": str(host.folder / "lib" / "ipyfleet_engines.py")}
    description = {"by": by, **programs, "mark": f"--etc={host.folder}/etc", "inputs": ["/etc/x/engine-"], **more}
    return Held(SimpleNamespace(check_mode=check_mode), description)


def test_a_deployment_ends_those_of_its_fleet_and_waits(host: Host) -> None:
    host.login(2)
    eventually(lambda: len(host.engines()) == 2)
    assert held(host, mark="--etc=/another").restart() == []
    assert held(host).retire() == []
    assert held(host, check_mode=True).restart() == [{"path": "engines", "what": "restart"}]
    assert len(host.engines()) == 2
    held(host).restart()
    assert host.engines() == []
    assert held(host).reads([{"path": "/etc/x/engine-0.json", "what": "change file"}])
    assert not held(host).reads([{"path": "/etc/x/engine-0.json", "what": "set"}, {"path": "/etc/x/fleet.json", "what": "change file"}])


@pytest.mark.parametrize("by", ["service", "mpi"])
def test_those_who_hold_engines_end_when_engines_are_started_in_another_way(host: Host, by: str) -> None:
    host.login(2)
    eventually(lambda: len(host.engines()) == 2)
    assert held(host, by, check_mode=True).retire() == [{"path": "engines", "what": "stop"}]
    assert len(host.engines()) == 2
    held(host, by).retire()
    assert host.engines() == []


def test_ranks_end_when_engines_are_started_in_another_way(host: Host) -> None:
    command = [sys.executable, str(host.folder / "lib" / "ipengine.py"), str(host.folder / "etc" / "engine-0.json"), "--mpi"]
    host.processes.append(subprocess.Popen(command, cwd=host.folder / "work", env={**os.environ, "IPYFLEET_UNIT": str(host.folder)}))
    eventually(lambda: len(host.engines()) == 1)
    assert held(host, "mpi").retire() == []
    assert held(host, "ssh").retire() == [{"path": "engines", "what": "stop"}]
    eventually(lambda: host.engines() == [])


def test_where_this_file_is_is_no_business_of_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/lib")
    assert "PYTHONPATH" not in ipyfleet_ssh.environment()
    assert ipyfleet_ssh.environment()["PATH"] == os.environ["PATH"]
