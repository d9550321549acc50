"""What people pass on for a bug report: all that helps, and nothing that is secret, in whatever form."""

from __future__ import annotations

import base64
import json
import stat
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_collect
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import bundle
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.redaction import (
    REMOVED,
    Redactor,
    is_secret_name,
    named_values,
    secret_values,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore, new_secrets, z85

KEYS = new_secrets()
PASSWORD = "s3cr/t+w'rd \"&%"
KNOWN = [KEYS.key, KEYS.curve_public, KEYS.curve_secret, PASSWORD, "hunter2"]


def planted(secret: str) -> list[str]:
    """A secret as it may turn up in a log or a file."""
    data = secret.encode()
    found = [
        secret,
        f"x{secret}y",
        json.dumps({"a": secret}),
        quote(secret, safe=""),
        quote(secret),
        "a: '" + secret.replace("'", "''") + "'",
    ]
    for before in (b"", b"u", b"us", b"user:"):
        found += [base64.b64encode(before + data + b":x").decode(), base64.urlsafe_b64encode(before + data).decode()]
    found += [data.hex(), repr(data)]
    if len(data) % 4 == 0:
        found.append(z85(data))
    if secret == KEYS.key:
        raw = bytes.fromhex(secret)
        found += [base64.b64encode(raw).decode(), z85(raw), secret.upper().lower()]
    return found


@pytest.mark.parametrize("secret", [KEYS.key, KEYS.curve_public, KEYS.curve_secret, PASSWORD], ids=["key", "public", "secret", "password"])
def test_a_known_secret_is_taken_out_in_every_form(secret: str) -> None:
    cleaner = Redactor(KNOWN)
    for text in planted(secret):
        told = cleaner.clean(f"before {text} behind")
        assert told.startswith("before ")
        assert told.endswith(" behind")
        assert REMOVED in told, text
        assert not cleaner.leaks(told)
        assert secret not in told


def test_a_short_password_goes_as_it_is() -> None:
    assert Redactor(["hunter2"]).clean("login with hunter2 failed") == f"login with {REMOVED} failed"


def test_keys_of_several_lines_go_with_each_of_their_lines(tmp_path: Path) -> None:
    store = SecretStore(tmp_path, lambda path: Path(path).read_text())
    key = store.create_login_key()
    cleaner = Redactor(secret_values(json.loads((tmp_path / "ssh.json").read_text())))
    assert cleaner.clean(f"a\n{key}b") == f"a\n{REMOVED}\nb"
    assert cleaner.clean(json.dumps({"k": key})) == json.dumps({"k": REMOVED + "\n"}) or REMOVED in cleaner.clean(json.dumps({"k": key}))
    line = key.splitlines()[2]
    assert line not in cleaner.clean(f"it said {line}")
    # one that nobody knows
    strange = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n"
    assert Redactor([]).clean(f"x {strange}y") == f"x {REMOVED}\ny"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ansible_password: one", f"ansible_password: {REMOVED}"),
        ("ansible_become_password=one two", f"ansible_become_password={REMOVED} two"),
        ("ansible_become_pass: 'one two'", f"ansible_become_pass: {REMOVED}"),
        ("{host: db, password: one, port: 5}", f"{{host: db, password: {REMOVED}, port: 5}}"),
        ('{"token": "a\\"b", "x": 1}', f'{{"token": {REMOVED}, "x": 1}}'),
        ("http://h:8888/lab?token=abc&x=1", f"http://h:8888/lab?token={REMOVED}"),
        ("postgresql://lab:one@db:5432/lab", f"postgresql://lab:{REMOVED}@db:5432/lab"),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: Bearer {REMOVED}"),
        ("postgresql_password: |\n  one\n  two\nnext: 1\n", f"postgresql_password: {REMOVED}\nnext: 1\n"),
        ("a_secret: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\nnext: 1\n", f"a_secret: {REMOVED}\nnext: 1\n"),
        ("verifier SCRAM-SHA-256$4096:abc$def:ghi", f"verifier {REMOVED}"),
        ("ansible_ssh_private_key_file: ~/.ssh/lab", "ansible_ssh_private_key_file: ~/.ssh/lab"),
        ("fleet_secrets_dir: keys", "fleet_secrets_dir: keys"),
        ("asttokens==3.0.1", "asttokens==3.0.1"),
        ('"other_secrets": []', '"other_secrets": []'),
        ("password authentication failed for user lab", "password authentication failed for user lab"),
    ],
)
def test_what_only_looks_secret_is_taken_out(text: str, expected: str) -> None:
    assert Redactor([]).clean(text) == expected


