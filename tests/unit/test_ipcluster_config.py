"""Configurations of ipyparallel as fleets: a file for each, with what becomes of it; and what they may never do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_files, ipcluster_names, ipcluster_words
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import FleetFileError
from test_inventory_plugin import command

CASES = sorted(Path(__file__).with_name("ipcluster").glob("*.yml"))
NAMES = [path.stem for path in CASES]
HARMFUL = """
import os, subprocess
from pathlib import Path as P
os.system("touch {mark}")
__import__("os").system("touch {mark}")
P("{mark}").touch()
open("{mark}", "w").close()
exec("open('{mark}', 'w')")
c = get_config()
c.Cluster.engine_launcher_class = "ssh"
c.Cluster.controller_location = open("{mark}", "w").name
c.IPController.location = "head"
c.SSHEngineSetLauncher.engines = {{"node1": 2, "node2": os.system("touch {mark}"), "node3": (lambda: open("{mark}", "w"))()}}
c.SSHEngineSetLauncher.engines[f"{{open('{mark}', 'w')}}"] = 1
c.SSHEngineSetLauncher.engine_args = [subprocess.getoutput("touch {mark}") for _ in range(3)]
for each in os.popen("touch {mark}"):
    c.Cluster.n = each
if P("{mark}").write_text("x"):
    c.Cluster.n = 2
class Touch:
    open("{mark}", "w")
@os.system
def decorated(name=open("{mark}", "w")): ...
with open("{mark}", "w") as stream:
    c.Cluster.n = 3
