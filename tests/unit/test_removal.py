"""What taking a fleet away from a host takes, and what it keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_removal

ENGINES, DATABASES = "state/work/result", "state/postgresql/data/PG_VERSION"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fleet of scope user, with what engines wrote and with databases; root has some elsewhere."""
    monkeypatch.setattr(fleet_removal, "ROOTS_DATABASE", str(tmp_path / "of-%s"))
    root = tmp_path / "lab"
    for name in ("etc/fleet.json", "lib/a.py", "state/pgpass", ENGINES, DATABASES, "../of-lab/state/data/PG_VERSION"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "etc" / "fleet.json").write_text(json.dumps({"name": "lab"}))
    return root


def remove(root: Path, monkeypatch: pytest.MonkeyPatch, user: int, **more: Any) -> list[str]:
    """Take it away, and return what is left."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    paths = {name: str(root / folder) for name, folder in (("root", ""), ("etc", "etc"), ("state", "state"), ("run", "run"))}
    params = {"fleet": "lab", "scope": "user", "paths": paths | {"root": str(root)}, "entries": [], "keep_data": True, "user": ""}
    supervisor: Any = SimpleNamespace(stop_all=list)
    module = SimpleNamespace(params=params | more, check_mode=False)
    fleet_removal.Removal(module, supervisor, []).carry_out()
    return sorted(str(path.relative_to(root.parent)) for path in root.parent.rglob("*") if path.is_file())


def test_what_engines_wrote_and_databases_are_kept(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [f"lab/{DATABASES}", f"lab/{ENGINES}", "of-lab/state/data/PG_VERSION"]
    assert remove(fleet, monkeypatch, user=0) == kept


def test_a_user_leaves_the_database_of_root_alone(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remove(fleet, monkeypatch, user=1000, keep_data=False) == ["of-lab/state/data/PG_VERSION"]
    assert not fleet.exists()


def test_data_goes_too_when_that_is_asked_for(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remove(fleet, monkeypatch, user=0, keep_data=False) == []
    assert list(fleet.parent.iterdir()) == []
