"""What the engines of a host may use: how it is said, shared out, and refused."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import ipyfleet_slot
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_limits
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import limits
from conftest import ROOT, rendered

SPEC = ROOT / "roles" / "ipp_engine" / "meta" / "argument_specs.yml"
GPUS = {"ipp_engine_gpus": 0, "ipp_engine_gpu_names": [], "ipp_engine_gpus_per_slot": 1, "ipp_engine_gpu_variable": "CUDA_VISIBLE_DEVICES"}
DEFAULTS: dict[str, Any] = {**GPUS, "ipp_engine_env": {}, "ipp_engine_cpus": "", "ipp_engine_memory_max_mb": 0}


def slot_files(slots: int, **variables: Any) -> list[dict[str, Any]]:
    """The slot files of a host, as the role's template and variables make them."""
    part = yaml.safe_load((ROOT / "roles" / "ipp_engine" / "vars" / "main.yml").read_text())
    host = {"slots": [{"number": number, "id": 10 + number} for number in range(slots)]}
    environment = {"PGSERVICEFILE": "{etc}/pg_service.conf"}
    known: dict[str, Any] = {"fleet": {"launcher": "service"}, "places": {"etc": "/etc/x"}, "__postgresql_environment": environment}
    known |= {**DEFAULTS, **variables, "host": host}
    templar = Templar(DataLoader(), variables=known)
    known["__ipp_engine_gpus"] = templar.template(trust_as_template(part["__ipp_engine_gpus"]))
    return [json.loads(rendered("ipp_engine/engine.json.j2", **known, item=slot)) for slot in host["slots"]]


def test_without_limits_a_slot_s_file_has_its_id_alone() -> None:
    assert slot_files(2) == [{"id": 10, "env": {}}, {"id": 11, "env": {}}]


def test_engines_that_are_no_services_find_the_database_by_their_slot_s_file() -> None:
    (slot,) = slot_files(1, fleet={"launcher": "ssh"}, ipp_engine_env={"A": "b"})
    assert slot["env"] == {"PGSERVICEFILE": "/etc/x/pg_service.conf", "A": "b"}


@pytest.mark.parametrize(
    ("slots", "variables", "expected"),
    [
        (3, {"ipp_engine_gpus": 2}, ["0", "1", "0"]),
        (2, {"ipp_engine_gpus": 4}, ["0", "1"]),
        (2, {"ipp_engine_gpus": 4, "ipp_engine_gpus_per_slot": 2}, ["0,1", "2,3"]),
        (3, {"ipp_engine_gpus": 3, "ipp_engine_gpus_per_slot": 2}, ["0,1", "2,0", "1,2"]),
        (2, {"ipp_engine_gpus": 2, "ipp_engine_gpus_per_slot": 2}, ["0,1", "0,1"]),
        (3, {"ipp_engine_gpu_names": ["MIG-a", "MIG-b"]}, ["MIG-a", "MIG-b", "MIG-a"]),
        (1, {"ipp_engine_gpus": 1, "ipp_engine_env": {"CUDA_VISIBLE_DEVICES": "7"}}, ["7"]),
    ],
)
def test_slots_take_turns_at_gpus(slots: int, variables: dict[str, Any], expected: list[str]) -> None:
    assert [each["env"]["CUDA_VISIBLE_DEVICES"] for each in slot_files(slots, **variables)] == expected


def test_numbers_of_gpus_that_are_written_down_are_those_of_nvidia_smi() -> None:
    (slot,) = slot_files(1, ipp_engine_gpu_names=["2"])
    assert slot["env"] == {"CUDA_VISIBLE_DEVICES": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_gpus_of_another_make_have_a_variable_of_their_own() -> None:
    (slot,) = slot_files(1, ipp_engine_gpu_names=["2"], ipp_engine_gpu_variable="ROCR_VISIBLE_DEVICES")
    assert slot["env"] == {"ROCR_VISIBLE_DEVICES": "2"}


def test_cores_and_memory_are_in_the_slot_s_file() -> None:
    found = slot_files(2, ipp_engine_cpus="0-2,8", ipp_engine_memory_max_mb=2048)
    assert found[1] == {"id": 11, "env": {}, "memory_max": 2048, "cpus": {"cores": [0, 1, 2, 8], "number": 1, "slots": 2}}
    assert slot_files(1, ipp_engine_cpus="spread")[0]["cpus"] == {"cores": [], "number": 0, "slots": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-3,8", [0, 1, 2, 3, 8]), ("4", [4]), ("5, 1-2", [5, 1, 2]), ("spread", []), ("", [])],
)
def test_a_list_of_cores(text: str, expected: list[int]) -> None:
    assert limits.core_list(text) == expected


@pytest.mark.parametrize("value", ["a", "3-1", "1-", "0,0", "0-3,2", "-1", "1,,2", "0-99999", "all", 4, None, [0], True])
def test_what_is_no_list_of_cores(value: object) -> None:
    with pytest.raises(ValueError, match="`spread`, or cores of the host such as"):
        limits.core_list(value)


@pytest.mark.parametrize("value", [[], [0, 0], [-1], ["0", "GPU-x"], ["a100"], ["GPU-"], "0,1", [True], [None], [1.5]])
def test_what_is_no_list_of_gpus(value: object) -> None:
    with pytest.raises(ValueError, match="a number of GPUs, 0 to 64, or a list"):
        limits.gpu_names(value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, []),
        ({"ipp_engine_gpus": -1}, ["ipp_engine_gpus: expected a number of GPUs, 0 to 64, got -1"]),
        ({"ipp_engine_gpu_names": ["x"]}, ["ipp_engine_gpu_names: expected numbers or UUIDs of GPUs, each once, got x"]),
        (
            {"ipp_engine_gpu_names": ["0", "1"], "ipp_engine_gpus": 3},
            ["ipp_engine_gpus: expected the number of ipp_engine_gpu_names, 2, got 3"],
        ),
        (
            {"ipp_engine_gpus": 2, "ipp_engine_gpus_per_slot": 3},
            ["ipp_engine_gpus_per_slot: expected a number from 1 to the host's 2 GPUs, got 3"],
        ),
        (
            {"ipp_engine_cpus": "most"},
            ["ipp_engine_cpus: expected `spread`, or cores of the host such as \"0-3,8\", each once, got 'most'"],
        ),
        ({"ipp_engine_memory_max_mb": 100}, ["ipp_engine_memory_max_mb: expected 0 for none, or a size from 256 on, got 100"]),
    ],
)
def test_variables_that_are_wrong_are_told_on_a_line_each(variables: dict[str, Any], expected: list[str]) -> None:
    assert list(limits.problems(variables)) == expected


