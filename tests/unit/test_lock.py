"""One change of a fleet on a host at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_lock import BusyError, held


def test_the_second_waits_for_the_first_and_nothing_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    seen: list[str] = []

    def second() -> None:
        with held(path, 10):
            seen.append("second")

    with held(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        seen.append("first")
    thread.join(10)
    assert seen == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with held(path), pytest.raises(BusyError, match="another run is changing this host"), held(path, 0.2):
        pass


def test_a_file_left_by_a_killed_run_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with held(str(path), 0):
        assert path.exists()
    assert not path.exists()
