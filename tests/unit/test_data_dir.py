"""Folders that JupyterLab's account must not be given, in a line each."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_data_dir

ME = pwd.getpwuid(os.getuid()).pw_name
PATHS = {"root": "/opt/ipyfleet/lab", "etc": "/etc/ipyfleet/lab", "state": "/var/lib/ipyfleet/lab", "run": "/run/ipyfleet/lab"}
Judge = Callable[..., list[str]]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    """What is said of a folder; in scope system, folders on the way to it have these modes, and root owns them."""

    def run(path: Path | str, user: str = ME, system: bool = False, **modes: int) -> list[str]:
        def stat(folder: str) -> SimpleNamespace:
            return SimpleNamespace(st_uid=modes.get("owner", 0), st_mode=modes.get(os.path.basename(folder), 0o755))

        if system:
            monkeypatch.setattr(os, "stat", stat)
            monkeypatch.setattr(os.path, "isdir", lambda _: True)
        return list(fleet_data_dir.problems(str(path), user, PATHS, system))

    return run


def test_a_new_folder_and_one_s_own_are_taken(tmp_path: Path, judge: Judge) -> None:
    (tmp_path / "own").mkdir()
    assert judge(tmp_path / "new") == judge(tmp_path / "own") == []
    assert judge(tmp_path / "new", system=True) == []


@pytest.mark.parametrize("path", ["/", "/etc", "/usr", "/var", "/home", "/root", "/boot", "/opt", "/srv"])
def test_a_folder_of_the_system_is_refused(path: str, judge: Judge) -> None:
    (said,) = judge(path, user="root")
    assert said == f"jupyterlab_data_dir: expected a folder for notebooks alone, got {path}, which is the system's; name one in it"


@pytest.mark.parametrize("path", ["/var/lib/ipyfleet", "/var/lib/ipyfleet/lab/work", "/etc/ipyfleet/other/x"])
def test_a_folder_of_a_fleet_is_refused(path: str, judge: Judge) -> None:
    (said,) = judge(path)
    assert said.startswith(f"jupyterlab_data_dir: expected a folder outside of those of fleets, got {path};")


@pytest.mark.parametrize("name", ["link", "real/../real", "real/", "link/new"])
def test_a_path_that_leads_elsewhere_is_refused(name: str, tmp_path: Path, judge: Judge) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (said,) = judge(f"{tmp_path}/{name}")
    assert "expected a path without links, dots and a slash at its end" in said
    assert said.endswith(f"write {os.path.realpath(tmp_path / name)}")


def test_a_folder_in_one_that_is_missing_is_refused(tmp_path: Path, judge: Judge) -> None:
    (said,) = judge(tmp_path / "missing" / "new")
    assert said.endswith(f"to be in a folder that is there, got no folder {tmp_path}/missing; make it")


@pytest.mark.parametrize("system", [False, True])
def test_a_folder_of_somebody_else_s_is_refused_even_if_it_is_empty(system: bool, tmp_path: Path, judge: Judge) -> None:
    (said,) = judge(tmp_path, user="nobody", system=system)
    assert said.startswith(f"jupyterlab_data_dir: {tmp_path}: expected a folder of the user nobody, got one of {ME};")
    (said,) = judge(tmp_path, user="no-such-account", system=system)
    assert "expected a folder of the user no-such-account" in said


@pytest.mark.parametrize("modes", [{"owner": 4711}, {"on-the-way": 0o775}, {"on-the-way": 0o1777}])
def test_others_must_not_be_able_to_put_something_else_in_its_place(modes: dict[str, int], judge: Judge) -> None:
    (said,) = judge("/on-the-way/deep/new", system=True, **modes)
    assert "expected nobody but root to write to /on-the-way" in said


def test_the_account_has_to_reach_it(judge: Judge) -> None:
    (said,) = judge("/closed/new", system=True, closed=0o700)
    assert said.endswith("expected a folder that JupyterLab's account can reach, got /closed/new, and /closed lets nobody pass")


def test_a_user_cannot_have_one_where_only_root_can_write(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    (said,) = judge("/usr/share/new")
    assert said == f"jupyterlab_data_dir: expected /usr/share to be a folder that {ME} can write to, got one that is not; name another"