def test_variables_of_gpus_are_those_that_the_role_s_spec_knows() -> None:
    options = yaml.safe_load(SPEC.read_text())["argument_specs"]["main"]["options"]
    assert tuple(options["ipp_engine_gpu_variable"]["choices"]) == limits.GPU_VARIABLES


# -- on the host


def test_cores_and_groups_that_a_host_has_not() -> None:
    wanted: dict[str, Any] = {"cpus": [], "spread": True, "memory_max": 512, "groups": []}
    assert list(fleet_limits.problems(wanted)) == []
    core = min(os.sched_getaffinity(0))
    assert list(fleet_limits.problems({**wanted, "cpus": [core]})) == []
    (told,) = fleet_limits.problems({**wanted, "cpus": [core, 8000, 8001]})
    assert told.startswith("expected cores that the host has for the cpus of its engines, got 8000, 8001; it has ")
    (told,) = fleet_limits.problems({**wanted, "groups": ["no-such-group"]})
    assert told == "expected the group no-such-group, whose members may use GPUs, got no such group; install their driver first"


def test_a_system_that_has_no_such_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    wanted = {"cpus": [0], "spread": False, "memory_max": 512, "groups": []}
    assert list(fleet_limits.problems(wanted)) == [
        "expected Linux, for the cpus of its engines, got Darwin; leave cpus out",
        "expected Linux, for the memory_max of its engines, got Darwin; leave memory_max out",
    ]


def test_ranges() -> None:
    assert fleet_limits.ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


@pytest.mark.parametrize(
    ("cores", "slots", "expected"),
    [
        ([0, 1, 2, 3], 2, [[0, 1], [2, 3]]),
        ([0, 1, 2, 3, 4], 2, [[0, 1], [2, 3, 4]]),
        ([4, 0], 3, [[4], [0], [4]]),
        ([0, 1, 2], 3, [[0], [1], [2]]),
        ([6, 7], 1, [[6, 7]]),
    ],
)
def test_every_slot_has_its_share_of_cores(cores: list[int], slots: int, expected: list[list[int]]) -> None:
    assert [ipyfleet_slot.share(cores, number, slots) for number in range(slots)] == expected


def test_both_threads_of_a_core_go_to_the_same_slot(tmp_path: Path) -> None:
    # two sockets of two cores with two threads each, numbered as Linux does on most machines
    for core in range(8):
        place = tmp_path / f"cpu{core}" / "topology"
        place.mkdir(parents=True)
        (place / "physical_package_id").write_text(f"{core % 2}\n")
        (place / "core_id").write_text(f"{core // 2 % 2}\n")
    order = ipyfleet_slot.by_neighbours(range(8), tmp_path)
    assert order == [0, 4, 2, 6, 1, 5, 3, 7]
    assert ipyfleet_slot.by_neighbours([3, 1], tmp_path / "nothing") == [1, 3]


def test_cores_that_went_away_end_the_engine_with_a_line() -> None:
    with pytest.raises(SystemExit, match=r"cpus: expected cores that this process may use, got \[8000\]; they are \["):
        ipyfleet_slot.bind({"cores": [8000], "number": 0, "slots": 1})
    assert 8000 not in os.sched_getaffinity(0)


def rendered_unit(**variables: Any) -> str:
    """The unit file of engines, which has a macro from another folder."""
    templar = Templar(DataLoader(), variables={"ansible_managed": "Managed", **variables})
    templar = templar.copy_with_new_env(searchpath=[str(ROOT / "templates")], available_variables=templar.available_variables)
    text = (ROOT / "templates" / "ipp_engine" / "ipyfleet-engine@.service.j2").read_text()
    return str(templar.template(trust_as_template(text), overrides={"trim_blocks": True, "lstrip_blocks": False}))


def test_the_unit_s_limit_is_there_when_it_is_asked_for() -> None:
    unit = {"environment": {}, "inputs": [], "command": [sys.executable], "leave": ["true"]}
    places = dict.fromkeys(("service", "group", "work", "state", "ipython", "run", "env", "lib"), "/x")
    known = {**DEFAULTS, "fleet": {"name": "lab"}, "places": places, "unit": unit, "ipp_engine_protect_home": "yes"}
    usual = rendered_unit(**known, __ipp_engine_gpus=[], __ipp_engine_gpu_groups=[])
    assert "MemoryMax" not in usual
    assert "SupplementaryGroups" not in usual
    assert "PrivateDevices=yes" in usual
    known["ipp_engine_memory_max_mb"] = 2048
    other = rendered_unit(**known, __ipp_engine_gpus=["0"], __ipp_engine_gpu_groups=["render", "video"])
    assert "\nOOMPolicy=continue\nMemoryMax=2048M\nSupplementaryGroups=render video\n" in other
    assert "PrivateDevices=no" in other
