"""Argument specs of the roles: complete, as the defaults say, and used to check what is set."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.specs import check, load_specs
from conftest import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())
SPECS = load_specs(ROOT / "roles", ROLES)


def defaults(role: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text()))


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_specified_and_every_specified_default_is_one(role: str) -> None:
    specified = {name: option["default"] for name, option in SPECS[role].items() if "default" in option}
    assert specified == defaults(role)


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_type_and_description_and_a_name_of_ours(role: str) -> None:
    for name, option in SPECS[role].items():
        assert option["type"], name
        assert option["description"], name
        assert name.startswith((f"{role}_", "fleet_")), name


def test_each_variable_has_one_role() -> None:
    names = [name for role in ROLES for name in SPECS[role]]
    assert len(names) == len(set(names))


def test_what_is_right_passes_and_what_is_not_ours_is_left_alone() -> None:
    assert check({"fleet_name": "lab", "ansible_host": "x", "mine": [1], "ipp": 1}, SPECS) == ({"fleet_name": "lab"}, [])
    assert check({"ipp_engine_slots": "auto", "ipp_engine_env": {"A": "b"}}, SPECS)[1] == []


def test_numbers_and_booleans_may_be_text() -> None:
    given = {"ipp_controller_curve": "no", "ipp_engine_gpus": "2", "ipp_controller_verify_timeout": "90", "ipp_engine_slots": 4}
    good, wrong = check(given, SPECS)
    assert wrong == []
    assert good == {"ipp_controller_curve": False, "ipp_engine_gpus": 2, "ipp_controller_verify_timeout": 90.0, "ipp_engine_slots": "4"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ipp_engine_slot": 4}, "ipp_engine_slot: unknown variable; did you mean `ipp_engine_slots`?"),
        ({"fleet_scop": "user"}, "fleet_scop: unknown variable; did you mean `fleet_scope`?"),
        ({"fleet_scope": "root"}, "fleet_scope: expected one of system, user, got 'root'"),
        ({"ipp_controller_curve": "perhaps"}, "ipp_controller_curve: expected a boolean, got 'perhaps'"),
        ({"ipp_controller_heartbeat_period": "soon"}, "ipp_controller_heartbeat_period: expected a number, got 'soon'"),
        ({"ipp_controller_heartbeat_period": True}, "ipp_controller_heartbeat_period: expected a number, got the boolean True"),
        ({"ipp_engine_env": "A=b"}, "ipp_engine_env: expected a mapping, got 'A=b'"),
        ({"ipp_client_users": "eve"}, "ipp_client_users: expected a list of str, got 'eve'"),
        ({"fleet_name": ["lab"]}, "fleet_name: expected text, got the list ['lab']"),
        ({"ipp_controller_broadcast_depth": 9}, "ipp_controller_broadcast_depth: expected one of 0, 1, 2, 3, 4, got 9"),
    ],
)
def test_what_is_wrong_is_one_line(variables: dict[str, Any], expected: str) -> None:
    assert check(variables, SPECS) == ({}, [expected])
