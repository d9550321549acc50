"""Certificates and passwords as roles get them: made once, kept, renewed, and shown to nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.plugins.loader import action_loader
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import issuing, passwords
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import request
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.certificates import Pair, fits, read
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore, StoreError
from conftest import ROOT
from cryptography import x509
from test_authority import MIDDLE, MIDDLE_PEM, TOP_PEM, pem, verify

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
SERVER = request("server", "", ["db", "10.0.0.7"], 398, 60)
VAULT_SECRETS = [("default", VaultSecret(b"password"))]


def store(folder: Path) -> SecretStore:
    return SecretStore(folder, lambda path: Path(path).read_text())


def certificate(folder: Path, days: float, dry: bool = False) -> issuing.Issued:
    return issuing.certificate_for(store(folder), "lab", "server db", SERVER, NOW + timedelta(days=days), dry)


# -- what is kept


def test_a_certificate_is_issued_once(tmp_path: Path) -> None:
    first, second = certificate(tmp_path, 0), certificate(tmp_path, 300)
    assert (first.reason, first.before) == ("there was none", None)
    assert (second.reason, second.pair, second.ca) == ("", first.pair, first.ca)
    verify(second.pair, second.ca, "db", NOW)


def test_a_certificate_is_renewed_before_its_end(tmp_path: Path) -> None:
    first = certificate(tmp_path, 0)
    second = certificate(tmp_path, 340)
    assert second.reason == "it ends on 2027-11-03"
    assert second.before == read(first.pair.certificate)
    assert second.pair.key != first.pair.key
    assert second.ca == first.ca
    assert certificate(tmp_path, 341).pair == second.pair


def test_an_authority_is_renewed_and_what_it_signed_is_kept(tmp_path: Path) -> None:
    store(tmp_path).create_authority("lab", NOW)
    first = certificate(tmp_path, 3200)
    second = certificate(tmp_path, 3300)
    assert (second.reason, second.renewed, second.pair) == ("", True, first.pair)
    assert second.ca != first.ca
    assert not certificate(tmp_path, 3301).renewed
    for ca in (first.ca, second.ca):
        verify(first.pair, ca, "db", NOW + timedelta(days=3301))


def test_a_look_keeps_nothing(tmp_path: Path) -> None:
    looked = certificate(tmp_path / "keys", 0, dry=True)
    assert looked.reason == "there was none"
    assert not (tmp_path / "keys").exists()
    kept = certificate(tmp_path, 0)
    assert certificate(tmp_path, 340, dry=True).reason
    assert certificate(tmp_path, 1).pair == kept.pair


def test_an_authority_of_another_making_is_asked_for_in_time(tmp_path: Path) -> None:
    store(tmp_path).keep_authority(Pair(pem(MIDDLE), MIDDLE_PEM + TOP_PEM))
    assert certificate(tmp_path, 0).warning == ""
    late = certificate(tmp_path, 50)
    assert late.warning == f"{tmp_path}/ca.json: the authority ends on 2027-01-09, and what it signs with it; put another one there"
    assert late.reason == ""
    with pytest.raises(StoreError) as caught:
        certificate(tmp_path, 101)
    assert str(caught.value) == f"{tmp_path}/ca.json: expected an authority that is good today, got one that ended on 2027-01-09"


def test_a_kept_certificate_that_is_none_is_named(tmp_path: Path) -> None:
    good = certificate(tmp_path, 0).pair
    store(tmp_path).keep_certificate("server db", Pair(good.key, "nothing"))
    with pytest.raises(StoreError) as caught:
        certificate(tmp_path, 0)
    assert str(caught.value) == f"{tmp_path}/certificates.json: server db: expected a certificate in PEM, got something else"


def test_settings_of_a_host() -> None:
    assert (
        list(issuing.settings_problems({"fleet_ca_days": 90, "fleet_ca_renew_before_days": 30, "fleet_ca_names": ["db.lab", "::1"]})) == []
    )
    assert list(issuing.settings_problems({"fleet_ca_days": 30, "fleet_ca_names": ["a b"]})) == [
        "fleet_ca_renew_before_days: expected 0 to 29, less than fleet_ca_days, got 60",
        "fleet_ca_names: expected a DNS name or an IP address, got 'a b'",
    ]


def test_defaults_are_those_of_the_role() -> None:
    defaults = yaml.safe_load((ROOT / "roles" / "fleet_ca" / "defaults" / "main.yml").read_text())
    assert issuing.validity({}) == issuing.validity(defaults)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"lab": "a good one: with spaces"}, []),
        ({"ann": "SCRAM-SHA-256$4096:c2FsdA==$a:b"}, []),
        ({"lab": "SCRAM-SHA-256$4096:c2FsdA==$a:b"}, ["lab: expected the password itself, because clients need it, got a verifier"]),
        ({"lab": "md5" + "0" * 32}, ["lab: expected the password itself, because clients need it, got a verifier"]),
        ({"lab": 12345}, ["lab: expected text, got int; put it in quotes"]),
        ({"lab": ""}, ["lab: expected text, got an empty one; leave it out, and one is made"]),
        (
            {"lab": "a\nb", "ann": None},
            ["lab: expected one line of text, got one with a control character", "ann: expected text, got NoneType; put it in quotes"],
        ),
    ],
)
def test_passwords_that_operators_set(given: dict[str, object], expected: list[str]) -> None:
    found = list(passwords.problems(given, "lab"))
    assert found == [f"postgresql_users: password of {text}" for text in expected]


# -- the actions


def fleet(folder: Path) -> dict[str, Any]:
    users = [{"name": "lab"}, {"name": "ann"}]
    return {"name": "lab", "secrets_dir": str(folder), "postgresql": {"host": "db", "user": "lab", "users": users}}


def act(module: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run an action as a task would, with the password of a vault."""
    loader = DataLoader()
    loader.set_vault_secrets(VAULT_SECRETS)
    task = SimpleNamespace(args=arguments, check_mode=check, async_val=0, action=module, delegate_to=None)
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=""))
    parts = dict.fromkeys(("play_context", "templar", "shared_loader_obj"))
    action = action_loader.get(f"ipyfleet.cluster.{module}", task=task, connection=connection, loader=loader, **parts)
    return dict(action.run(None, {}))


