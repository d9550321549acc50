"""The inventory plugin, through Ansible's own inventory manager and commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from conftest import ROOT

FLEET = """
plugin: ipyfleet.cluster.fleet
name: lab
controller: head
engines:
  node[1:2]: 4
  gpu1: {slots: 2, gpus: 2}
hosts:
  head: {ansible_host: "10.0.0.{{ 2 + 3 }}"}
compose: {where: "'rack ' ~ (ipp_engine_slots | default(0))"}
groups: {gpu: ipp_engine_gpus | default(0) > 0}
keyed_groups: [{key: ipp_engine_slots | default('') | string, prefix: slots}]
"""


def inventory(tmp_path: Path, text: str = FLEET, name: str = "lab.fleet.yml") -> InventoryManager:
    path = tmp_path / name
    path.write_text(text)
    return InventoryManager(loader=DataLoader(), sources=[str(path)])


def command(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, "PATH": path, **environ})


def test_groups_and_variables(tmp_path: Path) -> None:
    manager = inventory(tmp_path)
    members = {
        group: sorted(manager.get_groups_dict()[group]) for group in ("ipp_controller", "ipp_engine", "ipp_client", "gpu", "slots_4")
    }
    assert members == {
        "ipp_controller": ["head"],
        "ipp_engine": ["gpu1", "node1", "node2"],
        "ipp_client": [],
        "gpu": ["gpu1"],
        "slots_4": ["node1", "node2"],
    }
    assert manager.get_host("node1").get_vars()["where"] == "rack 4"
    assert manager.groups["all"].get_vars()["fleet_file"] == str(tmp_path / "lab.fleet.yml")
    assert manager.groups["all"].get_vars()["fleet_name"] == "lab"


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("lab.fleet.yml", True),
        ("lab.fleet.yaml", True),
        ("fleet.yml", False),
        ("lab.fleet.yml.bak", False),
        ("labfleet.yml", False),
        ("lab.fleet.json", False),
    ],
)
def test_which_files_are_fleet_files(tmp_path: Path, name: str, taken: bool) -> None:
    (tmp_path / name).write_text(FLEET)
    assert inventory_loader.get("ipyfleet.cluster.fleet").verify_file(str(tmp_path / name)) is taken


def test_localhost_is_reached_without_ssh(tmp_path: Path) -> None:
    manager = inventory(tmp_path, "plugin: ipyfleet.cluster.fleet\nname: x\nscope: user\ncontroller: localhost\nengines: {localhost: 1}\n")
    assert manager.get_host("localhost").get_vars()["ansible_connection"] == "local"


def test_other_sources_add_variables(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "ipp_engine.yml").write_text("ipp_engine_env: {A: b}\n")
    manager = inventory(tmp_path)
    assert manager.get_host("node1").get_vars()["ipp_engine_slots"] == 4
    listed = command("ansible-inventory", "-i", str(tmp_path / "lab.fleet.yml"), "--host", "node1")
    assert json.loads(listed.stdout)["ipp_engine_env"] == {"A": "b"}


def test_values_are_plain_json_and_templates_work(tmp_path: Path) -> None:
    (tmp_path / "lab.fleet.yml").write_text(FLEET)
    listed = command("ansible-inventory", "-i", str(tmp_path / "lab.fleet.yml"), "--list")
    assert listed.returncode == 0, listed.stderr
    assert "__ansible_unsafe" not in listed.stdout
    said = command("ansible", "-i", str(tmp_path / "lab.fleet.yml"), "head", "-m", "debug", "-a", "var=ansible_host", "-c", "local")
    assert "10.0.0.5" in said.stdout


def test_a_wrong_file_is_an_error_of_ansible_s_in_other_programs(tmp_path: Path) -> None:
    (tmp_path / "x.fleet.yml").write_text("plugin: ipyfleet.cluster.fleet\nname: X\n")
    plugin = inventory_loader.get("ipyfleet.cluster.fleet")
    with pytest.raises(AnsibleError, match="name: expected"):
        plugin.parse(InventoryManager(loader=DataLoader(), sources=[])._inventory, DataLoader(), str(tmp_path / "x.fleet.yml"))


WRONG = "plugin: fleet\nname: lab\ncontroler: head\nengines: {a: 0}\n"


@pytest.mark.parametrize("program", ["ansible-inventory", "ansible-playbook"])
@pytest.mark.parametrize("strict", ["true", "false"])
def test_a_wrong_file_ends_a_command_with_its_problems_and_nothing_else(tmp_path: Path, program: str, strict: str) -> None:
    path = tmp_path / "lab.fleet.yml"
    path.write_text(WRONG)
    more = ["--list"] if program == "ansible-inventory" else ["site.yml"]
    said = command(program, "-i", str(path), *more, ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=strict, ANSIBLE_NOCOLOR="1")
    assert said.returncode == 1
    assert said.stderr.splitlines() == [
        f"[ERROR]: {path}:1: controller: expected a host name, got nothing",
        f"[ERROR]: {path}:3: controler: unknown key; did you mean `controller`?",
        f"[ERROR]: {path}:4: engines.a: expected a number of slots from 1 on, or `auto`, got 0",
        f"[ERROR]: {path}: 3 problems; nothing was changed",
    ]
    assert said.stdout.strip() == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plugin: fleet\nname: [lab\n", ":3: expected YAML, got: expected ',' or ']', but got '<stream end>'"),
        ("", ":1: expected a mapping of keys"),
        ("plugin: fleet\n\tname: lab\n", ":2: expected YAML, got: found character '\\t' that cannot start any token"),
        (f"{WRONG}compose: [a]\n", ":4: engines.a"),
        ("plugin: fleet\nname: lab\ncontroller: a\nengines: {a: 1}\ncompose: [a]\n", "compose"),
        ("plugin: fleet\nname: lab\ncontroller: a\nengines: {a: 1}\nstrict: true\ncompose: {x: nope + 1}\n", "nope"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "lab.fleet.yml"
    path.write_text(text)
    said = command("ansible-inventory", "-i", str(path), "--list", ANSIBLE_NOCOLOR="1")
    assert said.returncode == 1
    assert expected in said.stderr
    assert "Traceback" not in said.stderr
    assert "'ini' plugin" not in said.stderr


def test_one_fleet_in_a_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.fleet.yml").write_text(f"plugin: fleet\nname: {name}\ncontroller: head\nengines: {{head: 1}}\n")
    said = command("ansible-inventory", "-i", str(tmp_path / "a.fleet.yml"), "-i", str(tmp_path / "b.fleet.yml"), "--list")
    assert said.returncode == 1
    assert "expected one fleet in a run, got `b` beside that of" in said.stderr


def test_documentation_is_complete() -> None:
    said = command("ansible-doc", "-t", "inventory", "ipyfleet.cluster.fleet", "--json")
    options = json.loads(said.stdout)["ipyfleet.cluster.fleet"]["doc"]["options"]
    from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import TOP

    assert set(TOP) <= set(options)
    assert "EXAMPLES" in command("ansible-doc", "-t", "inventory", "ipyfleet.cluster.fleet").stdout
