"""The fleet file: what it means, and what is said about a wrong one."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import (
    POSTGRESQL_KEYS,
    Fleet,
    FleetFileError,
    read_fleet,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import positions
from conftest import ROOT

SMALLEST = """
    plugin: fleet
    name: lab
    controller: head
    engines: {node1: 2}
"""


def read(text: str) -> Fleet:
    text = textwrap.dedent(text)
    return read_fleet(yaml.safe_load(text), "lab.fleet.yml", positions(text))


def problems(text: str) -> list[str]:
    with pytest.raises(FleetFileError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


def test_what_engines_of_a_host_may_use() -> None:
    fleet = read("""
        plugin: fleet
        name: lab
        controller: head
        engines:
          a: {slots: 2, gpus: [0, 2], gpus_per_slot: 1, gpu_variable: HIP_VISIBLE_DEVICES, cpus: spread, memory_max: 2G}
          b: {slots: 2, gpus: 4, cpus: 0-3}
    """)
    assert fleet.host_vars["a"] == {
        "ipp_engine_slots": 2,
        "ipp_engine_gpus": 2,
        "ipp_engine_gpu_names": ["0", "2"],
        "ipp_engine_gpus_per_slot": 1,
        "ipp_engine_gpu_variable": "HIP_VISIBLE_DEVICES",
        "ipp_engine_cpus": "spread",
        "ipp_engine_memory_max_mb": 2048,
    }
    assert fleet.host_vars["b"] == {"ipp_engine_slots": 2, "ipp_engine_gpus": 4, "ipp_engine_cpus": "0-3"}


def test_smallest_fleet() -> None:
    fleet = read(SMALLEST)
    assert fleet.groups == {
        "ipp_controller": ("head",),
        "ipp_engine": ("node1",),
        "ipp_client": (),
        "postgresql": (),
        "jupyterlab": (),
    }
    assert fleet.all_vars == {"fleet_name": "lab", "fleet_scope": "system"}
    assert fleet.host_vars == {"head": {}, "node1": {"ipp_engine_slots": 2}}


def test_complete_fleet() -> None:
    fleet = read("""
        plugin: ipyfleet.cluster.fleet
        name: lab
        scope: system
        controller: {host: ops@head, location: head.lab.example, ip: 10.0.0.5}
        engines:
          node[01:03]: 4
          big1: auto
          root@gpu1: {slots: 2, gpus: 1, env: {OMP_NUM_THREADS: 4}, user_python_packages: [cupy], reserve_cores: 2, memory_per_engine: 4G}
        postgresql: {host: db, databases: [results], allow: [ops]}
        jupyterlab: head
        clients: [laptop, {host: "desk[1:2]", engines: true}]
        hosts:
          head: {ansible_host: 10.0.0.5}
          node[01:03]: {rack: 7}
        defaults: {ansible_user: ops}
        python_packages: [numpy, "pandas>=2"]
        ports: 12000
        secrets_dir: keys
    """)
    assert fleet.groups["ipp_engine"] == ("node01", "node02", "node03", "big1", "gpu1")
    assert fleet.groups["ipp_client"] == ("laptop", "desk1", "desk2")
    assert fleet.groups["postgresql"] == ("db",)
    assert fleet.groups["jupyterlab"] == ("head",)
    assert fleet.host_vars["node02"] == {"ipp_engine_slots": 4, "rack": 7}
    assert fleet.host_vars["big1"] == {"ipp_engine_slots": "auto"}
    assert fleet.host_vars["gpu1"] == {
        "ansible_user": "root",
        "ipp_engine_slots": 2,
        "ipp_engine_gpus": 1,
        "ipp_engine_env": {"OMP_NUM_THREADS": "4"},
        "ipp_node_python_packages": ["cupy"],
        "ipp_engine_reserve_cores": 2,
        "ipp_engine_memory_mb": 4096,
    }
    assert fleet.host_vars["head"] == {"ansible_user": "ops", "ansible_host": "10.0.0.5"}
    assert (fleet.host_vars["laptop"], fleet.host_vars["desk2"]) == ({}, {"ipp_client_engine_file": True})
    assert fleet.all_vars == {
        "fleet_name": "lab",
        "fleet_scope": "system",
        "fleet_ports": 12000,
        "fleet_python_packages": ["numpy", "pandas>=2"],
        "fleet_secrets_dir": "keys",
        "ipp_controller_location": "head.lab.example",
        "ipp_controller_ip": "10.0.0.5",
        "postgresql_databases": ["results"],
        "postgresql_allow": ["ops"],
        "ansible_user": "ops",
    }


def test_every_variable_of_the_database_can_be_said() -> None:
    spec = yaml.safe_load((ROOT / "roles/postgresql/meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    # this one is for each of the hosts that connect
    variables = {name.removeprefix("postgresql_") for name in spec["options"]} - {"client_address"}
    assert set(POSTGRESQL_KEYS) == variables | {"host"}


def test_hosts_of_a_hand_written_config() -> None:
    fleet = read("""
        plugin: fleet
        name: ssh
        controller: me@10.0.0.1
        engines: {host@10.0.0.2: 2}
    """)
    assert fleet.groups["ipp_engine"] == ("10.0.0.2",)
    assert fleet.host_vars["10.0.0.2"] == {"ipp_engine_slots": 2, "ansible_user": "host"}


def test_a_host_may_have_several_roles() -> None:
    fleet = read("""
        plugin: fleet
        name: one
        controller: head
        engines: {head: 2, node1: 1}
        clients: [head]
    """)
    assert fleet.groups["ipp_engine"] == ("head", "node1")
    assert fleet.host_vars["head"] == {"ipp_engine_slots": 2}


def with_line(line: str, **replaced: str) -> str:
    """The smallest fleet with lines replaced, and one more, on line 6."""
    lines = textwrap.dedent(SMALLEST).strip().splitlines()
    kept = [replaced.get(each.split(":")[0], each) for each in lines]
    return "\n" + "\n".join([*kept, line]) + "\n"


CASES: list[tuple[str, dict[str, str], str]] = [
    ("hosst: {}", {}, "lab.fleet.yml:6: hosst: unknown key; did you mean `hosts`?"),
    ("zzz: 1", {}, "lab.fleet.yml:6: zzz: unknown key; expected one of plugin, name, scope,"),
    ("name: lab", {}, "lab.fleet.yml:6: name: stands twice, on lines 3 and 6"),
    ("scope: root", {}, "lab.fleet.yml:6: scope: expected `system` or `user`, got 'root'"),
    ("ports: 80", {}, "lab.fleet.yml:6: ports: expected the first port of a block of 100, 1024 to 65436, got 80"),
    ("ports: true", {}, "lab.fleet.yml:6: ports: expected the first port of a block of 100, 1024 to 65436, got the boolean True"),
    ("clients: laptop", {}, "lab.fleet.yml:6: clients: expected a list of hosts, got 'laptop'"),
    ("clients: [a, a]", {}, "lab.fleet.yml:6: clients.1: expected each host once, got a twice"),
    ("clients: [{host: a, engine: true}]", {}, "lab.fleet.yml:6: clients.0.engine: unknown key; did you mean `engines`?"),
    ("clients: [{host: a, engines: 2}]", {}, "lab.fleet.yml:6: clients.0.engines: expected true or false, got 2"),
    ("clients: [{engines: true}]", {}, "lab.fleet.yml:6: clients.0.host: expected a host name, got nothing"),
    ("clients: [7]", {}, "lab.fleet.yml:6: clients.0: expected a host name, got 7"),
    (
        "python_packages: numpy",
        {},
        "lab.fleet.yml:6: python_packages: expected a list of Python requirements such as numpy>=2, got 'numpy'",
    ),
    ("python_packages: [num py]", {}, "lab.fleet.yml:6: python_packages.0: expected a Python requirement such as numpy>=2, got 'num py'"),
    ("hosts: {hed: {}}", {}, "lab.fleet.yml:6: hosts.hed: expected a host of the fleet, got hed; did you mean `head`?"),
    ("hosts: {head: [a]}", {}, "lab.fleet.yml:6: hosts.head: expected a mapping of variables, got the list ['a']"),
    (
        "hosts: {head: {ansible_hots: x}}",
        {},
        "lab.fleet.yml:6: hosts.head.ansible_hots: unknown connection variable; did you mean `ansible_host`?",
    ),
    ("defaults: {1a: x}", {}, "lab.fleet.yml:6: defaults.1a: expected the name of a variable, got '1a'"),
    ("defaults: ops", {}, "lab.fleet.yml:6: defaults: expected a mapping of variables, got 'ops'"),
    ("postgresql: {hots: db}", {}, "lab.fleet.yml:6: postgresql.hots: unknown key; did you mean `host`?"),
    ("jupyterlab: [a]", {}, "lab.fleet.yml:6: jupyterlab: expected a host name, got the list ['a']"),
    ("secrets_dir: 5", {}, "lab.fleet.yml:6: secrets_dir: expected a folder, got 5"),
    ("", {"plugin": "plugin: flet"}, "lab.fleet.yml:2: plugin: expected `fleet` or `ipyfleet.cluster.fleet`, got 'flet'"),
    (
        "",
        {"name": "name: Lab"},
        "lab.fleet.yml:3: name: expected lower-case letters, digits and dashes, at most 20, a letter first, got 'Lab'",
    ),
    ("", {"name": "name: " + "a" * 21}, "lab.fleet.yml:3: name: expected lower-case letters"),
    ("", {"controller": "controller:"}, "lab.fleet.yml:4: controller: expected a host name, got nothing"),
    ("", {"controller": "controller: a[1:2]"}, "lab.fleet.yml:4: controller: expected a single host, got 'a[1:2]'"),
    ("", {"controller": "controller: {hots: a}"}, "lab.fleet.yml:4: controller.hots: unknown key; did you mean `host`?"),
    ("", {"controller": "controller: {host: a, location: 'b c'}"}, "lab.fleet.yml:4: controller.location: expected a name or address"),
    (
        "",
        {"controller": "controller: ipp_engine"},
        "lab.fleet.yml:4: controller: expected a host name that is not a group's, got 'ipp_engine'",
    ),
    (
        "",
        {"engines": "engines:"},
        "lab.fleet.yml:5: engines: expected a mapping of hosts to numbers of slots, such as `node[01:08]: 4`, got nothing",
    ),
    ("", {"engines": "engines: [a]"}, "lab.fleet.yml:5: engines: expected a mapping of hosts to numbers of slots"),
    ("", {"engines": "engines: {a: 0}"}, "lab.fleet.yml:5: engines.a: expected a number of slots from 1 on, or `auto`, got 0"),
    ("", {"engines": "engines: {a: -1}"}, "lab.fleet.yml:5: engines.a: expected a number of slots from 1 on, or `auto`, got -1"),
    ("", {"engines": "engines: {a: '2'}"}, "lab.fleet.yml:5: engines.a: expected a number of slots from 1 on, or `auto`, got '2'"),
    (
        "",
        {"engines": "engines: {a: yes}"},
        "lab.fleet.yml:5: engines.a: expected a number of slots from 1 on, or `auto`, got the boolean True",
    ),
    ("", {"engines": "engines: {a: }"}, "lab.fleet.yml:5: engines.a: expected a number of slots from 1 on, or `auto`, got nothing"),
    ("", {"engines": "engines: {a: 1, a: 2}"}, "lab.fleet.yml:5: engines.a: stands twice, on lines 5 and 5"),
    (
        "",
        {"engines": "engines: {'n[1:3]': 1, n2: 1}"},
        "lab.fleet.yml:5: engines.n2: expected each host once, got n2 here and in engines.n[1:3]",
    ),
    ("", {"engines": "engines: {'n[3:1]': 1}"}, "lab.fleet.yml:5: engines.n[3:1]: expected a range that begins before it ends"),
    ("", {"engines": "engines: {'n[1:': 1}"}, "lab.fleet.yml:5: engines.n[1:: expected a range such as node[01:08], got 'n[1:'"),
    ("", {"engines": "engines: {'n[1,3]': 1}"}, "lab.fleet.yml:5: engines.n[1,3]: expected a range such as node[01:08]"),
    (
        "",
        {"engines": "engines: {'n[01:8]': 1}"},
        "lab.fleet.yml:5: engines.n[01:8]: expected a range such as node[01:08] (host range must specify equal",
    ),
    (
        "",
        {"engines": "engines: {'a b': 1}"},
        "lab.fleet.yml:5: engines.a b: expected a host name of letters, digits, dots and dashes, got 'a b'",
    ),
    ("", {"engines": "engines: {'@a': 1}"}, "lab.fleet.yml:5: engines.@a: expected HOST or USER@HOST, got '@a'"),
    ("clients: [y@a]", {"engines": "engines: {x@a: 1}"}, "lab.fleet.yml:6: clients.0: expected one user for a, got x and y"),
    ("", {"engines": "engines: {a: {slot: 1}}"}, "lab.fleet.yml:5: engines.a.slot: unknown key; did you mean `slots`?"),
    ("", {"engines": "engines: {a: {gpus: x}}"}, "lab.fleet.yml:5: engines.a.gpus: expected a number of GPUs, 0 to 64, or a list"),
    (
        "",
        {"engines": "engines: {a: {env: [x]}}"},
        "lab.fleet.yml:5: engines.a.env: expected a mapping of environment variables, got the list ['x']",
    ),
    ("", {"engines": "engines: {a: {env: {A B: x}}}"}, "lab.fleet.yml:5: engines.a.env.A B: expected the name of an environment variable"),
    ("", {"engines": "engines: {a: {env: {A: yes}}}"}, "lab.fleet.yml:5: engines.a.env.A: expected a string, got the boolean True"),
    (
        "",
        {"engines": "engines: {a: {memory_per_engine: lots}}"},
        "lab.fleet.yml:5: engines.a.memory_per_engine: expected a size such as 2G",
    ),
    ("", {"engines": "engines: {a: {memory_per_engine: 1K}}"}, "lab.fleet.yml:5: engines.a.memory_per_engine: expected a size such as 2G"),
    (
        "",
        {"engines": "engines: {a: {memory_max: 100M}}"},
        "lab.fleet.yml:5: engines.a.memory_max: expected a size such as 2G or 512M, from 256M on, got '100M'",
    ),
    (
        "",
        {"engines": "engines: {a: {cpus: 4}}"},
        'lab.fleet.yml:5: engines.a.cpus: expected `spread`, or cores of the host such as "0-3,8", each once, got 4',
    ),
    (
        "",
        {"engines": "engines: {a: {gpus: [0, 0]}}"},
        "lab.fleet.yml:5: engines.a.gpus: expected a number of GPUs, 0 to 64, or a list of their numbers or UUIDs such as [0, 2]",
    ),
    (
        "",
        {"engines": "engines: {a: {gpus: 2, gpus_per_slot: 4}}"},
        "lab.fleet.yml:5: engines.a.gpus_per_slot: expected a number from 1 to the host's 2 GPUs, got 4",
    ),
    (
        "",
        {"engines": "engines: {a: {gpu_variable: CUDA_DEVICES}}"},
        "lab.fleet.yml:5: engines.a.gpu_variable: expected one of CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES,",
    ),
]


@pytest.mark.parametrize(("line", "replaced", "expected"), CASES, ids=[case[2][14:60] for case in CASES])
def test_a_problem_is_one_line(line: str, replaced: dict[str, str], expected: str) -> None:
    found = problems(with_line(line, **replaced))
    assert [problem for problem in found if problem.startswith(expected)], found
    assert all("\n" not in problem for problem in found)


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    found = problems("""
        plugin: fleet
        name: Lab
        contoller: head
        engines: {a: 0}
        ports: 1
    """)
    assert [problem.split(":")[1] for problem in found] == ["1", "3", "4", "5", "6"]


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_a_file_that_is_no_mapping(data: Any) -> None:
    with pytest.raises(FleetFileError, match="expected a mapping of keys"):
        read_fleet(data, "x.fleet.yml", positions(""))
