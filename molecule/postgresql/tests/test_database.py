"""The database, as engines, clients and strangers see it."""

from __future__ import annotations

import json

import pytest
from database import connect, flat, passwords, sql
from fleet import INVENTORY, PYTHON, play, python, recap, shell

# the example by which people come to know it, in today's words
EXAMPLE = """
def example(table):
    import pandas as pd
    from sqlalchemy import create_engine, text

    engine = create_engine("postgresql+psycopg2://")
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
        connection.execute(text(f"CREATE TABLE {table} (first_column text, second_column integer)"))
        connection.execute(text(f"INSERT INTO {table} VALUES ('100 %', :number)"), {"number": 31})
    pd.DataFrame({"first_column": ["more"], "second_column": [1]}).to_sql(table, engine, if_exists="append", index=False)
    return pd.read_sql(f"select * from {table} order by second_column", con=engine).to_dict("list")
"""
ROWS = {"first_column": ["more", "100 %"], "second_column": [1, 31]}


def test_the_example_runs_on_every_engine_without_a_secret_in_it() -> None:
    code = (
        EXAMPLE
        + """
print(json.dumps([rc[number].apply_sync(example, f"aug{number}") for number in rc.ids]))
"""
    )
    assert python("desk", code) == [ROWS, ROWS]


def test_the_example_runs_on_a_client_host_in_a_login_shell() -> None:
    code = EXAMPLE + 'import json\nprint(json.dumps(example("desk")))\n'
    said = shell("desk", f"cat >/root/example.py <<'END'\n{code}\nEND\nHOME=/root bash -lc '{PYTHON} /root/example.py'")
    assert json.loads(said) == ROWS


def test_every_database_has_a_service_of_its_name() -> None:
    code = """
def where(service):
    import psycopg2
    connection = psycopg2.connect(service=service)
    with connection.cursor() as cursor:
        cursor.execute("select current_database(), current_user, ssl, version from pg_stat_ssl where pid = pg_backend_pid()")
        return cursor.fetchall()[0]
print(json.dumps([rc[0].apply_sync(where, service) for service in ("lab", "results")]))
"""
    assert python("desk", code) == [[name, "lab", True, "TLSv1.3"] for name in ("lab", "results")]


def test_databases_have_what_was_asked_for() -> None:
    assert sql("db", "select extname from pg_extension where extname <> 'plpgsql'", "results") == "pg_trgm"
    assert sql("db", "select nspowner::regrole from pg_namespace where nspname = 'raw'", "results") == "lab"
    assert sql("db", "select datcollate from pg_database where datname = 'lab'") == "C.UTF-8"
    assert sql("db", "select rolpassword like 'SCRAM-SHA-256$%' and not rolsuper from pg_authid where rolname = 'lab'") == "t"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "TLSv1.3"),
        ({"sslmode": "disable", "channel_binding": "disable"}, "no encryption"),
        ({"sslrootcert": "/etc/ssl/certs/ca-certificates.crt"}, "certificate verify failed"),
        ({"host": "other"}, 'does not match host name "other"'),
        ({"dbname": "postgres"}, "no pg_hba.conf entry"),
        ({"user": "postgres", "password": "x"}, "pg_hba.conf rejects connection"),
        ({"user": "postgres", "password": "x", "dbname": "postgres"}, "pg_hba.conf rejects connection"),
        ({"password": "guessed"}, "password authentication failed"),
    ],
    ids=lambda each: ",".join(each) if isinstance(each, dict) else "",
)
def test_who_is_let_in_from_an_engine_host(change: dict[str, str], expected: str) -> None:
    assert expected in connect("node1", **change)


def test_a_host_of_another_network_is_not_let_in_whatever_it_knows() -> None:
    assert "no pg_hba.conf entry for host" in connect("head")


def test_pass_files_are_for_their_owners_alone() -> None:
    assert shell("node1", "stat -c '%a %U' /var/lib/ipyfleet/lab/pgpass") == "600 ipyfleet-lab"
    assert shell("desk", "stat -c '%a %U' /root/.config/ipyfleet/lab/pgpass") == "600 root"
    assert shell("db", "stat -c '%a %U' /etc/postgresql/*/main/ipyfleet/server.pem") == "600 postgres"


def test_verify_and_status_say_so() -> None:
    said = play(playbook="playbooks/verify.yml")
    assert said.returncode == 0, said.stdout
    assert "database lab, results on db, port 5432: reached by 2 of 2 engines over TLSv1.3, verified, PostgreSQL 15." in flat(said.stdout)
    said = play(playbook="playbooks/status.yml")
    assert said.returncode == 0, said.stdout
    assert "database lab, results on db, port 5432: running, PostgreSQL 15" in flat(said.stdout)
    assert "certificate good for 39" in flat(said.stdout)


def test_no_secret_is_shown_to_the_curious() -> None:
    said = play("-vvv", "--diff", "--check")
    assert said.returncode == 0, said.stdout[-3000:]
    for secret in (*passwords().values(), "PRIVATE KEY"):
        assert secret not in said.stdout + said.stderr


def test_a_limit_without_the_database_leaves_it_alone() -> None:
    said = play("--limit=node1")
    assert said.returncode == 0, said.stdout
    assert "db" not in recap(said)


def test_the_fleet_s_folder_is_private() -> None:
    folder = INVENTORY / ".ipyfleet" / "lab"
    for name in ("passwords.json", "ca.json", "certificates.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
