"""A server that is there already, with data, settings and rules of its own, becomes a fleet's database and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from database import FLEETS, deploy, flat, passwords, sql
from fleet import PYTHON, python_alone, shell

HOST = FLEETS["lab13"].host
HBA = "/etc/postgresql/17/main/pg_hba.conf"
RULE = "hostssl ledger clerk 10.77.0.0/16 scram-sha-256"


@pytest.fixture(scope="module", autouse=True)
def server_of_somebody() -> Iterator[None]:
    """PostgreSQL as the distribution installs it, in use."""
    install = "apt-get install -y -qq --no-install-recommends postgresql-17 >/dev/null"
    shell(HOST, f"export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; {install}")
    shell(HOST, "echo 'work_mem = 7MB' >/etc/postgresql/17/main/conf.d/99-own.conf")
    sql(HOST, "create role clerk login;\ncreate database ledger owner clerk")
    sql(HOST, "create table entries as select n, n * n as square from generate_series(1, 1000) n", "ledger")
    shell(HOST, f"echo '{RULE}' >>{HBA}; systemctl restart postgresql@17-main")
    yield


def test_rules_that_would_be_lost_are_shown_and_nothing_is_changed() -> None:
    before = shell(HOST, f"cat {HBA}")
    said = deploy("lab13", "-e", '{"postgresql_hba": []}')
    assert said.returncode == 2
    assert RULE in flat(said.stdout)
    assert "expected rules that the new file has as well" in flat(said.stdout)
    assert "postgresql_replace_hba" in flat(said.stdout)
    assert "nothing was changed" in said.stdout
    assert shell(HOST, f"cat {HBA}") == before


def test_another_major_version_is_refused() -> None:
    said = deploy("lab13", "--limit", HOST, "-e", "postgresql_version=15")
    assert said.returncode == 2
    assert "postgresql_version: expected the major version that cluster main has, 17, got 15" in flat(said.stdout)


def test_another_cluster_on_the_port_is_refused() -> None:
    said = deploy("lab13", "--limit", HOST, "-e", "postgresql_cluster=second")
    assert said.returncode == 2
    assert "postgresql_port: expected a port of this cluster alone, got 5432, which cluster 17/main has" in flat(said.stdout)
    assert shell(HOST, "ls /etc/postgresql/17") == "main"


def test_a_restart_waits_until_it_is_allowed() -> None:
    """It has somebody's data, so nobody is disturbed without a word."""
    started = sql(HOST, "select pg_postmaster_start_time()")
    said = deploy("lab13")
    assert said.returncode == 2, said.stdout
    assert "listen_addresses" in flat(said.stdout)
    assert "-e postgresql_allow_restart=true" in flat(said.stdout)
    assert sql(HOST, "select pg_postmaster_start_time()") == started


def test_it_is_adopted_without_loss() -> None:
    said = deploy("lab13", "-e", "postgresql_allow_restart=true")
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr
    assert "reached by 1 of 1 engines over TLSv1.3, verified, PostgreSQL 17." in flat(said.stdout)
    assert sql(HOST, "select count(*), sum(square) from entries", "ledger") == "1000|333833500"
    assert sql(HOST, "show work_mem") == "7MB"
    assert sql(HOST, "select pg_get_userbyid(datdba) from pg_database where datname = 'ledger'") == "clerk"
    assert sql(HOST, "select has_database_privilege('public', 'ledger', 'connect')") == "t"
    assert RULE.split() in [line.split() for line in shell(HOST, f"cat {HBA}").splitlines()]
    assert RULE in shell(HOST, f"cat {HBA}.before-ipyfleet")


def test_a_second_run_changes_nothing() -> None:
    said = deploy("lab13")
    assert said.returncode == 0, said.stdout[-3000:]
    assert said.stdout.count("changed=0") == said.stdout.count("changed=")


def test_who_knows_the_password_but_has_no_certificate_is_refused() -> None:
    code = f"""
import json, os, psycopg2
base = dict(host="db13", dbname="lab13", user="lab13", password={passwords("lab13")["lab13"]!r}, sslmode="require")
folder = "/root/.config/ipyfleet/lab13/"
said = []
for more in ({{"sslcert": "/nowhere"}}, {{"sslcert": folder + "postgresql.crt", "sslkey": folder + "postgresql.key"}}):
    try:
        psycopg2.connect(**base, **more).close()
        said.append("")
    except psycopg2.Error as error:
        said.append(str(error))
print(json.dumps(said))
"""
    without, with_it = python_alone("desk", code, PYTHON.replace("/lab/", "/lab13/"))
    assert "connection requires a valid client certificate" in without
    assert with_it == ""
