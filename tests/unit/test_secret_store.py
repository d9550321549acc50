"""The folder of a fleet's keys."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zmq
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import issue, new_authority, request
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import (
    FleetState,
    SecretStore,
    StoreError,
    new_secrets,
    z85,
)

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
VAULT = "$ANSIBLE_VAULT;1.1;AES256\n6162\n"


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


# -- passwords, the authority, and what it has signed


def keep(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / name).chmod(0o600)


def test_passwords_are_made_once_for_each_account(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = store(folder).create_passwords(["lab", "ann"], {})
    assert sorted(made) == ["ann", "lab"]
    assert min(map(len, made.values())) >= 32
    assert len(set(made.values())) == 2
    more = store(folder).create_passwords(["lab", "bob"], {})
    assert more["lab"] == made["lab"]
    assert store(folder).passwords() == made | more
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "passwords.json").stat().st_mode) == 0o600


def test_a_password_that_is_given_wins_and_is_not_kept(tmp_path: Path) -> None:
    assert store(tmp_path).create_passwords(["lab"], {"lab": "given", "other": "x"}) == {"lab": "given"}
    assert not (tmp_path / "passwords.json").exists()
    kept = store(tmp_path).create_passwords(["lab"], {})
    assert store(tmp_path).create_passwords(["lab"], {"lab": "given"}) == {"lab": "given"}
    assert store(tmp_path).passwords() == kept


def test_an_authority_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    assert store(folder).authority() is None
    made = store(folder).create_authority("lab", NOW)
    assert store(folder).create_authority("lab", NOW) == made == store(folder).authority()
    assert stat.S_IMODE((folder / "ca.json").stat().st_mode) == 0o600


def test_certificates_are_kept_by_name(tmp_path: Path) -> None:
    authority = new_authority("lab", NOW)
    first, second = (issue(authority, request("server", "", [name], 398, 60), NOW) for name in ("a", "b"))
    assert store(tmp_path).certificates() == {}
    store(tmp_path).keep_certificate("server a", first)
    store(tmp_path).keep_certificate("server b", first)
    store(tmp_path).keep_certificate("server b", second)
    assert store(tmp_path).certificates() == {"server a": first, "server b": second}
    assert stat.S_IMODE((tmp_path / "certificates.json").stat().st_mode) == 0o600


def test_a_look_keeps_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    assert list(store(folder).create_passwords(["lab"], {}, dry=True)) == ["lab"]
    authority = store(folder).create_authority("lab", NOW, dry=True)
    store(folder).keep_authority(authority, dry=True)
    store(folder).keep_certificate("server db", authority, dry=True)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["passwords.json", "ca.json", "certificates.json"])
def test_secrets_that_others_can_read_are_refused(tmp_path: Path, name: str) -> None:
    keep(tmp_path, name, {})
    (tmp_path / name).chmod(0o640)
    mine = store(tmp_path)
    read = {"passwords.json": mine.passwords, "ca.json": mine.authority, "certificates.json": mine.certificates}[name]
    with pytest.raises(StoreError, match=f"{name}: expected mode 0600, got 0640; chmod 600 it"):
        read()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("passwords.json", "{", "passwords.json: expected JSON, got something else"),
        ("passwords.json", {"lab": 5}, "passwords.json: expected a password for lab, got something else"),
        ("passwords.json", {"lab": ""}, "passwords.json: expected a password for lab, got something else"),
        ("ca.json", [], "ca.json: expected a JSON object, got list"),
        ("ca.json", {"key": "x"}, "ca.json: expected a key and a certificate, got something else"),
        ("ca.json", {"key": "x", "certificate": "y"}, "ca.json: expected a certificate in PEM, got something else"),
        ("certificates.json", {"server db": "x"}, "certificates.json: server db: expected a key and a certificate, got something else"),
    ],
)
def test_what_is_something_else_is_refused_in_one_line(tmp_path: Path, name: str, content: object, expected: str) -> None:
    keep(tmp_path, name, content)
    mine = store(tmp_path)
    read = {"passwords.json": mine.passwords, "ca.json": mine.authority, "certificates.json": mine.certificates}[name]
    with pytest.raises(StoreError) as caught:
        read()
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dry", [False, True])
def test_what_is_in_a_vault_is_read_and_not_changed(tmp_path: Path, dry: bool) -> None:
    """A change would take it out of the vault."""
    authority = new_authority("lab", NOW)
    secret = {"passwords.json": {"lab": "kept"}, "ca.json": asdict(authority), "certificates.json": {"server db": asdict(authority)}}
    for name in secret:
        keep(tmp_path, name, VAULT)
    mine = SecretStore(tmp_path, lambda path: json.dumps(secret[Path(path).name]))
    assert mine.create_passwords(["lab"], {}, dry) == {"lab": "kept"}
    assert mine.create_authority("lab", NOW, dry) == authority
    changes: dict[str, Callable[[], object]] = {
        "passwords.json": lambda: mine.create_passwords(["lab", "ann"], {}, dry),
        "ca.json": lambda: mine.keep_authority(authority, dry),
        "certificates.json": lambda: mine.keep_certificate("server b", authority, dry),
    }
    for name, change in changes.items():
        path = tmp_path / name
        with pytest.raises(StoreError) as caught:
            change()
        assert str(caught.value) == (
            f"{path}: expected a file that can be changed, got one in a vault;"
            f" ansible-vault decrypt {path}, run again, and ansible-vault encrypt it again"
        )
        assert path.read_text() == VAULT


def test_removal(tmp_path: Path) -> None:
    folder = tmp_path / ".ipyfleet" / "lab"
    store(folder).create_secrets()
    store(folder).create_passwords(["lab"], {})
    store(folder).keep_certificate("server db", store(folder).create_authority("lab", NOW))
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