def test_secrets_of_operators_are_found_at_any_depth() -> None:
    users = [{"name": "ada", "password": "lovelace1"}, {"name": "bob"}]
    assert list(named_values(users, "postgresql_users")) == ["lovelace1"]
    assert list(named_values({"a": {"api_key": 12345}})) == ["12345"]
    assert is_secret_name("ansible_ssh_pass")
    assert not is_secret_name("ansible_ssh_private_key_file")


def test_a_bundle_in_which_one_would_be_left_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaner = Redactor(KNOWN)
    assert bundle.cleaned({f"logs/{KEYS.key}.log": f"x {KEYS.key}"}, cleaner) == {f"logs/{REMOVED}.log": f"x {REMOVED}"}
    monkeypatch.setattr(cleaner, "clean", lambda text: text)
    with pytest.raises(bundle.BundleLeakError, match=r"got one in b\.log; nothing was written"):
        bundle.cleaned({"a.log": "good", "b.log": f"bad {KEYS.key}"}, cleaner)


def test_an_archive_is_for_nobody_else(tmp_path: Path) -> None:
    dest = tmp_path / "b.tar.gz"
    bundle.write(dest, "top", {"a/b.txt": "text \N{SNOWMAN}"})
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600
    with tarfile.open(dest) as archive:
        member = archive.getmember("top/a/b.txt")
        file = archive.extractfile(member)
        assert file
        assert file.read().decode() == "text \N{SNOWMAN}"
        assert (member.mode, member.uid) == (0o600, 0)
    assert [each.name for each in tmp_path.iterdir()] == ["b.tar.gz"]


def test_hosts_of_which_nothing_is_known_are_named() -> None:
    hosts: dict[str, dict[str, Any]] = {
        "n1": {"look": {}, "collect": {"collected": {}, "logs": {"engine@0": ["one"]}}},
        "n2": {"look": {"unreachable": True, "msg": "no route\nat all"}, "collect": None},
        "n3": {"look": None, "collect": None},
    }
    assert bundle.reasons(hosts) == {"n2": "no route", "n3": "nothing was heard of it"}
    assert dict(bundle.of_host("n1", hosts["n1"])) == {"hosts/n1/logs/engine@0.log": "one\n"}


def test_inventories_are_there_as_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "lab.fleet.yml").write_text("plugin: fleet\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("a: 1\n")
    (tmp_path / ".ipyfleet").mkdir()
    (tmp_path / ".ipyfleet" / "secrets.json").write_text("{}")
    found = dict(bundle.sources([str(tmp_path / "lab.fleet.yml")]))
    assert found == {"inventory/0/lab.fleet.yml": "plugin: fleet\n", "inventory/0/group_vars/all.yml": "a: 1\n"}
    assert set(dict(bundle.sources([str(tmp_path)]))) == set(found)


def test_a_host_tells_of_itself_what_it_can(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name, text in (("plain.json", "{}"), ("secret.json", KEYS.key)):
        (tmp_path / "etc" / name).write_text(text)
    entries = [{"kind": "file", "path": str(tmp_path / "etc" / name)} for name in ("plain.json", "secret.json", "none.json")]
    paths = {key: str(tmp_path / key) for key in ("root", "etc", "state", "run")}
    secrets = {str(tmp_path / "etc" / "secret.json"): KEYS.key}
    found = fleet_collect.collect({"paths": paths, "entries": entries, "secrets": secrets, "scope": "user", "fleet": "lab"})
    assert found["files"] == {str(tmp_path / "etc" / "plain.json"): "{}"}
    assert KEYS.key not in json.dumps(found)
    assert "secret.json" in found["listing"]
    assert "seconds since 1970" in found["machine"]["clock"]
    assert fleet_collect.said(["no-such-program"]).startswith("$ no-such-program\n")