def test_a_certificate_as_a_role_gets_it(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    first = act("fleet_certificate", fleet=fleet(folder), name="server db", dns=["db", "10.0.0.7"])
    second = act("fleet_certificate", fleet=fleet(folder), name="server db", dns=["db"], ips=["10.0.0.7"])
    assert (first["changed"], first["reason"], first["not_after_before"]) == (True, "there was none", "")
    assert (second["changed"], second["reason"], second["not_after_before"]) == (False, "", first["not_after"])
    assert {key: first[key] for key in ("certificate", "key", "ca")} == {key: second[key] for key in ("certificate", "key", "ca")}
    assert fits(Pair(first["key"], first["certificate"]))
    served = x509.load_pem_x509_certificate(first["certificate"].encode())
    assert int(first["serial"], 16) == served.serial_number
    assert datetime.fromisoformat(first["not_after"]) == served.not_valid_after_utc
    assert timedelta(days=397) < served.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=398)


def test_a_client_certificate_as_a_role_gets_it(tmp_path: Path) -> None:
    made = act("fleet_certificate", fleet=fleet(tmp_path), name="client n1", kind="client", common_name="lab", days=30, renew_before_days=5)
    assert read(made["certificate"]).common_name == "lab"


def test_check_mode_shows_what_would_be_and_keeps_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    looked = act("fleet_certificate", check=True, fleet=fleet(folder), name="server db", dns=["db"])
    assert looked["changed"] is True
    verify(Pair(looked["key"], looked["certificate"]), looked["ca"], "db", datetime.now(UTC))
    said = act("fleet_passwords", check=True, fleet=fleet(folder))
    assert sorted(said["passwords"]) == ["ann", "lab"]
    assert said["changed"] is True
    assert not folder.exists()


