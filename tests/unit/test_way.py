"""The way into a fleet, as its inventory has it: the host that leads there, and addresses as seen from it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.client_files import prover, templates
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.way import targets_from, way_of

from ipyfleet.access import targets_of

PORTS = {"registration": 12300, "control": 12340}
DATABASE = {"host": "db", "location": "db.example.org", "hostaddr": "", "port": 5432, "listen": ["*"]}


def fleet(**change: Any) -> dict[str, Any]:
    roles = {"head": ["ipp_controller"], "node": ["ipp_engine"], "desk": ["jupyterlab", "ipp_client"], "db": ["ipp_engine"]}
    found = {
        "controller": "head",
        "location": "10.0.0.5",
        "bind": "0.0.0.0",
        "ports": {"client": PORTS},
        "postgresql": None,
        "jupyterlab": None,
        "hosts": {host: {"roles": each} for host, each in roles.items()},
    }
    return found | change


@pytest.mark.parametrize(
    ("host", "bind", "expected"),
    [
        ("head", "0.0.0.0", "127.0.0.1"),
        ("head", "127.0.0.1", "127.0.0.1"),
        # loopback has more addresses, and what listens at one of them does not at another
        ("head", "::", "127.0.0.1"),
        ("head", "::1", "::1"),
        ("head", "127.0.0.2", "127.0.0.2"),
        ("head", "10.1.0.5", "10.1.0.5"),
        ("node", "0.0.0.0", "10.0.0.5"),
        ("node", "10.1.0.5", "10.0.0.5"),
    ],
)
def test_the_controller_is_where_its_host_or_another_sees_it(host: str, bind: str, expected: str) -> None:
    assert targets_from(fleet(bind=bind), host) == {"controller": [expected, PORTS]}


@pytest.mark.parametrize(
    ("host", "change", "expected"),
    [
        ("db", {}, ["127.0.0.1", 5432]),
        ("db", {"listen": ["localhost"]}, ["127.0.0.1", 5432]),
        ("db", {"listen": ["10.0.0.9", "::1"], "hostaddr": "10.0.0.9"}, ["::1", 5432]),
        ("db", {"listen": ["127.0.0.2", "127.0.0.1"]}, ["127.0.0.1", 5432]),
        ("db", {"listen": ["10.0.0.9"], "hostaddr": "10.0.0.9"}, ["10.0.0.9", 5432]),
        ("node", {}, ["db.example.org", 5432]),
        ("desk", {"hostaddr": "10.0.0.9", "port": 5433}, ["10.0.0.9", 5433]),
        # a controller that is nothing else is none of the hosts that the database lets in
        ("head", {}, None),
    ],
)
def test_the_database_is_where_it_lets_one_in(host: str, change: dict[str, Any], expected: list[Any] | None) -> None:
    assert targets_from(fleet(postgresql=DATABASE | change), host).get("postgresql") == expected


def test_the_way_leads_through_jupyterlab_s_host_if_there_is_one() -> None:
    assert way_of(fleet()) == {"host": "head", "targets": {"controller": ["127.0.0.1", PORTS]}, "tunnel_user": "", "client": False}
    targets = {"jupyterlab": ["127.0.0.1", 12391], "controller": ["10.0.0.5", PORTS]}
    found = way_of(fleet(jupyterlab={"host": "desk", "targets": targets, "tunnel_user": "ipytunnel-lab"}))
    assert found == {"host": "desk", "targets": targets, "tunnel_user": "ipytunnel-lab", "client": True}
    assert [(each.name, each.address, each.port) for each in targets_of(targets)] == [
        ("jupyterlab", "127.0.0.1", 12391),
        ("registration", "10.0.0.5", 12300),
        ("control", "10.0.0.5", 12340),
    ]


def test_a_client_gets_the_files_that_its_fleet_asks_for() -> None:
    assert sorted(templates(fleet())) == ["client.json"]
    assert "ca.crt" not in templates(fleet(postgresql={"tls": False}))
    everything = templates(fleet(postgresql={"tls": True, "client_certificates": True}))
    assert sorted(everything) == ["ca.crt", "client.json", "pg_service.conf", "pgpass", "postgresql.crt", "postgresql.key"]
    assert prover(fleet()) == "node"
