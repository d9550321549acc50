"""Backups are made, proven, and bring back what was lost."""

from __future__ import annotations

import json

import pytest
from database import deploy, flat, sql
from fleet import python, shell

FOLDER = "/var/backups/ipyfleet/lab"
COUNT = "select count(*), sum(square) from measures"
ROWS = "10000|333383335000"


@pytest.fixture(scope="module", autouse=True)
def backup() -> None:
    """Rows that an engine wrote, and a backup that has been proven."""
    code = """
def fill():
    import psycopg2
    with psycopg2.connect("") as connection, connection.cursor() as cursor:
        cursor.execute("drop table if exists measures")
        cursor.execute("create table measures as select n, n::bigint * n as square from generate_series(1, 10000) n")
print(json.dumps(rc[0].apply_sync(fill)))
"""
    python("desk", code)
    assert sql("db", COUNT, "lab") == ROWS
    said = deploy("lab", playbook="playbooks/backup.yml")
    assert said.returncode == 0, said.stdout
    said = deploy("lab", playbook="playbooks/drill.yml")
    assert said.returncode == 0, said.stdout


def test_status_knows_how_old_the_newest_proven_backup_is() -> None:
    said = deploy("lab", playbook="playbooks/status.yml")
    assert said.returncode == 0, said.stdout
    assert "newest proven backup" in flat(said.stdout)
    assert "no proven backup" not in flat(said.stdout)


def test_a_database_is_not_replaced_without_its_name_being_said_again() -> None:
    said = deploy("lab", "-e", "restore_database=lab", playbook="playbooks/restore.yml")
    assert said.returncode == 2
    assert "restore_overwrite" in flat(said.stdout) or "--overwrite" in flat(said.stdout)
    assert sql("db", COUNT, "lab") == ROWS


def test_what_was_lost_comes_back_and_engines_go_on_with_it() -> None:
    sql("db", "delete from measures where n > 5", "lab")
    check = deploy("lab", "--check", "-e", "restore_database=lab restore_overwrite=lab", playbook="playbooks/restore.yml")
    assert check.returncode == 0, check.stdout
    assert sql("db", COUNT, "lab") == "5|55"
    said = deploy("lab", "-e", "restore_database=lab restore_overwrite=lab", playbook="playbooks/restore.yml")
    assert said.returncode == 0, said.stdout
    assert "database lab is back" in flat(said.stdout)
    code = f"""
def count():
    import psycopg2
    with psycopg2.connect("") as connection, connection.cursor() as cursor:
        cursor.execute({COUNT!r})
        return [int(each) for each in cursor.fetchall()[0]]
print(json.dumps(rc[1].apply_sync(count)))
"""
    assert "|".join(map(str, python("desk", code))) == ROWS
    assert json.dumps(sql("db", "select datname from pg_database where datname like 'lab_before_%'")) != '""'


def test_a_backup_that_rots_does_not_pass_for_a_proven_one() -> None:
    newest = shell("db", f"ls -d {FOLDER}/2* | sort | tail -1")
    dump = shell("db", f"find {newest} -size +1k -name '*lab*' | head -1")
    assert dump
    shell("db", f"printf x | dd of='{dump}' bs=1 seek=900 conv=notrunc 2>/dev/null")
    said = deploy("lab", playbook="playbooks/drill.yml")
    assert said.returncode == 2
    said = deploy("lab", playbook="playbooks/status.yml")
    assert said.returncode == 2
    assert "drill of backup" in flat(said.stdout) or "is damaged" in flat(said.stdout)
    shell("db", f"rm -r '{newest}'")


def test_nobody_but_the_server_and_the_drill_can_read_backups() -> None:
    assert shell("db", f"stat -c '%a %U' {FOLDER}") == "2750 postgres"
    assert shell("db", "su nobody -s /bin/sh -c 'ls /var/backups/ipyfleet/lab' 2>&1 || true").endswith("Permission denied")