def test_passwords_as_a_role_gets_them(tmp_path: Path) -> None:
    first = act("fleet_passwords", fleet=fleet(tmp_path), given={"ann": "given"})
    second = act("fleet_passwords", fleet=fleet(tmp_path), given={"ann": "given"})
    assert first["passwords"] == second["passwords"] == {"lab": first["passwords"]["lab"], "ann": "given"}
    assert (first["changed"], second["changed"]) == (True, False)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("fleet_certificate", {"name": "server db"}, "server db: dns: expected at least one name of the server, got none"),
        ("fleet_certificate", {"name": "x", "dns": ["a"], "days": 1}, "x: renew_before_days: expected 0 to 0, less than days, got 60"),
        ("fleet_passwords", {"given": {"ann": 5}}, "postgresql_users: password of ann: expected text, got int; put it in quotes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, name: str, arguments: dict[str, Any], expected: str) -> None:
    folder = tmp_path / "keys"
    said = act(name, fleet=fleet(folder), **arguments)
    assert (said["failed"], said["msg"]) == (True, expected)
    assert not folder.exists()


def encrypted(folder: Path) -> dict[str, str]:
    """Put what is kept in a vault; returns the files' contents."""
    for path in folder.glob("*.json"):
        path.write_bytes(VaultLib(VAULT_SECRETS).encrypt(path.read_text()))
    return {path.name: path.read_text() for path in folder.glob("*.json")}


def test_what_is_in_a_vault_is_used_and_left_alone(tmp_path: Path) -> None:
    first = act("fleet_certificate", fleet=fleet(tmp_path), name="server db", dns=["db"])
    known = act("fleet_passwords", fleet=fleet(tmp_path))
    before = encrypted(tmp_path)
    assert sorted(before) == ["ca.json", "certificates.json", "passwords.json"]
    assert act("fleet_certificate", fleet=fleet(tmp_path), name="server db", dns=["db"])["serial"] == first["serial"]
    assert act("fleet_passwords", fleet=fleet(tmp_path))["passwords"] == known["passwords"]
    for check in (True, False):
        said = act("fleet_certificate", check=check, fleet=fleet(tmp_path), name="server db", dns=["other"])
        assert said["failed"]
        assert said["msg"].startswith(
            f"{tmp_path}/certificates.json: expected a file that can be changed, got one in a vault; ansible-vault decrypt "
        )
    assert {path.name: path.read_text() for path in tmp_path.glob("*.json")} == before


def certificate_of_a_host(folder: Path, name: str) -> str:
    return str(act("fleet_certificate", fleet=fleet(folder), name=name, dns=["db"])["ca"])


def test_hosts_of_one_task_get_certificates_of_one_authority(tmp_path: Path) -> None:
    names = [f"server {number}" for number in range(4)]
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        authorities = set(pool.map(certificate_of_a_host, [tmp_path] * 4, names))
    assert len(authorities) == 1
    assert sorted(store(tmp_path).certificates()) == names


# -- the role

PLAY = """
- hosts: db
  connection: local
  gather_facts: false
  vars:
    fleet: {fleet}
    given: {{ann: given-by-hand}}
  tasks:
    - ansible.builtin.include_role: {{name: fleet_ca}}
      vars: {{__fleet_ca_fleet: "{{{{ fleet }}}}", __fleet_ca_names: [db, 10.0.0.7]}}
    - ansible.builtin.include_role: {{name: fleet_ca, tasks_from: client}}
      vars: {{__fleet_ca_fleet: "{{{{ fleet }}}}"}}
    - ipyfleet.cluster.fleet_passwords: {{fleet: "{{{{ fleet }}}}", given: "{{{{ given }}}}"}}
      no_log: true
      register: accounts
    - ansible.builtin.debug: {{msg: "ends {{{{ __fleet_ca_server.not_after }}}}, for {{{{ accounts.passwords | length }}}}"}}
"""


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Any]:
    """Runs the role's tasks, as talkative as can be; returns what is printed."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        book = tmp_path / "play.yml"
        book.write_text(PLAY.format(fleet=json.dumps(fleet(tmp_path / "keys"))))
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOME": str(tmp_path / "home"),
        }
        environ |= {"ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "1"}
        command = ["ansible-playbook", "-i", "db,", str(book), "-vvvv", "--diff", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environ})

    yield run


def test_the_role_shows_no_secret_to_the_most_curious(play: Any, tmp_path: Path) -> None:
    said = play()
    assert said.returncode == 0, said.stdout + said.stderr
    assert "changed=3" in said.stdout
    assert "for 2" in said.stdout
    mine = store(tmp_path / "keys")
    assert sorted(mine.certificates()) == ["client db", "server db"]
    assert read(mine.certificates()["server db"].certificate).ips == ("10.0.0.7",)
    assert read(mine.certificates()["client db"].certificate).common_name == "lab"
    shown = said.stdout + said.stderr
    secret = [mine.passwords()["lab"], "given-by-hand", "PRIVATE KEY"]
    secret += [line for pair in mine.certificates().values() for line in pair.key.splitlines()[1:-1]]
    assert not [line for line in shown.splitlines() for text in secret if text in line]
    again = play()
    assert "changed=0" in again.stdout


def test_the_role_says_what_is_wrong(play: Any, tmp_path: Path) -> None:
    said = play("-e", "fleet_ca_days=5000")
    assert said.returncode == 2
    assert "server db: days: expected 1 to 1825, got 5000" in said.stdout + said.stderr
    assert not (tmp_path / "keys").exists()
