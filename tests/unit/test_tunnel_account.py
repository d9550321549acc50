"""Tunnels that are open do not outlive the key that opened them."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_accounts as accounts

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Whose processes are ended; every account has one."""
    monkeypatch.setattr(accounts, "processes_of", lambda _: [4711])
    mock = Mock()
    monkeypatch.setattr(accounts, "end_processes", mock)
    return mock


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "authorized_keys"
    path.write_text("ann\nbob\n")
    path.chmod(0o644)
    return path


def close(path: Path, text: str, check: bool = False) -> list[str]:
    module = SimpleNamespace(check_mode=check)
    return [each["what"] for each in accounts.close(module, ME, str(path), text)]


def test_with_the_same_keys_they_go_on(keys: Path, ended: Mock) -> None:
    assert close(keys, "ann\nbob\n") == []
    ended.assert_not_called()


def test_with_other_keys_they_end_and_nobody_comes_in_meanwhile(keys: Path, ended: Mock) -> None:
    ended.side_effect = lambda _: modes.append(stat.S_IMODE(keys.stat().st_mode))
    modes: list[int] = []
    assert close(keys, "ann\n") == ["end tunnels"]
    ended.assert_called_once_with(os.getuid())
    assert modes == [0o600]
    # as after a run that was cut off before it wrote the new keys
    assert close(keys, "ann\n") == ["end tunnels"]


def test_they_end_when_somebody_took_the_file_away(keys: Path, ended: Mock) -> None:
    keys.unlink()
    assert close(keys, "ann\n") == ["end tunnels"]
    ended.assert_called_once()


def test_a_dry_run_only_says_so(keys: Path, ended: Mock) -> None:
    assert close(keys, "ann\n", check=True) == ["end tunnels"]
    ended.assert_not_called()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o644


def test_where_none_is_open_there_is_nothing_to_say(keys: Path, ended: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "processes_of", lambda _: [])
    assert close(keys, "ann\n") == []
    ended.assert_not_called()


def test_processes_are_asked_to_end_before_they_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    programs = (deaf, deaf.partition("; ")[0] + "; print(flush=True); signal.pause()")
    children = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for program in programs]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
    monkeypatch.setattr(accounts, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(accounts, "processes_of", lambda _: [child.pid for child in children if child.poll() is None])
    accounts.end_processes(4711)
    assert [child.poll() for child in children] == [-signal.SIGKILL, -signal.SIGTERM]
