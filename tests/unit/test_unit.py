"""What a fleet's processes get from ipyfleet_unit.py: back-off, notes, and no orphans."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ipyfleet_unit as unit
import psutil
import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_notes
from conftest import ROOT

SCRIPT = str(ROOT / "roles" / "ipp_node" / "files" / "ipyfleet_unit.py")


@pytest.mark.parametrize(("quick", "delay"), [(0, 0), (4, 0), (5, 1), (6, 2), (10, 32), (11, 60), (5000, 60)])
def test_back_off(quick: int, delay: float) -> None:
    assert unit.delay_after(quick) == delay


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept; the clock stands still otherwise."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_a_crash_loop_is_slowed_down(tmp_path: Path, slept: list[float]) -> None:
    for _ in range(9):
        unit.begin("engine@0", tmp_path, [])
    assert slept == [1, 2, 4, 8]


def test_one_that_ran_for_a_while_starts_at_once(tmp_path: Path, slept: list[float]) -> None:
    for _ in range(20):
        unit.begin("engine@0", tmp_path, [])
        note = json.loads((tmp_path / "engine@0.json").read_text())
        note["started"] -= unit.QUICK_SECONDS + 1
        (tmp_path / "engine@0.json").write_text(json.dumps(note))
    assert slept == []


def test_other_files_and_another_boot_are_a_new_chance(tmp_path: Path, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "config"
    for number in range(20):
        source.write_text(str(number))
        unit.begin("a", tmp_path, [str(source)])
    for number in range(20):
        monkeypatch.setattr(unit, "boot_id", lambda number=number: str(number))
        unit.begin("b", tmp_path, [])
    assert slept == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}'])
def test_a_damaged_note_is_no_obstacle(tmp_path: Path, slept: list[float], text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    unit.begin("a", tmp_path, [])
    assert json.loads((tmp_path / "a.json").read_text())["quick"] == 0
    assert slept == []


def test_the_deployment_reads_the_note_that_the_unit_writes(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two", tmp_path / "missing"]
    files[0].write_text("1")
    files[1].write_text("2")
    inputs = [*map(str, files), str(files[0])]
    unit.begin("a", tmp_path, inputs)
    assert fleet_notes.started_with(str(tmp_path), "a") == fleet_notes.digest_of(inputs, {})
    assert fleet_notes.digest_of(inputs, {str(files[0]): "1"}) == fleet_notes.digest_of(inputs, {})
    assert fleet_notes.digest_of(inputs, {str(files[0]): "new"}) != fleet_notes.digest_of(inputs, {})
    assert fleet_notes.digest_of(inputs, {str(files[2]): ""}) != fleet_notes.digest_of(inputs, {})
    assert fleet_notes.started_with(str(tmp_path), "nobody") == ""


# -- watch, with real processes

FAMILY = """
import os, subprocess, sys, time
# a child in a session of its own, as the schedulers of a controller may be
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print("up", flush=True)
time.sleep(300)
"""


class Watched:
    """A watch that runs, and what it has started."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"{folder}/family"
        (folder / "left").unlink(missing_ok=True)
        leave = f"{sys.executable} -c \"open('{folder}/left', 'w')\""
        command = [sys.executable, SCRIPT, "watch", "family", "--run", str(folder), "--leave", leave, "--", sys.executable, "-c", FAMILY]
        self.process = subprocess.Popen(command, env={**os.environ, unit.MARK: self.mark}, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"
        deadline = time.monotonic() + 10
        # a process that is being started bears no mark for a moment
        while len(self.family()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def family(self) -> list[psutil.Process]:
        """Processes of the unit, without the watch itself."""
        return [each for each in unit.marked(self.mark) if each.pid != self.process.pid]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A watch over a process with a child."""
    found = Watched(tmp_path)
    yield found
    found.process.kill()
    found.process.wait()
    unit.sweep(found.mark, grace=0)


def main_of(watched: Watched) -> psutil.Process:
    (main,) = (each for each in watched.family() if each.ppid() == watched.process.pid)
    return main


def test_a_killed_process_takes_its_children_with_it(tmp_path: Path, watched: Watched) -> None:
    assert len(watched.family()) == 2
    main_of(watched).kill()
    assert watched.process.wait(timeout=20) == 128 + signal.SIGKILL
    assert watched.family() == []
    assert (tmp_path / "left").exists()


def test_a_stop_ends_all(tmp_path: Path, watched: Watched) -> None:
    watched.process.terminate()
    watched.process.wait(timeout=20)
    assert watched.family() == []
    assert (tmp_path / "left").exists()


def test_what_a_killed_watch_left_ends_when_the_next_one_begins(tmp_path: Path, watched: Watched) -> None:
    orphans = watched.family()
    watched.process.kill()
    watched.process.wait()
    assert [each.is_running() for each in orphans] == [True, True]
    after = Watched(tmp_path)
    try:
        assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in orphans)
        assert len(after.family()) == 2
        time.sleep(0.2)
        assert after.process.poll() is None
    finally:
        after.process.terminate()
        after.process.wait(timeout=20)


def test_what_runs_may_have_as_many_files_open_as_its_user_may(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    say = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    watch = f"{shlex.quote(sys.executable)} {SCRIPT} watch files --run {tmp_path} -- {shlex.quote(sys.executable)} -c {shlex.quote(say)}"
    environ = {**os.environ, unit.MARK: f"{tmp_path}/files"}
    said = subprocess.run(["sh", "-c", f"ulimit -Sn 256; exec {watch}"], env=environ, capture_output=True, text=True, check=True).stdout
    assert int(said) == (unit.MOST_FILES if hard == resource.RLIM_INFINITY else min(unit.MOST_FILES, hard))
