"""A fleet's programs under a real supervisord."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_supervisord import Supervisord
from conftest import ROOT

UNIT = ROOT / "roles" / "ipp_node" / "files" / "ipyfleet_unit.py"


class Lab:
    """A folder in which a supervisord may run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "env" / "bin").mkdir(parents=True)
        # a link would start the base interpreter without the packages
        (folder / "env" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (folder / "env" / "bin" / "python").chmod(0o755)
        (folder / "env" / "ipyfleet.json").write_text("one")
        self.commands = {"a": "sleep 300", "b": "sleep 300"}

    def write(self) -> None:
        text = f"[supervisord]\nlogfile={self.folder}/d.log\npidfile={self.folder}/d.pid\nchildlogdir={self.folder}\n"
        text += f"[unix_http_server]\nfile={self.folder}/supervisor.sock\n"
        text += "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        for name, command in self.commands.items():
            (self.folder / f"{name}.conf").touch()
            watch = f"{sys.executable} {UNIT} watch {name} --run {self.folder} --input {self.folder}/{name}.conf"
            environment = f'environment=IPYFLEET_UNIT="{self.folder}/{name}"'
            text += f"[program:{name}]\ncommand={watch} -- {command}\n{environment}\nstartsecs=0\nautorestart=true\nredirect_stderr=true\n"
        (self.folder / "supervisord.conf").write_text(text)

    def supervisor(self, check: bool = False) -> Supervisord:
        with patch_module_args({}):
            module = AnsibleModule(argument_spec={}, supports_check_mode=True)
        module.check_mode = check
        wanted = [{"name": name, "inputs": [f"{self.folder}/{name}.conf"]} for name in self.commands]
        return Supervisord(module, str(self.folder), str(self.folder), f"{self.folder}/supervisord.conf", wanted)

    def converge(self, check: bool = False) -> list[tuple[str, str]]:
        self.write()
        supervisor = self.supervisor(check)
        changes = supervisor.retire() + supervisor.converge(files_changed=False, contents={})
        return [(change["what"], change["path"]) for change in changes]

    def pids(self) -> dict[str, int]:
        return {name: status["pid"] for name, status in self.supervisor().status(words=False).items()}

    def wait_noted(self) -> None:
        """Wait until all programs have noted with what they were started, which takes them a moment."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.converge(check=True):
            time.sleep(0.05)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Programs a and b; whatever runs is stopped afterwards."""
    found = Lab(tmp_path)
    yield found
    found.supervisor().stop_all()


def test_from_nothing_to_running_and_then_nothing_to_do(lab: Lab) -> None:
    assert lab.converge(check=True) == [("start", "supervisord"), ("start", "a"), ("start", "b")]
    assert not lab.supervisor().running()
    lab.converge()
    lab.wait_noted()
    assert all(status["running"] for status in lab.supervisor().status(words=False).values())
    before = lab.pids()
    assert lab.converge() == []
    assert lab.pids() == before


def running(lab: Lab) -> dict[str, int]:
    lab.converge()
    lab.wait_noted()
    return lab.pids()


def test_a_changed_file_restarts_what_reads_it_and_nothing_else(lab: Lab) -> None:
    before = running(lab)
    (lab.folder / "a.conf").write_text("changed")
    assert lab.converge(check=True) == [("restart", "a")]
    assert lab.pids() == before
    assert lab.converge() == [("restart", "a")]
    lab.wait_noted()
    assert lab.pids()["a"] != before["a"]
    assert lab.pids()["b"] == before["b"]
    assert lab.converge() == []


def test_a_changed_command_restarts_it(lab: Lab) -> None:
    before = running(lab)
    lab.commands["b"] = "sleep 301"
    assert lab.converge() == [("restart", "b")]
    assert lab.pids()["a"] == before["a"]


def test_a_stopped_program_is_started(lab: Lab) -> None:
    before = running(lab)
    lab.supervisor().server.stopProcess("a", True)
    assert lab.converge(check=True) == [("start", "a")]
    assert lab.converge() == [("start", "a")]
    assert lab.pids()["b"] == before["b"]


def test_more_and_fewer_programs_leave_the_others_alone(lab: Lab) -> None:
    before = running(lab)
    lab.commands["c"] = "sleep 300"
    assert lab.converge() == [("start", "c")]
    lab.wait_noted()
    del lab.commands["b"]
    assert lab.converge(check=True) == [("stop", "b")]
    assert lab.converge() == [("stop", "b")]
    assert lab.pids()["a"] == before["a"]
    assert "b" not in lab.supervisor().programs()


def test_another_environment_starts_everything_anew(lab: Lab) -> None:
    before = running(lab)
    (lab.folder / "env" / "ipyfleet.json").write_text("two")
    assert lab.converge(check=True)[0] == ("restart", "supervisord")
    assert lab.pids() == before
    assert ("restart", "supervisord") in lab.converge()
    lab.wait_noted()
    assert set(before.values()).isdisjoint(lab.pids().values())
    assert lab.converge() == []


def test_stop_all(lab: Lab) -> None:
    running(lab)
    assert [change["what"] for change in lab.supervisor().stop_all()] == ["stop"]
    assert not lab.supervisor().running()
    assert lab.supervisor().stop_all() == []


def test_status_has_the_last_words_of_what_ends_again_and_again(lab: Lab) -> None:
    lab.commands["a"] = "sh -c 'echo no such thing'"
    lab.converge()
    deadline = time.monotonic() + 20
    # from then on supervisord calls it running, while its next start is delayed
    while "waiting" not in Path(lab.supervisor().programs()["a"]["logfile"]).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert lab.supervisor().status(words=True)["a"]["last"] == "no such thing"
    assert lab.supervisor().status(words=True)["b"]["last"] == ""


def test_status_has_the_last_words_of_what_does_not_run(lab: Lab) -> None:
    lab.commands["b"] = f"{sys.executable} -c \"raise SystemExit('no such thing')\""
    lab.converge()
    supervisor = lab.supervisor()
    deadline = time.monotonic() + 10
    while "no such thing" not in Path(supervisor.programs()["b"]["logfile"]).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    supervisor.server.stopProcess("b", True)
    status = supervisor.status(words=True)["b"]
    assert not status["running"]
    assert "no such thing" in Path(supervisor.programs()["b"]["logfile"]).read_text()
    assert status["last"]


def test_one_program_is_stopped_started_and_restarted_and_the_other_left_alone(lab: Lab) -> None:
    before = running(lab)
    assert lab.supervisor().halt(["a"]) == [{"path": "a", "what": "stop"}]
    assert not lab.supervisor().status(words=False)["a"]["running"]
    assert lab.supervisor().start_all(["a"]) == [{"path": "a", "what": "start"}]
    lab.wait_noted()
    between = lab.pids()
    assert between["a"] not in (0, before["a"])
    assert lab.supervisor().restart_all(["a"]) == [{"path": "a", "what": "restart"}]
    lab.wait_noted()
    assert lab.pids()["a"] not in (0, between["a"])
    assert lab.pids()["b"] == before["b"]


def test_a_supervisord_that_is_started_for_one_program_leaves_the_others_stopped(lab: Lab) -> None:
    running(lab)
    lab.supervisor().stop_all()
    assert lab.supervisor().start_all(["b"]) == [{"path": "supervisord", "what": "start"}, {"path": "b", "what": "start"}]
    found = lab.supervisor().status(words=False)
    assert (found["a"]["running"], found["b"]["running"]) == (False, True)


def test_a_signal_reaches_the_command_of_a_program(lab: Lab) -> None:
    say = "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: print('got it', flush=True)); print('ready', flush=True)"
    lab.commands["a"] = f'{sys.executable} -c "{say}; [time.sleep(1) for _ in range(300)]"'
    running(lab)
    supervisor = lab.supervisor()
    log = Path(supervisor.programs()["a"]["logfile"])

    def wait_for(word: str) -> None:
        deadline = time.monotonic() + 10
        while word not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for("ready")
    before = lab.pids()
    assert lab.supervisor(check=True).signal("USR1", ["a"]) == [{"path": "a", "what": "signal USR1"}]
    assert "got it" not in log.read_text()
    assert supervisor.signal("USR1", ["a"]) == [{"path": "a", "what": "signal USR1"}]
    wait_for("got it")
    assert lab.pids() == before


@pytest.mark.parametrize("state", ["RUNNING", "BACKOFF"])
def test_what_has_ended_or_waits_for_its_next_start_is_sent_no_signal(lab: Lab, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    running(lab)
    supervisor = lab.supervisor()
    supervisor.server.stopProcess("a", True)
    known = {**supervisor.programs(), "a": {"statename": state}}
    # it ends after it was looked for
    monkeypatch.setattr(supervisor, "programs", lambda: known)
    assert supervisor.signal("USR1", ["a", "b"]) == [{"path": "b", "what": "signal USR1"}]
