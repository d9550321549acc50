"""The collection that the database needs on the control node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import needed
from conftest import ROOT


def collection(folder: Path, version: object) -> Path:
    (folder / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": version}}))
    return folder


@pytest.mark.parametrize("version", ["4.1.0", "4.99.3"])
def test_a_collection_of_the_right_version_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    monkeypatch.setattr(needed, "installed", lambda: collection(tmp_path, version))
    assert needed.problem() == ""


@pytest.mark.parametrize("version", ["4.0.1", "3.9.0", "5.0.0"])
def test_another_version_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    monkeypatch.setattr(needed, "installed", lambda: collection(tmp_path, version))
    assert needed.problem() == (
        "expected the collection community.postgresql 4.1 or newer, below 5, on this machine,"
        f" got {version} in {tmp_path}; ansible-galaxy collection install -r requirements.yml, or pip install 'ipyfleet[postgresql]'"
    )


def test_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needed, "COLLECTION", "nobody.nothing")
    assert "on this machine, got none; ansible-galaxy collection install" in needed.problem()


@pytest.mark.parametrize("version", [None, "unknown"])
def test_a_copy_of_its_sources_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: object) -> None:
    monkeypatch.setattr(needed, "installed", lambda: collection(tmp_path, version))
    assert needed.problem() == ""


def test_the_message_and_the_requirements_agree() -> None:
    (only,) = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    low, high = (".".join(map(str, each)) for each in (needed.OLDEST, needed.TOO_NEW))
    assert only == {"name": needed.COLLECTION, "version": f">={low}.0,<{high}.0"}
