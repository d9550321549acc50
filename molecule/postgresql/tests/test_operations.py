"""What changes on a server in use: settings, certificates, passwords; and what happens when a restart fails."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from database import connect, deploy, flat, passwords, served_serial, sql
from fleet import INVENTORY, container, engine_run, main_pids, python, shell

CONF = "/etc/postgresql/15/main/conf.d/50-ipyfleet.conf"
STARTED = "select pg_postmaster_start_time()"


@pytest.fixture
def put_back() -> Iterator[None]:
    """The fleet as it was."""
    yield
    said = deploy("lab", "-e", "postgresql_allow_restart=true")
    assert said.returncode == 0, said.stdout[-3000:]


def settings(**values: object) -> str:
    """Variables of a run with more settings than those of the fleet file."""
    return json.dumps({"postgresql_settings": {"log_connections": True, **values}})


def test_a_second_run_changes_nothing_and_disturbs_nobody() -> None:
    before = sql("db", STARTED), main_pids()
    said = deploy("lab")
    assert said.returncode == 0, said.stdout[-3000:]
    assert said.stdout.count("changed=0") == said.stdout.count("changed=")
    assert (sql("db", STARTED), main_pids()) == before


@pytest.mark.usefixtures("put_back")
def test_what_a_reload_can_do_needs_no_restart() -> None:
    started = sql("db", STARTED)
    said = deploy("lab", "--diff", "-e", settings(work_mem="6MB"))
    assert said.returncode == 0, said.stdout[-3000:]
    assert "+work_mem = '6MB'" in said.stdout
    assert sql("db", "show work_mem") == "6MB"
    assert sql("db", STARTED) == started


@pytest.mark.usefixtures("put_back")
def test_a_restart_that_is_not_allowed_is_told_and_all_else_is_done() -> None:
    started = sql("db", STARTED)
    said = deploy("lab", "-e", settings(work_mem="5MB", max_connections=55))
    assert said.returncode == 2
    assert "max_connections" in flat(said.stdout)
    assert "-e postgresql_allow_restart=true" in flat(said.stdout)
    assert sql("db", "show work_mem") == "5MB"
    assert sql("db", STARTED) == started
    # the same again: what waits is asked of the server, not known from having changed a file
    assert deploy("lab", "-e", settings(work_mem="5MB", max_connections=55)).returncode == 2
    said = deploy("lab", "-e", settings(work_mem="5MB", max_connections=55), "-e", "postgresql_allow_restart=true")
    assert said.returncode == 0, said.stdout[-3000:]
    assert sql("db", "show max_connections") == "55"


@pytest.mark.usefixtures("put_back")
def test_after_a_restart_that_fails_the_server_is_up_with_what_it_had() -> None:
    """The reason is one that no rehearsal can see."""
    unit = "/run/systemd/system/postgresql@15-main.service.d"
    refuse = f'ExecStartPre=/bin/sh -c "! grep -q 77 {CONF}"'
    shell("db", f"mkdir -p {unit}; printf '[Service]\\n%s\\n' '{refuse}' >{unit}/refuse.conf; systemctl daemon-reload")
    try:
        before = shell("db", f"cat {CONF}")
        said = deploy("lab", "-e", settings(max_connections=77), "-e", "postgresql_allow_restart=true")
        assert said.returncode == 2
        assert "the files that last worked are back, and the server serves" in flat(said.stdout)
        assert shell("db", f"cat {CONF}") == before
        assert sql("db", "show max_connections") != "77"
        assert "TLSv1.3" in connect("node1")
    finally:
        shell("db", f"rm -r {unit}; systemctl daemon-reload")


@pytest.mark.usefixtures("put_back")
def test_a_certificate_is_renewed_before_it_ends_and_no_connection_is_lost() -> None:
    hold = """
def hold():
    import builtins, psycopg2
    builtins.held = psycopg2.connect("")
def ask():
    import builtins
    with builtins.held.cursor() as cursor:
        cursor.execute("select 42")
        return cursor.fetchall()[0][0]
"""
    python("desk", hold + "rc[0].apply_sync(hold)\nprint(json.dumps(rc[0].apply_sync(ask)))")
    serial, started = served_serial(), sql("db", STARTED)
    said = deploy("lab", "-e", "fleet_ca_days=400", "-e", "fleet_ca_renew_before_days=399")
    assert said.returncode == 0, said.stdout[-3000:]
    assert served_serial() != serial
    assert sql("db", STARTED) == started
    assert python("desk", hold + "print(json.dumps(rc[0].apply_sync(ask)))") == 42
    assert "TLSv1.3" in connect("node1")


def test_a_password_that_is_changed_reaches_server_and_clients() -> None:
    path, started, pids = INVENTORY / ".ipyfleet" / "lab" / "passwords.json", sql("db", STARTED), main_pids()
    old = passwords()["lab"]
    path.write_text(json.dumps({"lab": "another one: with a colon and \\ a backslash"}))
    said = deploy("lab")
    assert said.returncode == 0, said.stdout[-3000:]
    assert "reached by 2 of 2 engines" in flat(said.stdout)
    assert "password authentication failed" in connect("node1", password=old)
    # nothing had to be started anew for it
    assert (sql("db", STARTED), main_pids()) == (started, pids)


def test_check_mode_says_what_would_change_and_changes_nothing() -> None:
    before = shell("db", f"cat {CONF}")
    said = deploy("lab", "--check", "--diff", "-e", settings(work_mem="9MB"))
    assert said.returncode == 0, said.stdout[-3000:]
    assert "+work_mem = '9MB'" in said.stdout
    assert shell("db", f"cat {CONF}") == before
    assert sql("db", "show work_mem") != "9MB"


def test_check_mode_foresees_what_is_in_a_database_that_is_new() -> None:
    more = {
        "postgresql_databases": ["lab", "results", {"name": "fresh", "extensions": ["pg_trgm"], "schemas": ["raw"], "owner": "writer"}],
        "postgresql_privileges": [{"database": "fresh", "roles": "writer", "type": "schema", "objs": "raw", "privs": "USAGE"}],
    }
    said = deploy("lab", "--check", "-e", json.dumps(more))
    assert said.returncode == 0, said.stdout[-3000:]
    assert "(item=fresh)" in said.stdout
    assert sql("db", "select count(*) from pg_database where datname = 'fresh'") == "0"


def test_a_database_whose_host_is_away_is_named_and_the_engines_go_on() -> None:
    engine_run("pause", container("db"))
    try:
        status, deployment = deploy("lab", playbook="playbooks/status.yml"), deploy("lab")
    finally:
        engine_run("unpause", container("db"))
    for said, words in ((status, "2 of 2 engine slots registered"), (deployment, "2 of 2 engine slots answered")):
        assert said.returncode == 2, said.stdout
        assert words in flat(said.stdout)
        assert "database: its host is unreachable: " in flat(said.stdout)
