"""What a rehearsal of a PostgreSQL configuration showed, from what servers said; and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_pg_scratch as scratch
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_lint import Findings, Server
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_rehearsal import Message, judge, messages, refused
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_trial import Candidate, kinds_of, overrides

DROP_IN = "conf.d/50-ipyfleet.conf"
CONFIG = "/etc/postgresql/15/main"
FOLDER = "/tmp/rehearsal"
HBA = "local all postgres peer\nhost all postgres all reject\nhostssl lab lab 10.0.0.0/24 scram-sha-256\n"
SERVER = Server(15, "postgres", frozenset({"lab"}), frozenset({"lab", "postgres"}), frozenset({"postgres"}))
RULE = {"line_number": 1, "error": None}


def candidate(**changes: Any) -> Candidate:
    usual = Candidate("/usr/lib/postgresql/15/bin", 15, CONFIG, "/var/lib/postgresql/15/main", DROP_IN, "", HBA)
    return usual._replace(**changes)


def seen(settings: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What a rehearsal shows of a server that starts with these settings in the drop-in."""
    lines = [(DROP_IN, number, name, str(value)) for number, (name, value) in enumerate((settings or {}).items(), 1)]
    usual = {"folder": FOLDER, "drop_in": "", "whole": "", "log": "", "lines": lines, "named": {}, "huge_pages": 0}
    return {**usual, "files": [], "rules": [RULE], "values": {"ssl": "on"}, **changes}


def stopped(settings: dict[str, Any], log: str = "", **changes: Any) -> dict[str, Any]:
    """What it shows of one that does not start."""
    found = seen(settings, log=log, **changes)
    return {name: value for name, value in found.items() if name not in ("files", "rules", "values")}


def problems(shown: dict[str, Any], settings: dict[str, Any], **changes: Any) -> list[str]:
    """Problems but for those of rules, for which TLS has to be known to be on."""
    if "values" not in shown:
        shown["lines"].append((DROP_IN, 99, "ssl", "on"))
    return judge(candidate(**changes), settings, shown, SERVER, lambda _: []).problems


def row(name: str, setting: str, path: str = DROP_IN, line: int = 1, error: str | None = None) -> dict[str, Any]:
    return {"name": name, "setting": setting, "sourcefile": f"{FOLDER}/config/{path}", "sourceline": line, "error": error}


def test_a_candidate_that_is_fine() -> None:
    assert judge(candidate(), {}, seen(), SERVER, lambda _: []) == Findings([], [])


# -- before a start


@pytest.mark.parametrize(
    ("settings", "said", "expected"),
    [
        (
            {"work_memm": "4MB"},
            f'LOG:  unrecognized configuration parameter "work_memm" in file "{FOLDER}/config/{DROP_IN}" line 1',
            "postgresql_settings.work_memm: expected a setting of PostgreSQL 15, got an unknown one; did you mean work_mem?",
        ),
        (
            {"max_connections": "many"},
            'LOG:  invalid value for parameter "max_connections": "many"',
            "postgresql_settings.max_connections: expected a number from 1 to 262143, got many",
        ),
        (
            {"Work_Mem": "4XB"},
            'LOG:  invalid value for parameter "work_mem": "4XB"\nHINT:  Valid units for this parameter are "B" and "kB".',
            "postgresql_settings.Work_Mem: expected a value that PostgreSQL takes, got 4XB"
            ' (Valid units for this parameter are "B" and "kB")',
        ),
        (
            {"wal_level": "never"},
            '2026-01-01 UTC [7] LOG:  invalid value for parameter "wal_level": "never"\nHINT:  Available values: minimal, logical.',
            "postgresql_settings.wal_level: expected one of minimal, logical, got never",
        ),
        (
            {"work_mem": "1kB"},
            'LOG:  1 kB is outside the valid range for parameter "work_mem" (64 kB .. 2147483647 kB)',
            "postgresql_settings.work_mem: expected 64 kB to 2147483647 kB, got 1kB",
        ),
        (
            {"autovacuum": "maybe"},
            'LOG:  parameter "autovacuum" requires a Boolean value',
            "postgresql_settings.autovacuum: expected on or off, got maybe",
        ),
        (
            {"timezone": "Mars"},
            'LOG:  invalid value for parameter "TimeZone": "Mars"',
            "postgresql_settings.timezone: expected a value that PostgreSQL takes, got Mars",
        ),
        (
            {"primary_conninfo": "password=secret"},
            'LOG:  invalid value for parameter "primary_conninfo": "password=secret"',
            "postgresql_settings.primary_conninfo: expected a value that PostgreSQL takes, got another one",
        ),
    ],
)
def test_a_setting_that_cannot_be_read(settings: dict[str, Any], said: str, expected: str) -> None:
    text = f'{said}\nFATAL:  configuration file "{FOLDER}/config/{DROP_IN}" contains errors\n'
    kinds = {"max_connections": "a number from 1 to 262143", "work_mem": "", "autovacuum": "on or off", "TimeZone": ""}
    lower = {name.lower(): value for name, value in settings.items()}
    # the whole configuration has it, too
    assert problems(stopped(lower, drop_in=text, whole=text, kinds=kinds), settings) == [expected]


