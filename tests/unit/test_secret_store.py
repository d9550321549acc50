"""The folder of a fleet's keys."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import zmq
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import (
    FleetState,
    SecretStore,
    StoreError,
    new_secrets,
    z85,
)


def store(folder: Path) -> SecretStore:
    return SecretStore(folder, lambda path: Path(path).read_text())


def test_keys_are_a_pair_that_zeromq_takes() -> None:
    made = new_secrets()
    assert zmq.curve_public(made.curve_secret.encode()) == made.curve_public.encode()
    assert len(made.key) == 64
    assert made != new_secrets()


def test_z85_of_the_rfc() -> None:
    assert z85(bytes.fromhex("864FD26FB559F75B")) == "HelloWorld"


def test_keys_are_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / ".ipyfleet" / "lab"
    assert store(folder).secrets() is None
    made = store(folder).create_secrets()
    assert store(folder).create_secrets() == made == store(folder).secrets()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "secrets.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["secrets.json"]


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    store(tmp_path).create_secrets()
    (tmp_path / "secrets.json").chmod(0o644)
    with pytest.raises(StoreError, match="expected mode 0600, got 0644"):
        store(tmp_path).secrets()


@pytest.mark.parametrize(
    ("text", "expected"), [("{", "expected JSON"), ("[]", "expected a JSON object"), ('{"key": "x"}', "'curve_public'")]
)
def test_keys_that_are_none(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "secrets.json").write_text(text)
    (tmp_path / "secrets.json").chmod(0o600)
    with pytest.raises(StoreError, match=expected):
        store(tmp_path).secrets()


def test_state_is_remembered(tmp_path: Path) -> None:
    assert store(tmp_path).state() == FleetState()
    state = FleetState(deployed=True, slots={"n1": [0, 1]})
    store(tmp_path).remember(state)
    assert store(tmp_path).state() == state


def test_state_that_stays_the_same_is_not_written(tmp_path: Path) -> None:
    state = FleetState(deployed=True, slots={"n1": [0]})
    store(tmp_path).remember(state)
    before = (tmp_path / "state.json").stat().st_mtime_ns
    store(tmp_path).remember(state)
    assert (tmp_path / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [{}, {"slots": [], "deployed": True}, {"slots": {"a": ["x"]}, "deployed": True}])
def test_state_that_is_none(tmp_path: Path, content: object) -> None:
    (tmp_path / "state.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="expected a fleet's state"):
        store(tmp_path).state()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written .*set fleet_secrets_dir"):
        store(tmp_path / "file" / "keys").create_secrets()


def test_removal(tmp_path: Path) -> None:
    folder = tmp_path / ".ipyfleet" / "lab"
    store(folder).create_secrets()
    assert store(folder).remove(dry=True) is True
    assert folder.exists()
    assert store(folder).remove(dry=False) is True
    assert list(tmp_path.iterdir()) == []
    assert store(folder).remove(dry=False) is False


def test_removal_leaves_other_fleets_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store(tmp_path / ".ipyfleet" / name).create_secrets()
    store(tmp_path / ".ipyfleet" / "a").remove(dry=False)
    assert store(tmp_path / ".ipyfleet" / "b").secrets() is not None
