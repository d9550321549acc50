"""What a service's user puts in its own folders cannot hold root up, nor lead it elsewhere."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import ipyfleet_unit
import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_notes, fleet_removal
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_reading import regular_bytes

SECONDS = 5.0


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """End what waits for ever."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def grow(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


TRAPS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "link": lambda path: path.symlink_to(path.with_name("other")),
    "folder": Path.mkdir,
    "socket": listen,
    "huge": grow,
}


@pytest.fixture(params=TRAPS)
def trap(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Something in the place of a note."""
    (tmp_path / "other").write_text('{"inputs": "x"}')
    path = tmp_path / "jupyterlab.json"
    TRAPS[request.param](path)
    return path


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert regular_bytes(str(tmp_path / "a"), 4) == b"1234"
    with pytest.raises(OSError, match="File too large"):
        regular_bytes(str(tmp_path / "a"), 3)


def test_a_trap_is_no_note(trap: Path) -> None:
    assert fleet_notes.read_note(str(trap.parent), "jupyterlab") == {}


def test_a_trap_counts_as_a_file_that_is_missing(trap: Path) -> None:
    before = fleet_notes.digest_of([str(trap)], {})
    trap.rmdir() if trap.is_dir() and not trap.is_symlink() else trap.unlink()
    assert fleet_notes.digest_of([str(trap)], {}) == before


def test_a_trap_is_not_what_was_written(trap: Path) -> None:
    assert not fleet_removal.holds(str(trap), '{"inputs": "x"}')


def test_a_unit_starts_whatever_is_in_place_of_its_note(tmp_path: Path) -> None:
    for name, make in TRAPS.items():
        if name != "folder":
            make(tmp_path / f"{name}.json")
            ipyfleet_unit.begin(name, tmp_path, [])
            assert fleet_notes.started_with(str(tmp_path), name) == fleet_notes.digest_of([], {})


def test_a_note_that_is_nested_without_end_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 4000)
    assert fleet_notes.read_note(str(tmp_path), "a") == {}