def test_a_syntax_error_is_shown_by_file_and_line() -> None:
    text = f'LOG:  syntax error in file "{FOLDER}/config/conf.d/90-x.conf" line 3, near token "MB"\nFATAL:  contains errors\n'
    assert problems(stopped({}, whole=text), {}) == [
        "conf.d/90-x.conf line 3: expected NAME = 'VALUE', got a syntax error near token \"MB\""
    ]


def test_a_setting_of_another_file_is_shown_by_file_and_line() -> None:
    shown = stopped({}, whole='LOG:  invalid value for parameter "work_mem": "x"\n')
    shown["lines"] = [("conf.d/90-x.conf", 3, "work_mem", "x")]
    assert problems(shown, {}) == ["conf.d/90-x.conf line 3 (work_mem): expected a value that PostgreSQL takes, got x"]


def test_a_setting_that_comes_from_a_variable_is_shown_by_that() -> None:
    shown = stopped({"max_connections": "0"}, drop_in='LOG:  0 is outside the valid range for parameter "max_connections" (1 .. 262143)\n')
    assert problems(shown, {}) == ["postgresql_max_connections: expected 1 to 262143, got 0"]


# -- at the start


@pytest.mark.parametrize(
    ("settings", "log", "expected"),
    [
        (
            {"shared_preload_libraries": "pg_stat_statements, nope"},
            'FATAL:  could not access file "nope": No such file or directory',
            "postgresql_settings.shared_preload_libraries: expected a value that the server starts with, got pg_stat_statements, nope:"
            ' could not access file "nope": No such file or directory',
        ),
        (
            {"shared_buffers": "1TB"},
            "FATAL:  could not map anonymous shared memory: Cannot allocate memory\nHINT:  This error usually means a lot.\nLOG:  down",
            "postgresql_settings.shared_buffers: expected a value that the server starts with, got 1TB:"
            " could not map anonymous shared memory: Cannot allocate memory",
        ),
        (
            {"superuser_reserved_connections": 10},
            "postgres: superuser_reserved_connections (10) must be less than max_connections (10)",
            "postgresql_settings.superuser_reserved_connections: expected a value that the server starts with, got 10:"
            " superuser_reserved_connections (10) must be less than max_connections (10)",
        ),
        (
            {"wal_level": "minimal"},
            'FATAL:  WAL streaming (max_wal_senders > 0) requires wal_level "replica" or "logical"',
            "postgresql_settings.wal_level: expected a value that the server starts with, got minimal:"
            ' WAL streaming (max_wal_senders > 0) requires wal_level "replica" or "logical"',
        ),
        (
            {"work_mem": "4MB"},
            f'FATAL:  could not load private key file "{FOLDER}/server.pem": key values mismatch',
            "the server's certificate: expected one that the server starts with, got: could not load private key file"
            ' "the new certificate": key values mismatch',
        ),
        ({"work_mem": "4MB"}, "FATAL:  out of luck", "PostgreSQL: expected a configuration that the server starts with, got: out of luck"),
    ],
)
def test_a_server_that_does_not_start(settings: dict[str, Any], log: str, expected: str) -> None:
    assert problems(stopped(settings, log), settings) == [expected]


def test_a_key_that_is_in_the_certificates_file_is_told_from_it() -> None:
    shown = stopped({"ssl_cert_file": "/x.pem", "ssl_key_file": "/x.pem"}, 'FATAL:  private key file "/x.pem" has group or world access')
    (problem,) = problems(shown, {})
    assert problem.startswith(f"{DROP_IN} line 2 (ssl_key_file): expected a value that the server starts with, got /x.pem: private key")


def test_a_server_that_lets_nobody_in() -> None:
    said = (
        f'psql: error: connection to server on socket "{FOLDER}/.s.PGSQL.5432" failed: FATAL:  could not access file "nope": No such file'
    )
    settings = {"session_preload_libraries": "nope"}
    assert problems(stopped(settings, closed=said), settings) == [
        "postgresql_settings.session_preload_libraries: expected a value that the server starts with, got nope:"
        ' could not access file "nope": No such file'
    ]


