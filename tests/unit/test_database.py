"""The database as an inventory wants it, and what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import database, database_report, findings
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import PortPlan

GROUPS = {"ipp_controller": ["head"], "ipp_engine": ["n1", "n2"], "ipp_client": ["desk"], "postgresql": ["db"]}
ALONE = {"ipp_controller": ["db"], "ipp_engine": ["db"], "ipp_client": [], "postgresql": ["db"]}


def described(scope: str = "system", groups: dict[str, list[str]] = GROUPS, **variables: Any) -> dict[str, Any]:
    found = database.describe(groups, {"db": variables}, "lab", scope, PortPlan(20000))
    assert found is not None
    return found


def test_a_fleet_without_a_database_has_none() -> None:
    assert database.describe(GROUPS | {"postgresql": []}, {}, "lab", "system", PortPlan(20000)) is None


def test_a_host_is_enough() -> None:
    found = described()
    assert (found["location"], found["hostaddr"], found["port"], found["listen"], found["tls"]) == ("db", "", 5432, ["*"], True)
    assert [each["name"] for each in found["databases"]] == ["lab"]
    assert found["users"] == [{"name": "lab"}]


@pytest.mark.parametrize(
    ("variables", "location", "hostaddr"),
    [
        ({"ansible_host": "10.0.0.7"}, "db", "10.0.0.7"),
        ({"ansible_host": "db.lab.example"}, "db.lab.example", ""),
        ({"ansible_host": "10.0.0.7", "postgresql_location": "pg.lab.example"}, "pg.lab.example", "10.0.0.7"),
    ],
)
def test_clients_verify_a_name_and_connect_to_an_address_where_there_is_one(
    variables: dict[str, Any], location: str, hostaddr: str
) -> None:
    found = described(**variables)
    assert (found["location"], found["hostaddr"]) == (location, hostaddr)


def test_a_fleet_on_one_host_listens_to_itself_alone() -> None:
    found = described(groups=ALONE)
    assert (found["listen"], found["hostaddr"]) == (["localhost"], "127.0.0.1")


def test_scope_user_has_a_port_of_the_block_and_no_tls() -> None:
    found = described("user", ALONE)
    assert (found["port"], found["tls"], found["hostaddr"]) == (20090, False, "127.0.0.1")


def test_every_owner_has_an_account_and_no_password_is_told() -> None:
    found = described(
        postgresql_databases=["lab", {"name": "results", "owner": "boss", "schemas": ["raw"]}],
        postgresql_users=[{"name": "reader", "password": "s3cret", "connection_limit": 3}],
    )
    assert [each["name"] for each in found["users"]] == ["lab", "boss", "reader"]
    assert found["databases"][1] == {"name": "results", "owner": "boss", "owner_set": True, "extensions": [], "schemas": ["raw"]}
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"postgresql_databases": ["postgres"]}, "db: postgresql_databases[0]: expected a name of letters, digits and _.-"),
        ({"postgresql_databases": ["a", "a"]}, "db: postgresql_databases[1]: expected each name once, got a twice"),
        ({"postgresql_databases": [{"name": "a", "ownr": "b"}]}, "db: postgresql_databases[0].ownr: unknown key"),
        ({"postgresql_databases": [{"name": "a", "owner": "all"}]}, "db: postgresql_databases[0].owner: expected the name of an account"),
        ({"postgresql_databases": [{"name": "a", "extensions": "pg_trgm"}]}, "db: postgresql_databases[0].extensions: expected a list"),
        ({"postgresql_users": [3]}, "db: postgresql_users[0]: expected a name, or a mapping"),
        ({"postgresql_user": 'x"; drop'}, "db: postgresql_user: expected the name of a database account"),
        ({"fleet_scope": "user"}, "db: postgresql: expected a fleet on one host"),
        (
            {"fleet_scope": "user", "postgresql_databases": ["lab", {"name": "a", "owner": "postgres"}]},
            "db: postgresql_databases[1].owner: expected an account of the fleet, got postgres, the server's own superuser",
        ),
    ],
)
def test_what_is_wrong_is_told_in_a_line(variables: dict[str, Any], expected: str) -> None:
    found = list(database.problems(GROUPS, {"db": {"fleet_name": "lab"} | variables}))
    assert any(line.startswith(expected) for line in found), found


def test_one_host_at_most() -> None:
    assert list(database.problems(GROUPS | {"postgresql": ["db", "n1"]}, {})) == [
        "postgresql: expected at most one host in the group, got db, n1"
    ]


def test_hosts_that_may_connect_are_those_whose_address_is_known() -> None:
    fleet = {"hosts": {"head": {}, "n1": {}, "db": {}}, "postgresql": {"host": "db"}}
    assert database.clients_of(fleet, {"n1": "10.0.0.3"}) == [
        {"host": "n1", "address": "10.0.0.3"},
        {"host": "db", "address": "127.0.0.1"},
        {"host": "db", "address": "::1"},
    ]


def test_a_host_that_does_not_find_the_database_is_told() -> None:
    fleet = {"postgresql": {"host": "db", "location": "db"}}
    seen = {"database": {"address": "", "error": "Name or service not known"}}
    (line,) = findings._database(fleet, "n1", seen)
    assert line.startswith("expected a way to the database's host db, got: Name or service not known; set postgresql:")


# -- what is told


def reported(slots: list[dict[str, Any]], state: dict[str, Any] | None = None) -> list[str]:
    fleet = {"postgresql": described()}
    return database_report.lines(database_report.report_of(fleet, slots, state))


def slot(number: int, **said: str) -> dict[str, Any]:
    return {"host": "n1", "number": number, "database": said}


def test_who_reached_it_and_who_did_not() -> None:
    good, bad = slot(0, tls="TLSv1.3", version="15.18"), slot(1, error="certificate verify failed")
    assert reported([good, bad]) == [
        "database lab on db, port 5432: reached by 1 of 2 engines over TLSv1.3, verified, PostgreSQL 15.18",
        "database: n1 slot 1: certificate verify failed",
    ]


def test_state_certificate_and_backups() -> None:
    end = (datetime.now(UTC) + timedelta(days=30, hours=1)).isoformat()
    proven = {"name": "20260301T021500Z", "age_text": "7 h"}
    state = {"running": True, "version": "15", "not_after": end, "backups": {"newest_proven": proven, "problems": []}}
    told = "database lab on db, port 5432: running, PostgreSQL 15, certificate good for 30 days, newest proven backup 7 h old"
    assert reported([], state) == [told]


def test_a_run_that_asked_nobody() -> None:
    assert reported([]) == ["database lab on db, port 5432: not asked"]


def test_a_host_that_is_unreachable() -> None:
    hostvars = {"db": {"__postgresql_reached": {"unreachable": True, "msg": "timed out"}}}
    state = database_report.state_of({"postgresql": described(), "scope": "system"}, hostvars, {})
    assert any("its host is unreachable: " in line for line in reported([], state))


def test_a_host_that_was_added_without_the_database_s_is_told_what_to_do() -> None:
    (_, line) = reported([slot(0, error="no pg_hba.conf entry for host")])
    assert line.endswith("a run that has the database's host within its limit lets it in")


def test_hosts_whose_address_is_not_known_are_named() -> None:
    hosts = {"head": {"roles": ["ipp_controller"]}, "n1": {"roles": ["ipp_engine"]}, "desk": {"roles": ["ipp_client"]}}
    fleet = {"hosts": hosts, "postgresql": {"clients": [{"host": "n1", "address": "10.0.0.3"}]}}
    assert database.unknown_clients(fleet) == ["desk"]
