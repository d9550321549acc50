"""One run at a time changes a fleet."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.claims import (
    CLAIM,
    Claim,
    ClaimedError,
    began,
    claim,
    release,
    this_run,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import StoreError
from conftest import ROOT


@pytest.fixture
def other() -> Iterator[Claim]:
    """The claim of another run, which goes on until the test ends."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield Claim("eve", socket.gethostname(), process.pid, began(process.pid), "2001-02-03T04:05:06+00:00")
        process.kill()


def leave(folder: Path, made: Claim) -> None:
    (folder / CLAIM).write_text(json.dumps(asdict(made)))


def test_a_run_claims_a_fleet_as_often_as_it_likes(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    claim(folder, "lab")
    first = (folder / CLAIM).read_text()
    claim(folder, "lab")
    assert (folder / CLAIM).read_text() == first
    assert (folder.stat().st_mode & 0o777, (folder / CLAIM).stat().st_mode & 0o777) == (0o700, 0o600)


def test_another_run_is_named(tmp_path: Path, other: Claim) -> None:
    leave(tmp_path, other)
    with pytest.raises(ClaimedError) as refused:
        claim(tmp_path, "lab")
    said = str(refused.value)
    assert said.startswith(f"fleet lab: expected no other run, got one of eve on {other.host} (pid {other.pid}) since 2001-02-0")
    assert said.endswith("; wait for it to end")


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        gone = replace(this_run(), pid=process.pid, started=began(process.pid))
        process.kill()
    leave(tmp_path, gone)
    claim(tmp_path, "lab")
    assert json.loads((tmp_path / CLAIM).read_text())["pid"] == os.getpid()


def test_a_later_process_of_the_same_number_has_no_claim(tmp_path: Path, other: Claim) -> None:
    leave(tmp_path, replace(other, started="before that"))
    claim(tmp_path, "lab")


def test_of_another_machine_nothing_is_known(tmp_path: Path, other: Claim) -> None:
    leave(tmp_path, replace(other, host="desk", started="long ago"))
    with pytest.raises(ClaimedError, match=rf"got one of eve on desk .*; wait for it to end, or remove {tmp_path / CLAIM} if it has$"):
        claim(tmp_path, "lab")


@pytest.mark.parametrize("text", ["", '{"user": "ev', "[]", '{"user": "eve"}', "null"])
def test_a_file_that_was_cut_short_is_no_claim(tmp_path: Path, text: str) -> None:
    (tmp_path / CLAIM).write_text(text)
    claim(tmp_path, "lab")


def test_a_released_fleet_is_free_and_others_claims_stay(tmp_path: Path, other: Claim) -> None:
    release(tmp_path)
    claim(tmp_path, "lab")
    release(tmp_path)
    assert (tmp_path / CLAIM).read_text() == ""
    leave(tmp_path, other)
    release(tmp_path)
    assert json.loads((tmp_path / CLAIM).read_text())["user"] == "eve"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    with pytest.raises(StoreError, match=r"keys/run.lock: cannot be written \(.*\); set fleet_secrets_dir"):
        claim(tmp_path / "keys", "lab")


def test_workers_claim_for_their_main_process(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=claim, args=(tmp_path, "lab"))
    worker.start()
    worker.join()
    assert json.loads((tmp_path / CLAIM).read_text())["pid"] == os.getpid()


RACER = """
import sys
from pathlib import Path
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader([sys.argv[1]])
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.claims import ClaimedError, claim
print("ready", flush=True)
sys.stdin.readline()
try:
    claim(Path(sys.argv[2]), "lab")
    print("mine", flush=True)
except ClaimedError:
    print("theirs", flush=True)
sys.stdin.readline()
"""


def test_of_runs_at_the_same_time_one_gets_the_fleet(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(ROOT / "collections"), str(tmp_path)]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    def line(racer: subprocess.Popen[str]) -> str:
        assert racer.stdout
        return racer.stdout.readline().strip()

    def go(racer: subprocess.Popen[str]) -> None:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()

    try:
        assert [line(racer) for racer in racers] == ["ready"] * 3
        for racer in racers:
            go(racer)
        assert sorted(line(racer) for racer in racers) == ["mine", "theirs", "theirs"]
    finally:
        for racer in racers:
            racer.communicate()