def test_a_way_in_that_is_closed_for_reasons_that_rules_do_not_show() -> None:
    text = "psql: error: FATAL:  Peer authentication failed"
    assert problems(seen(refused=text), {}) == [f"pg_hba.conf: expected a way in for postgres by the socket, got: {text}"]


# -- what the server makes of its files


def test_a_setting_of_an_extension_is_found_by_the_warning() -> None:
    name = "pg_stat_statements.max"
    log = f'WARNING:  invalid value for parameter "{name}": "abc"\nWARNING:  invalid configuration parameter name "{name}x", removing it\n'
    shown = seen({name: "abc"}, log=log, files=[row(name, "abc", error="setting could not be applied")], values={"ssl": "on", name: "5000"})
    assert problems(shown, {name: "abc", name + "x": 1}) == [
        f"postgresql_settings.{name}: expected a value that PostgreSQL takes, got abc",
        f"postgresql_settings.{name}x: expected a setting of PostgreSQL 15, got an unknown one; did you mean {name}?",
    ]


def test_settings_of_the_rehearsal_itself_are_no_problem() -> None:
    rows = [row(name, "x", "postgresql.conf", error="setting could not be applied") for name in ("listen_addresses", "ident_file")]
    assert problems(seen(files=rows), {}) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("conf.d/90-x.conf", "got 1MB from conf.d/90-x.conf line 7, which is read later; take it away there"),
        ("../data/postgresql.auto.conf", "got 1MB from postgresql.auto.conf line 7, which is read later; run ALTER SYSTEM RESET work_mem"),
    ],
)
def test_a_file_that_beats_the_drop_in(path: str, expected: str) -> None:
    rows = [row("work_mem", "4MB", "conf.d/10-x.conf"), row("work_mem", "8MB"), row("work_mem", "1MB", path, 7)]
    assert problems(seen(files=rows), {"work_mem": "8MB"}) == [f"postgresql_settings.work_mem: expected 8MB, {expected}"]
    assert problems(seen(files=rows[:2]), {"work_mem": "8MB"}) == []


def test_a_file_that_leads_the_server_away_from_its_rules() -> None:
    usual = row("hba_file", f"{CONFIG}/pg_hba.conf", "postgresql.conf")
    assert problems(seen(files=[usual]), {}) == []
    assert problems(seen(files=[usual, row("hba_file", "/nope", "conf.d/90-x.conf", 2)]), {}) == [
        f"conf.d/90-x.conf line 2 (hba_file): expected {CONFIG}/pg_hba.conf, got /nope"
    ]


def test_huge_pages_that_this_host_has_not() -> None:
    values = {"ssl": "on", "shared_memory_size_in_huge_pages": "72"}
    shown = seen(files=[row("huge_pages", "on")], values=values, huge_pages=10)
    assert problems(shown, {"huge_pages": "on"}) == ["postgresql_settings.huge_pages: expected 72 huge pages (vm.nr_hugepages), got 10"]
    assert problems({**shown, "huge_pages": 72}, {"huge_pages": "on"}) == []


def test_rules_that_postgresql_refuses_are_told_in_its_words() -> None:
    rules = [RULE, {"line_number": 4, "error": 'invalid authentication method "scram"', "file_name": f"{FOLDER}/config/pg_hba.conf"}]
    elsewhere = {"line_number": 1, "error": "bad", "file_name": f"{FOLDER}/config/hba.d/a.conf"}
    hba = HBA + "host all all 0.0.0.0/0 scram\n"
    assert problems(seen(rules=[*rules, elsewhere]), {}, hba=hba, version=17) == [
        "pg_hba.conf line 4 (host all all 0.0.0.0/0 scram): expected a rule that PostgreSQL 17 takes,"
        ' got: invalid authentication method "scram"',
        "hba.d/a.conf line 1: expected a rule that PostgreSQL 17 takes, got: bad",
    ]


def test_an_include_that_postgresql_takes_for_a_rule_is_told_in_ours() -> None:
    rules = [RULE, {"line_number": 4, "error": 'invalid connection type "include_dir"'}]
    assert problems(seen(rules=rules), {}, hba=HBA + "include_dir hba.d\n") == [
        "pg_hba.conf line 4 (include_dir hba.d): expected PostgreSQL 16 or newer for include_dir, got 15"
    ]


def test_no_rules_at_all() -> None:
    assert problems(seen(rules=[]), {}, hba="\n")[0] == "pg_hba.conf: expected rules, got none, with which the server does not start"


