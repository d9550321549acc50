"""What taking a fleet away from a host takes, and what it keeps."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_accounts, fleet_removal

ENGINES, DATABASES = "state/work/result", "state/postgresql/data/PG_VERSION"
NOTEBOOKS = "jupyterlab/notebooks/mine.ipynb"
ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fleet of scope user, with what engines wrote and with databases; root has some elsewhere."""
    monkeypatch.setattr(fleet_removal, "ROOTS_DATABASE", str(tmp_path / "of-%s"))
    root = tmp_path / "lab"
    for name in (
        "etc/fleet.json",
        "lib/a.py",
        "state/pgpass",
        "jupyterlab/token",
        NOTEBOOKS,
        ENGINES,
        DATABASES,
        "../of-lab/state/data/PG_VERSION",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "etc" / "fleet.json").write_text(json.dumps({"name": "lab"}))
    return root


def remove(root: Path, monkeypatch: pytest.MonkeyPatch, user: int, **more: Any) -> list[str]:
    """Take it away, and return what is left."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    folders = {
        "etc": "etc",
        "state": "state",
        "run": "run",
        "lab": "jupyterlab",
        "lab_run": "run",
        "tunnel": "tunnel",
        "door": "ipyengines-lab",
    }
    paths = {"root": str(root)} | {name: str(root / folder) for name, folder in folders.items()}
    params = {"fleet": "lab", "scope": "user", "paths": paths, "entries": [], "keep_data": True, "accounts": []}
    supervisor: Any = SimpleNamespace(stop_all=list)
    module = SimpleNamespace(params=params | more, check_mode=False, fail_json=None)
    removal = fleet_removal.Removal(module, supervisor, [])
    removal.carry_out()
    assert [path for path in removal.kept if not os.path.isdir(path)] == []
    return sorted(str(path.relative_to(root.parent)) for path in root.parent.rglob("*") if path.is_file())


def test_what_engines_wrote_databases_and_notebooks_are_kept(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [f"lab/{NOTEBOOKS}", f"lab/{DATABASES}", f"lab/{ENGINES}", "of-lab/state/data/PG_VERSION"]
    assert remove(fleet, monkeypatch, user=0) == kept


def test_a_user_leaves_the_database_of_root_alone(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remove(fleet, monkeypatch, user=1000, keep_data=False) == ["of-lab/state/data/PG_VERSION"]
    assert not fleet.exists()


def test_data_goes_too_when_that_is_asked_for(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remove(fleet, monkeypatch, user=0, keep_data=False) == []
    assert list(fleet.parent.iterdir()) == []


@pytest.fixture
def elsewhere(fleet: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A folder of notebooks outside of the fleet's own, with the one to start from, and the entries of both."""
    folder = fleet.parent / "elsewhere"
    folder.mkdir()
    starter = folder / "start-here.ipynb"
    starter.write_text("as written")
    entries: list[dict[str, Any]] = [
        {"kind": "directory", "path": str(folder), "owner": ME},
        {"kind": "file", "path": str(starter), "owner": ME, "content": "as written", "once": True},
    ]
    return folder, entries


@pytest.mark.parametrize("keep", [True, False])
def test_of_a_folder_elsewhere_nothing_but_the_starter_as_it_was_written_goes(
    fleet: Path, elsewhere: tuple[Path, list[dict[str, Any]]], keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, entries = elsewhere
    remove(fleet, monkeypatch, user=os.getuid(), keep_data=keep, entries=entries)
    assert not folder.exists()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", ["start-here.ipynb", "mine.ipynb"])
def test_what_people_have_in_a_folder_elsewhere_is_never_removed(
    fleet: Path, elsewhere: tuple[Path, list[dict[str, Any]]], name: str, keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, entries = elsewhere
    (folder / name).write_text("by hand")
    assert f"elsewhere/{name}" in remove(fleet, monkeypatch, user=os.getuid(), keep_data=keep, entries=entries)
    assert (folder / name).read_text() == "by hand"


@pytest.mark.parametrize(("keep_data", "left"), [(True, ["ipyfleet-lab", "ipylab-lab"]), (False, [])])
def test_accounts_go_from_any_host_and_who_has_data_stays(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, keep_data: bool, left: list[str]
) -> None:
    homes = {"ipyfleet-lab": "state", "ipylab-lab": "jupyterlab/home", "ipytunnel-lab": "tunnel", "ann": "../../ann"}
    there = [pwd.struct_passwd((name, "x", 4711, 4711, "", str(fleet / home), "/bin/false")) for name, home in homes.items()]
    monkeypatch.setattr(pwd, "getpwall", lambda: there)
    removed = Mock(return_value=[])
    monkeypatch.setattr(fleet_accounts, "remove", removed)
    # what this host's groups ask for now names none of them
    remove(fleet, monkeypatch, user=0, scope="system", keep_data=keep_data)
    assert sorted({*homes} - {call.args[1] for call in removed.mock_calls}) == sorted(["ann", *left])


def test_the_notebook_to_start_from_is_kept_if_it_was_used(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = fleet / NOTEBOOKS
    entries = [{"kind": "file", "path": str(mine), "content": "as it was written", "once": True}]
    mine.write_text("and changed")
    assert f"lab/{NOTEBOOKS}" in remove(fleet, monkeypatch, user=0, entries=entries)
    mine.write_text("as it was written")
    assert f"lab/{NOTEBOOKS}" not in remove(fleet, monkeypatch, user=0, entries=entries)


def test_who_has_notebooks_elsewhere_stays(
    fleet: Path, elsewhere: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, entries = elsewhere
    (folder / "mine.ipynb").touch()
    there = pwd.struct_passwd(("ipylab-lab", "x", 4711, 4711, "", str(fleet / "jupyterlab/home"), "/bin/false"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [there])
    removed = Mock(return_value=[])
    monkeypatch.setattr(fleet_accounts, "remove", removed)
    remove(fleet, monkeypatch, user=os.getuid(), scope="system", keep_data=False, entries=entries)
    assert removed.mock_calls == []