assert open("{mark}", "w")
c.SSHLauncher.user = "{{0.__class__}}".format(c) + ().__class__.__bases__[0].__subclasses__()
"""


def profile(tmp_path: Path, files: dict[str, str]) -> Path:
    """A folder of a profile with these files."""
    folder = tmp_path / "profile_ssh"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def case_of(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", CASES, ids=NAMES)
def test_what_becomes_of_a_configuration(path: Path, tmp_path: Path) -> None:
    case = case_of(path)
    folder = profile(tmp_path, case["files"])
    expected = case["expected"]
    if "problems" in expected:
        with pytest.raises(FleetFileError) as caught:
            ipcluster_files.read(str(folder), case.get("given", {}))
        assert [str(each).removeprefix(f"{folder}/") for each in caught.value.problems] == expected["problems"]
        return
    _, found = ipcluster_files.read(str(folder), case.get("given", {}))
    assert found.data == {"plugin": "fleet", **expected["fleet"]}
    assert [str(each) for each in found.left] == expected["left"]


@pytest.mark.parametrize("path", [path for path in CASES if "fleet" in case_of(path)["expected"]], ids=lambda path: path.stem)
def test_no_setting_gets_lost_unsaid(path: Path, tmp_path: Path) -> None:
    case = case_of(path)
    folder = profile(tmp_path, case["files"])
    _, found = ipcluster_files.read(str(folder), case.get("given", {}))
    said = "\n".join(str(each) for each in [*found.carried, *found.left])
    for each in ipcluster_files.settings(f"{folder}/ipcluster_config.py").found.values():
        assert " ".join(each.name.split()) in said, each.name


def test_nothing_of_a_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = profile(tmp_path, {"ipcluster_config.py": HARMFUL.format(mark=mark)})
    (folder / "ipcluster_config.py").chmod(0o755)
    fleet, found = ipcluster_files.read(str(folder), {})
    assert fleet.groups["ipp_engine"] == ("node1",)
    assert len(found.left) >= 8
    said = command("ansible-inventory", "-i", str(folder / "ipcluster_config.py"), "--list")
    assert said.returncode == 0, said.stderr
    assert "node1" in json.loads(said.stdout)["_meta"]["hostvars"]
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "c.SSHLauncher.user = 'a' * 10**9",
        "c.SSHLauncher.user = 'a' * 1000000000",
        "c.SSHLauncher.user = '%999999999d' % 1",
        "c.SSHLauncher.user = '{:999999999}'.format(1)",
        "c.SSHLauncher.user = f'{1:999999999}'",
        "c.SSHLauncher.user = '1'.zfill(999999999)",
        "c.SSHLauncher.user = '%*d' % (10**10, 1)",
        "c.SSHLauncher.user = '%*d' % (10000000000, 1)",
        "c.SSHLauncher.user = b'%99999999999d' % 1",
        "c.SSHLauncher.user = ('x' * 10000).join(['y' * 10] * 10000)",
        "c.SSHLauncher.user = ('a' * 10000).replace('a', 'b' * 10000)",
        "c.SSHLauncher.user = ('{0}' * 3000).format('a' * 10000)",
        "s = 'a' * 10000\nfor i in range(9999):\n    t = ('{0}' * 3000).format(s)",
        "a = [0] * 10000; b = [a] * 10000; d = [b] * 10000\nc.SSHLauncher.user = str(d)",
        "x = [1]\nfor _ in range(40):\n    x = [x, x]\nc.IPController.ip = x\nc.SSHLauncher.user = f'{x}'",
        "x = (1,)\nfor _ in range(40):\n    x = (x, x)\nc.SSHLauncher.user = {x}\nc.IPController.ip = {x: 1}",
        "x = [1]\nfor _ in range(60):\n    x.extend(x)\nc.IPController.ip = x",
        "x = 7\nfor _ in range(9999):\n    x *= x\nc.IPController.ip = x",
        "x = [1]\nfor each in x:\n    x.append(each)\nc.IPController.ip = x",
        "for i in range(9999):\n  for j in range(9999):\n    unknown(c, i, j)",
        "x = []\nx.append(x)\nc.IPController.ip = x\nc.SSHLauncher.ssh_args = x\nc.SSHLauncher.environment = {'A': x}",
        "x = []\nfor _ in range(9999):\n    x = [x]\nc.IPController.ip = x\nc.SSHLauncher.ssh_args = x",
        "def f():\n    c.HeartMonitor.period[f()] = f()\nf()",
        "c.Cluster.n = [0 for a in range(9999) for b in range(9999) for d in range(9999)]",
        "x = 7\nfor i in range(9999):\n    x = x * x\nc.Cluster.n = x",
        "for i in range(9999):\n  for j in range(9999):\n    for k in range(9999):\n      pass\n",
        "c.Cluster.n = " + "(" * 5000 + "1" + ")" * 5000,
        "c.Cluster.n = " + "-" * 5000 + "1",
        "x = " + "[" * 80 + "]" * 80,
    ],
)
def test_a_file_cannot_keep_its_reader_busy(text: str, tmp_path: Path) -> None:
    folder = profile(tmp_path, {"ipcluster_config.py": text})
    try:
        _, found = ipcluster_files.read(str(folder), {})
    except FleetFileError as error:
        assert len(str(error).splitlines()) == 1
        assert "nested" in str(error) or "recursion" in str(error)
    else:
        assert found.data["engines"] == {"localhost": "auto"}


@pytest.mark.parametrize("content", [b"\xff\xfe", b"c.A.b = 1\0", "# coding: latin-1\nc.A.b = 'ä'".encode("latin-1"), b"# coding: nope\n"])
def test_bytes_that_are_no_text_are_told_in_a_line(content: bytes, tmp_path: Path) -> None:
    folder = profile(tmp_path, {})
    (folder / "ipcluster_config.py").write_bytes(content)
    if b"latin" in content:
        ipcluster_files.read(str(folder), {})
        return
    with pytest.raises(FleetFileError, match=r"ipcluster_config.py:\d+: expected Python 3, got: "):
        ipcluster_files.read(str(folder), {})


@pytest.mark.parametrize(
    ("folder", "name"),
    [("profile_ssh", "ssh"), ("profile_My Lab_2", "my-lab-2"), ("profile_42", "lab"), ("conf", "lab"), ("profile_x" * 9, None)],
)
def test_a_fleet_is_called_like_its_profile(folder: str, name: str | None, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "ipcluster_config.py").touch()
    fleet, _ = ipcluster_files.read(str(tmp_path / folder), {})
    assert fleet.name == name or name is None


def test_files_of_another_name_have_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "old_ipcluster_config.py").write_text("c.SSHEngineSetLauncher.engines = {'a': 1}")
    (tmp_path / "old_ipcontroller_config.py").write_text("c.HubFactory.location = 'head'")
    (tmp_path / "ipcontroller_config.py").write_text("c.HubFactory.location = 'other'")
    _, found = ipcluster_files.read(str(tmp_path / "old_ipcluster_config.py"), {})
    assert found.data["controller"] == {"host": "localhost", "location": "head"}


@pytest.mark.parametrize("name", sorted(ipcluster_names.TAKEN))
def test_settings_that_are_taken_over_are_those_of_today(name: str) -> None:
    """What a fleet is told to set exists in the ipyparallel that it deploys."""
    from ipykernel.zmqshell import ZMQInteractiveShell
    from ipyparallel.controller.app import IPController
    from ipyparallel.engine.app import IPEngine

    there = {each.__name__: each for each in [IPController, IPEngine, ZMQInteractiveShell, *IPController().classes, *IPEngine().classes]}
    cls, trait = name.split(".")
    assert trait in there[cls].class_trait_names(config=True)
    assert ipcluster_names.today(cls, trait) == (cls, trait)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("IPython.parallel.apps.launcher.SSHEngineSetLauncher", "ssh"),
        ("ipyparallel.cluster.launcher:SSHEngineSetLauncher", "ssh"),
        ("SSHEngineSet", "ssh"),
        ("SSH", "ssh"),
        ("SSHProxyEngineSetLauncher", "sshproxy"),
        ("Local", "local"),
        ("LocalEngineSetLauncher", "local"),
        ("MPIExecEngineSetLauncher", "mpi"),
        ("ipyparallel.apps.launcher.MPI", "mpi"),
        ("WindowsHPCEngineSetLauncher", "winhpc"),
        ("PBSControllerLauncher", "pbs"),
    ],
)
def test_launchers_by_all_their_names(name: str, short: str) -> None:
    assert ipcluster_names.launcher(name) == short


def test_arguments_of_ssh_become_variables() -> None:
    words = [
        "-p2222",
        "-l",
        "ada",
        "-i",
        "one",
        "-i",
        "two",
        "-o",
        "IdentityFile three",
        "-o",
        "ServerAliveInterval=5",
        "-AXv",
        "-J",
        "gate",
        "x",
    ]
    found = ipcluster_words.connection([*words, "-L", "1:a:1", "-oStrictHostKeyChecking=yes", "-o", "LocalCommand=touch x", "-p"])
    assert found.variables == {
        "ansible_port": 2222,
        "ansible_user": "ada",
        "ansible_ssh_private_key_file": "one",
        "ansible_ssh_common_args": "-i two -o 'IdentityFile three' -o ServerAliveInterval=5 -A -J gate -o StrictHostKeyChecking=yes",
    }
    assert [word for word, _ in found.left] == ["-AXv", "x", "-L 1:a:1", "-o LocalCommand=touch x", "-p "]


def test_what_runs_or_reads_something_at_each_connection_is_said(tmp_path: Path) -> None:
    text = """