# -- without a server


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("hba_file", "/x", "expected no such setting, because the distribution says where files are, got /x"),
        ("Include_Dir", "/x", "expected no such setting, because the distribution says where files are, got /x"),
        ("unix_socket_directories", "/x", "expected no such setting, because the distribution says where files are, got /x"),
        ("listen_addresses", "*", "expected it in postgresql_listen_addresses, got *"),
        ("port", 5433, "expected it in postgresql_port, got 5433"),
        ("ssl_key_file", "/x", "expected no such setting, because the certificate is the fleet's, got /x"),
        ("password_encryption", "md5", "expected scram-sha-256, got md5"),
        ("work mem", 1, "expected names of settings, got work mem"),
        ("work_mem", "1MB\nfsync = off", "expected a value of one line, got '1MB\\nfsync = off'"),
        ("work_mem", {"a": 1}, "expected a value of one line, got a mapping"),
    ],
)
def test_settings_that_are_not_the_operators(name: str, value: Any, problem: str) -> None:
    assert refused({name: value, "ssl_min_protocol_version": "TLSv1.3", "pg_stat_statements.max": 1000}, frozenset()) == [
        f"postgresql_settings.{name}: {problem}"
    ]


def test_md5_can_be_allowed() -> None:
    assert refused({"password_encryption": "md5"}, frozenset({"md5"})) == []


def test_messages_keep_what_was_added_to_them() -> None:
    text = "LOG:  a\nDETAIL:  b.\nHINT:  c\nCONTEXT:  d\nnoise\n2026-01-01 UTC [3] WARNING:  e\npostgres: f\n"
    assert messages(text) == [Message("LOG", "a", "b. c"), Message("WARNING", "e"), Message("FATAL", "f")]


def test_what_settings_want_to_be() -> None:
    text = (
        "autovacuum\tsighup\tA\tBOOLEAN\tTRUE\t\t\t\t\nport\tx\tB\tINTEGER\t5432\t1\t65535\t\t\nwal_level\tx\tC\tENUM\ty\t\t\t\t\nnoise\n"
    )
    assert kinds_of(text) == {"autovacuum": "on or off", "port": "a number from 1 to 65535", "wal_level": ""}


def test_a_rehearsal_keeps_out_of_the_servers_way() -> None:
    conf = "ssl_cert_file = '/etc/new.pem'\nssl_key_file = '/etc/new.pem'\n"
    found = overrides(candidate(version=14, conf=conf, pem="x", pem_path="/etc/new.pem"), FOLDER)
    assert found["listen_addresses"] == ""
    assert found["unix_socket_directories"] == FOLDER
    assert found["archive_command"] == ""
    assert found["ssl_cert_file"] == found["ssl_key_file"] == f"{FOLDER}/server.pem"
    assert "archive_library" not in found
    assert found["stats_temp_directory"] == "pg_stat_tmp"
    assert overrides(candidate(), FOLDER)["archive_library"] == ""


# -- what is left


def test_a_configuration_is_copied_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "conf.d").mkdir(parents=True)
    (source / "base").mkdir()
    (source / "conf.d" / "a.conf").write_text("a = 1\n")
    (source / "base" / "1").write_text("data")
    os.mkfifo(source / "pipe")
    scratch.copy_configuration(str(source), str(tmp_path / "all"), "")
    scratch.copy_configuration(str(source), str(tmp_path / "some"), "conf.d")
    names = {each: sorted(path.name for path in (tmp_path / each).rglob("*") if path.is_file()) for each in ("all", "some")}
    assert names == {"all": ["1", "a.conf"], "some": ["a.conf"]}
    assert (tmp_path / "all" / "conf.d" / "a.conf").stat().st_mode & 0o777 == 0o600


WORKER = """
import os, subprocess, sys
sys.path.insert(0, {tests!r})
import conftest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_pg_scratch as scratch
scratch.FOLDERS = ({base!r},)
with scratch.private_folder() as (folder, group):
    stubborn = "import signal, time; signal.signal(signal.SIGQUIT, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, preexec_fn=lambda: os.setpgid(0, group))
    child.stdout.readline()
    print(folder, child.pid, flush=True)
    if sys.argv[1] == "wait":
        child.wait()
"""


@pytest.mark.parametrize("end", ["usual", "killed"])
def test_nothing_outlives_a_rehearsal(tmp_path: Path, end: str) -> None:
    code = WORKER.format(tests=str(Path(__file__).parent), base=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code, "wait" if end == "killed" else ""], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    folder, pid = process.stdout.readline().split()
    if end == "killed":
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        process.send_signal(signal.SIGKILL)
    process.wait(20)
    process.stdout.close()
    deadline = time.monotonic() + 20
    while (Path(folder).exists() or is_running(int(pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert not is_running(int(pid))


def is_running(pid: int) -> bool:
    """Whether there is a process that is more than a leftover entry."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
