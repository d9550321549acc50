"""The database's configuration: values, memory, rules of access, and the files that templates make of them."""

from __future__ import annotations

from typing import Any

import conftest
import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import parse
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_server import fleet_of, settings_in
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database_files import allowed, memory, problems, value
from conftest import ROOT

DATABASE = {
    "databases": [{"name": "lab"}, {"name": "odd name"}],
    "users": [{"name": "lab"}, {"name": "reader"}],
    "listen": ["localhost", "10.0.0.7"],
    "port": 5433,
    "clients": [{"host": "node1", "address": "10.0.0.3"}, {"host": "node2", "address": "fd00::3"}],
}


def rendered(name: str, **variables: Any) -> str:
    """What a template makes of the role's defaults and these variables."""
    defaults = yaml.safe_load((ROOT / "roles/postgresql/defaults/main.yml").read_text())
    known = {
        "__postgresql_wanted": {"name": "lab", "database": DATABASE, "pem": "/etc/x/server.pem", "ca": "/etc/x/ca.crt"},
        "__postgresql_memory_mb": 8192,
        "__postgresql_tuned": [],
        "__postgresql_allowed": [],
    }
    return conftest.rendered(f"postgresql/{name}", **{**defaults, **known, **variables})


# -- values and memory


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (True, "on"),
        (False, "off"),
        (8, "8"),
        (0.5, "0.5"),
        ("64MB", "'64MB'"),
        ("it's", "'it''s'"),
        ("a\\b\nport = 1", "'a\\\\b\\nport = 1'"),
        (["localhost", "10.0.0.7"], "'localhost, 10.0.0.7'"),
    ],
)
def test_values_as_postgresql_reads_them(given: object, text: str) -> None:
    assert value(given) == text


def test_a_value_is_no_mapping() -> None:
    with pytest.raises(ValueError, match="expected text, a number or a boolean, got"):
        value({"a": 1})


def test_memory_is_shared_out() -> None:
    assert memory(8192) == {"shared_buffers": "2048MB", "effective_cache_size": "6144MB", "maintenance_work_mem": "512MB"}
    assert memory(1 << 20)["shared_buffers"] == "16384MB"
    assert memory(256)["shared_buffers"] == "64MB"


def test_the_little_by_which_memory_differs_from_boot_to_boot_changes_nothing() -> None:
    assert memory(3911) == memory(3925) == memory(3999)


# -- what operators say


def test_who_else_may_connect() -> None:
    names = {"databases": ["lab", "odd name"], "users": ["lab", "reader"]}
    assert allowed(["10.1.0.0/16", {"address": "desk", "users": ["reader"]}], DATABASE) == [
        {**names, "address": "10.1.0.0/16", "options": {}},
        {**names, "address": "desk", "users": ["reader"], "options": {}},
    ]
    assert allowed(["10.1.0.0/16"], DATABASE, True)[0]["options"] == {"clientcert": "verify-full"}


def test_good_variables_are_no_problem() -> None:
    variables = {
        "postgresql_allow": ["10.1.0.0/16", "desk.example.org", {"address": "10.1.0.1", "databases": ["lab"]}],
        "postgresql_hba": [{"databases": "lab", "users": "reader", "address": "10.2.0.0/16"}],
        "postgresql_settings": {"work_mem": "64MB", "pg_stat_statements.max": 100, "jit": False},
        "postgresql_users": ["reader", {"name": "maker", "attributes": ["CREATEDB"]}],
        "postgresql_privileges": [{"database": "lab", "roles": "reader", "privs": "CONNECT", "type": "database"}],
        "postgresql_allow_insecure": ["world"],
        "postgresql_cluster": "main",
        "postgresql_version": "17",
    }
    assert list(problems(variables)) == []
    assert list(problems({})) == []