c.Cluster.engine_launcher_class = 'ssh'
c.IPController.location = 'head'
c.SSHLauncher.ssh_args = ['-o', 'ProxyCommand=nc %h %p', '-F', '/tmp/settings', '-J', 'gate']
c.SSHEngineSetLauncher.engines = {'n1': 1, 'n2': {'n': 1, 'ssh_args': '-o "KnownHostsCommand keys" -p 22'}}
"""
    _, found = ipcluster_files.read(str(profile(tmp_path, {"ipcluster_config.py": text})), {})
    carried = [str(each).removeprefix("ipcluster_config.py:") for each in found.carried]
    everywhere = "defaults.ansible_ssh_common_args; ssh"
    assert f"4: SSHLauncher.ssh_args: -o ProxyCommand=nc %h %p: {everywhere} runs this on the machine that you deploy from" in carried
    assert f"4: SSHLauncher.ssh_args: -F /tmp/settings: {everywhere} reads this file on the machine that you deploy from" in carried
    assert "5: SSHEngineSetLauncher.engines['n2']['ssh_args']: hosts.n2.ansible_port" in carried
    assert [each for each in carried if "KnownHostsCommand" in each and "runs this" in each]
    assert not [each for each in carried if "gate" in each]


PLUGIN = """
plugin: ipcluster_config
path: profile_ssh
controller: {location: "10.0.0.11"}
engines: {node9: 3}
defaults: {ansible_user: "{{ 'o' ~ 'ps' }}"}
groups: {many: ipp_engine_slots | default(0) > 2}
python_packages: [numpy]
"""


def test_the_inventory_of_a_file_and_of_one_that_says_more(tmp_path: Path) -> None:
    folder = profile(tmp_path, case_of(CASES[NAMES.index("post")])["files"])
    (tmp_path / "lab.ipcluster.yml").write_text(PLUGIN)
    said = command("ansible-inventory", "-i", str(tmp_path / "lab.ipcluster.yml"), "--list")
    assert said.returncode == 0, said.stderr
    assert said.stderr == (
        f"[WARNING]: {tmp_path}/profile_ssh: 1 setting is not carried over; -v or `ipyfleet import` says which, and what is there instead\n"
    )
    listed = json.loads(said.stdout)
    assert listed["ipp_engine"]["hosts"] == ["10.0.0.12", "node9"]
    assert listed["many"]["hosts"] == ["node9"]
    asked = command("ansible", "-i", str(tmp_path / "lab.ipcluster.yml"), "node9", "-c", "local", "-m", "debug", "-a", "var=ansible_user")
    assert "ansible_user: ops" in asked.stdout
    (folder / "ipcontroller_config.py").write_text("c.HubFactory.location = 'head'\n")
    said = command("ansible-inventory", "-v", "-i", str(folder / "ipcluster_config.py"), "--graph")
    assert "not carried over: ipcluster_config.py:6: SSHEngineSetLauncher.engines['host@10.0.0.12']['args']: --profile_dir: " in said.stdout
    assert "--10.0.0.12" in said.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plugin: ipcluster_config\npath: none\n", "none:1: expected an ipcluster_config.py, got no such file"),
        ("plugin: ipcluster_config\n", "lab.ipcluster.yml:1: path: expected the path of an ipcluster_config.py, got nothing"),
        ("plugin: fleet\npath: profile_ssh\n", "lab.ipcluster.yml:1: plugin: expected `ipcluster_config`, got 'fleet'"),
        ("plugin: ipcluster_config\npath: profile_ssh\nnaem: x\n", "lab.ipcluster.yml:3: naem: unknown key; did you mean `name`?"),
        ("plugin: ipcluster_config\npath: profile_ssh\nname: X\n", "lab.ipcluster.yml:3: name: expected lower-case letters"),
        (
            "plugin: ipcluster_config\npath: profile_ssh\nname: x\nengines: {localhost: 0}\n",
            "lab.ipcluster.yml:4: engines.localhost: expected a number",
        ),
        ("plugin: ipcluster_config\npath: profile_ssh\nname: x\nname: y\n", "lab.ipcluster.yml:4: name: stands twice, on lines 3 and 4"),
        ("plugin: ipcluster_config\npath: profile_ssh\nname: x\nengines: 3\n", "lab.ipcluster.yml:4: engines: expected a mapping of hosts"),
        ("- a\n", "lab.ipcluster.yml:1: expected a mapping of keys"),
        ("plugin: [\n", "lab.ipcluster.yml:2: expected YAML, got: "),
    ],
)
def test_a_wrong_file_is_told_with_its_problems(text: str, expected: str, tmp_path: Path) -> None:
    profile(tmp_path, {"ipcluster_config.py": "c.Cluster.n = 2\n"})
    (tmp_path / "lab.ipcluster.yml").write_text(text)
    plugin = inventory_loader.get("ipyfleet.cluster.ipcluster_config")
    with pytest.raises(AnsibleError) as caught:
        plugin.parse(InventoryManager(loader=DataLoader(), sources=[])._inventory, DataLoader(), str(tmp_path / "lab.ipcluster.yml"))
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("ipcluster_config.py", True),
        ("old_ipcluster_config.py", True),
        ("lab.ipcluster.yml", True),
        ("lab.ipcluster.yaml", True),
        ("ipcontroller_config.py", False),
        ("ipcluster_config.py.bak", False),
        ("ipcluster_config.json", False),
        ("ipcluster.yml", False),
        ("lab.fleet.yml", False),
    ],
)
def test_which_files_are_configurations(tmp_path: Path, name: str, taken: bool) -> None:
    (tmp_path / name).touch()
    assert inventory_loader.get("ipyfleet.cluster.ipcluster_config").verify_file(str(tmp_path / name)) is taken


def test_a_wrong_file_ends_a_command(tmp_path: Path) -> None:
    folder = profile(tmp_path, {"ipcluster_config.py": "c.Cluster.n = -1\n"})
    said = command("ansible-playbook", "-i", str(folder / "ipcluster_config.py"), "site.yml", ANSIBLE_NOCOLOR="1")
    assert said.returncode == 1
    assert said.stderr.splitlines() == [
        f"[ERROR]: {folder}/ipcluster_config.py:1: engines.localhost: expected a number of slots from 1 on, or `auto`, got -1",
        f"[ERROR]: {folder}/ipcluster_config.py: 1 problem; nothing was changed",
    ]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    said = command("ansible-inventory", "-i", str(tmp_path / "ipcluster_config.py"), "--list", ANSIBLE_NOCOLOR="1")
    assert said.returncode == 1
    assert said.stderr.startswith(f"[ERROR]: {tmp_path}/ipcluster_config.py: expected a configuration of ipcluster, got no such file\n")
