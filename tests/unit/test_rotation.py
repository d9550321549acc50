"""New keys instead of old ones: all or what was asked for, and cut short anywhere, gone on with."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import new_authority
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.rotation import KINDS, PENDING, Rotation, kinds_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore, StoreError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    """All that a fleet can have."""
    found = SecretStore(tmp_path / "keys", lambda path: Path(path).read_text())
    found.create_secrets()
    found.create_passwords(["lab", "ada"], {})
    found.create_token()
    found.create_login_key()
    found.create_authority("lab", NOW)
    found.keep_certificate("db", new_authority("db", NOW))
    return found


def contents(store: SecretStore) -> dict[str, str]:
    return {path.name: path.read_text() for path in store.folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_asked_for_is_new_and_nothing_else(store: SecretStore, kind: str) -> None:
    before = contents(store)
    files, again = Rotation(store, "lab").carry_out([kind], settled=True, now=NOW)
    after = contents(store)
    assert (files, again) == (sorted(KINDS[kind]), False)
    assert {name for name in before if after[name] != before[name]} == set(KINDS[kind])
    # the old are beside the new until all hosts have these
    assert json.loads(after[PENDING]) == {name: json.loads(before[name]) for name in KINDS[kind]}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in store.folder.iterdir())
    Rotation(store, "lab").finish()
    assert not (store.folder / PENDING).exists()


def test_new_ones_are_whole(store: SecretStore) -> None:
    Rotation(store, "lab").carry_out(kinds_of("all"), settled=True, now=NOW)
    assert store.secrets()
    assert set(store.passwords()) == {"lab", "ada"}
    assert store.token()
    assert store.login_key()
    assert store.authority()
    assert store.certificates() == {}


def test_one_that_was_cut_short_is_gone_on_with(store: SecretStore) -> None:
    old = contents(store)
    Rotation(store, "lab").carry_out(["hub-key"], settled=True, now=NOW)
    first = contents(store)
    # some host still has the old ones: no third ones
    files, again = Rotation(store, "lab").carry_out(["hub-key", "passwords"], settled=False, now=NOW)
    second = contents(store)
    assert again
    assert second["secrets.json"] == first["secrets.json"]
    assert second["passwords.json"] != first["passwords.json"]
    assert files == sorted([*KINDS["hub-key"], *KINDS["passwords"]])
    assert json.loads(second[PENDING])["secrets.json"] == json.loads(old["secrets.json"])
    # every host has what there is now: these are new ones again
    _, again = Rotation(store, "lab").carry_out(["hub-key"], settled=True, now=NOW)
    assert not again
    assert contents(store)["secrets.json"] != second["secrets.json"]


def test_cut_short_before_anything_was_made_it_makes_it(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    old = contents(store)
    rotation = Rotation(store, "lab")
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rotation.carry_out(["hub-key"], settled=True, now=NOW)
    assert contents(store)["secrets.json"] == old["secrets.json"]
    rotation.carry_out(["hub-key"], settled=False, now=NOW)
    assert contents(store)["secrets.json"] != old["secrets.json"]


def test_an_authority_of_another_making_stays(store: SecretStore) -> None:
    store.keep_authority(new_authority("others", NOW))
    before = contents(store)
    files, _ = Rotation(store, "lab").carry_out(["certificates"], settled=True, now=NOW)
    assert files == ["certificates.json"]
    assert contents(store)["ca.json"] == before["ca.json"]


def test_a_dry_run_replaces_nothing(store: SecretStore) -> None:
    before = contents(store)
    assert Rotation(store, "lab").carry_out(["hub-key"], settled=True, now=NOW, dry=True) == (["secrets.json", "ssh.json"], False)
    assert contents(store) == before


def test_what_a_fleet_has_not_cannot_be_replaced(tmp_path: Path) -> None:
    store = SecretStore(tmp_path, lambda path: Path(path).read_text())
    store.create_secrets()
    with pytest.raises(StoreError, match="expected something that fleet lab has, got certificates"):
        Rotation(store, "lab").carry_out(["certificates"], settled=True, now=NOW)


def test_keys_in_a_vault_are_not_lost(store: SecretStore) -> None:
    (store.folder / "secrets.json").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    encrypted = SecretStore(store.folder, lambda path: "{}" if path.endswith("secrets.json") else Path(path).read_text())
    with pytest.raises(StoreError, match="got one in a vault"):
        Rotation(encrypted, "lab").carry_out(["hub-key"], settled=True, now=NOW)
    assert (store.folder / "secrets.json").read_text().startswith("$ANSIBLE_VAULT")


def test_words_are_checked() -> None:
    assert kinds_of("all") == list(KINDS)
    assert kinds_of("hub-key, passwords") == ["hub-key", "passwords"]
    with pytest.raises(ValueError, match="rotate_what: expected hub-key, certificates, passwords or all, got hub"):
        kinds_of(["hub"])