@pytest.mark.parametrize(
    ("variables", "start"),
    [
        ({"postgresql_allow": ["10.0.0.0/99"]}, "postgresql_allow[0].address: expected a network"),
        ({"postgresql_allow": ["10.0.0.1", {"adress": "x"}]}, "postgresql_allow[1].adress: unknown key; expected one of address,"),
        ({"postgresql_allow": [7]}, "postgresql_allow[0]: expected a network, a host name, or a mapping"),
        (
            {"postgresql_hba": [{"databases": "a", "users": "b", "address": "x"}, {"type": "hots"}]},
            "postgresql_hba[1].type: expected one of",
        ),
        ({"postgresql_settings": {"work mem": 1}}, "postgresql_settings: expected names of settings, got 'work mem'"),
        ({"postgresql_settings": {"work_mem": {}}}, "postgresql_settings.work_mem: expected text, a number or a boolean, got {}"),
        ({"postgresql_users": [{"name": "a", "attributes": ["ROOT"]}]}, "postgresql_users[0].attributes: expected some of SUPERUSER"),
        (
            {"postgresql_privileges": [{"database": "lab", "roles": "a"}]},
            "postgresql_privileges[0]: expected database, roles, privs, got no privs",
        ),
        ({"postgresql_privileges": [{"db": "lab"}]}, "postgresql_privileges[0].db: unknown key"),
        ({"postgresql_allow_insecure": ["everything"]}, "postgresql_allow_insecure: expected some of trust,"),
        ({"postgresql_cluster": "a-b"}, "postgresql_cluster: expected lower-case letters, digits and underscores"),
        ({"postgresql_version": "15.2"}, "postgresql_version: expected a major version such as 15, got '15.2'"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(variables: dict[str, Any], start: str) -> None:
    (line,) = problems(variables)
    assert line.startswith(start)
    assert "\n" not in line


# -- files


def test_the_settings_of_a_fleet() -> None:
    text = rendered("postgresql.conf.j2")
    assert fleet_of(text) == "lab"
    assert settings_in(text) == {
        "listen_addresses": "localhost, 10.0.0.7",
        "port": "5433",
        "password_encryption": "scram-sha-256",
        "ssl": "on",
        "ssl_cert_file": "/etc/x/server.pem",
        "ssl_key_file": "/etc/x/server.pem",
        "ssl_min_protocol_version": "TLSv1.2",
        "shared_buffers": "2048MB",
        "effective_cache_size": "6144MB",
        "maintenance_work_mem": "512MB",
    }


def test_settings_of_the_operator_win_and_are_there_once() -> None:
    text = rendered(
        "postgresql.conf.j2",
        postgresql_settings={"shared_buffers": "1GB"},
        __postgresql_tuned=["shared_buffers", "maintenance_work_mem"],
        postgresql_max_connections=40,
        postgresql_client_certificates=True,
    )
    found = settings_in(text)
    assert text.count("shared_buffers") == 1
    assert (found["shared_buffers"], found["max_connections"], found["ssl_ca_file"]) == ("1GB", "40", "/etc/x/ca.crt")
    assert "maintenance_work_mem" not in found


def test_the_rules_of_a_fleet_are_in_their_order() -> None:
    text = rendered(
        "pg_hba.conf.j2",
        postgresql_hba=[{"databases": "lab", "users": "app", "address": "10.3.0.0/16"}],
        __postgresql_allowed=allowed(["10.1.0.0/16"], DATABASE),
        postgresql_allow=["10.1.0.0/16"],
    )
    assert fleet_of(text) == "lab"
    parsed = parse(text)
    assert not parsed.faults
    assert [str(rule) for rule in parsed.rules] == [
        "local all,replication postgres peer",
        "host all postgres all reject",
        'hostssl lab,"odd name" lab,reader 10.0.0.3/32 scram-sha-256',
        'hostssl lab,"odd name" lab,reader fd00::3/128 scram-sha-256',
        'hostssl lab,"odd name" lab,reader 10.1.0.0/16 scram-sha-256',
        "hostssl lab app 10.3.0.0/16 scram-sha-256",
        'hostnossl lab,"odd name" all all reject',
        "local all,replication all peer",
        "host all,replication all 127.0.0.1/32 scram-sha-256",
        "host all,replication all ::1/128 scram-sha-256",
    ]


def test_clients_show_certificates_where_they_have_to() -> None:
    rules = parse(rendered("pg_hba.conf.j2", postgresql_client_certificates=True)).rules
    assert [rule.options for rule in rules if rule.type == "hostssl"] == [("clientcert=verify-full",)] * 2
