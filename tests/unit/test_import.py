"""`ipyfleet import`: the fleet file that it writes is the configuration's fleet, and it says what became of everything."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_files
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import read_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import positions
from conftest import ROOT
from test_ipcluster_config import CASES, NAMES, case_of, profile
from typer.testing import CliRunner, Result

from ipyfleet.cli.app import app
from ipyfleet.cli.importing import told
from ipyfleet.configuration import read_configuration
from ipyfleet.description import fleet_text
from ipyfleet.errors import InputError

GOOD = [path for path in CASES if "fleet" in case_of(path)["expected"]]


def typed(*words: str) -> Result:
    """What somebody gets who types `ipyfleet import` and these words."""
    return CliRunner().invoke(app, ["import", *words])


def problems(result: Result) -> list[str]:
    """What an input error says."""
    assert isinstance(result.exception, InputError), result.output
    return list(result.exception.problems)


def folder_of(name: str, tmp_path: Path) -> Path:
    """The profile of one of the cases."""
    return profile(tmp_path, case_of(CASES[NAMES.index(name)])["files"])


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_the_text_is_a_fleet_file_of_the_same_fleet(path: Path, tmp_path: Path) -> None:
    case = case_of(path)
    folder, given = profile(tmp_path, case["files"]), case.get("given", {})
    found = read_configuration(folder, given)
    text = fleet_text(found.description)
    direct, _ = ipcluster_files.read(str(folder), given)
    assert read_fleet(yaml.safe_load(text), "ssh.fleet.yml", positions(text)) == direct
    for note in found.left:
        assert f"#   {note}\n" in text


def test_lines_of_the_file_say_where_they_come_from(tmp_path: Path) -> None:
    text = fleet_text(read_configuration(folder_of("controller_settings", tmp_path), {}).description)
    assert "\ncontroller: {host: localhost, ip: 10.0.0.5, location: 10.0.0.5}  # ipcluster_config.py:2, ipcontroller_config.py:2\n" in text
    assert "\n  node1: 2  # ipcluster_config.py:3\n" in text
    assert "\n  ipp_controller_heartbeat_period: 90000  # ipcontroller_config.py:11\n" in text
    assert "a secret" not in text
    assert "another secret" not in text


def test_a_file_is_written_and_what_is_not_in_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of("post", tmp_path)
    monkeypatch.chdir(tmp_path)
    result = typed("profile_ssh", "--location", "10.0.0.11", "--user", "ops", "--engine", "node9=3")
    assert result.exit_code == 0, result.output
    carried, left = result.output.split("Not carried over:\n")
    assert "  ipcluster_config.py:6: SSHEngineSetLauncher.engines['host@10.0.0.12']: engines.host@10.0.0.12: 2\n" in carried
    assert left.startswith(
        "  ipcluster_config.py:6: SSHEngineSetLauncher.engines['host@10.0.0.12']['args']: --profile_dir: profiles are made"
    )
    assert "Wrote ssh.fleet.yml." in left
    written = yaml.safe_load((tmp_path / "ssh.fleet.yml").read_text())
    assert (written["name"], written["controller"]) == ("ssh", {"host": "localhost", "location": "10.0.0.11"})
    assert (written["engines"], written["defaults"]) == ({"host@10.0.0.12": 2, "node9": 3}, {"ansible_user": "ops"})
    again = typed(str(folder / "ipcluster_config.py"), "--location", "x")
    assert problems(again) == ["ssh.fleet.yml: expected a new file, got one that is there; --force overwrites it"]
    assert written == yaml.safe_load((tmp_path / "ssh.fleet.yml").read_text())


# what a template is once a shell's quotes are gone
HIDDEN = r"""'{''{ lookup(\"pipe\", \"touch MARK\") }}'"""
TEMPLATES = """
c.Cluster.engine_launcher_class = "ssh"
c.IPController.location = "head"
c.SSHLauncher.ssh_args = "-l HIDDEN -o Tag=HIDDEN"
c.SSHLauncher.environment = {"A{{ lookup('pipe', 'touch MARK') }}": "a"}
c.SSHEngineSetLauncher.engines = {"node1": {"n": 1, "ssh_args": "-i HIDDEN"}}
"""


def test_no_template_gets_in_by_way_of_quotes_or_keys(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = profile(tmp_path, {"ipcluster_config.py": TEMPLATES.replace("HIDDEN", HIDDEN).replace("MARK", str(mark))})
    result = typed(str(folder), "-o", str(tmp_path / "lab.fleet.yml"))
    assert result.exit_code == 0, result.output
    assert not mark.exists()
    written = yaml.safe_load((tmp_path / "lab.fleet.yml").read_text())
    assert "{{" not in json.dumps(written)
    assert result.output.count("would begin a template") == 3


def test_an_environment_of_engines_is_no_reason_to_refuse(tmp_path: Path) -> None:
    text = 'c.SSHLauncher.environment = {"A": "a"}\nc.SSHEngineSetLauncher.engines = {"n1": 1}\nc.IPController.location = "head"\n'
    folder = profile(tmp_path, {"ipcluster_config.py": text})
    result = typed(str(folder), "--strict", "-o", str(tmp_path / "lab.fleet.yml"))
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((tmp_path / "lab.fleet.yml").read_text())["defaults"] == {"ipp_engine_env": {"A": "a"}}


def test_json_says_what_became_of_each_setting(tmp_path: Path) -> None:
    folder = folder_of("post", tmp_path)
    result = typed(str(folder), "--controller", "head", "--strict", "--json", "-o", str(tmp_path / "lab.fleet.yml"))
    said = json.loads(result.output)
    assert result.exit_code == 1
    assert (said["schema"], said["written"], said["name"]) == (1, None, "lab")
    assert [each["setting"] for each in said["carried"]] == [
        "IPClusterEngines.engine_launcher",
        "SSHEngineSetLauncher.engines['host@10.0.0.12']",
        "HubFactory.ip",
    ]
    assert said["left"] == [
        {
            "file": f"{folder}/ipcluster_config.py",
            "line": 6,
            "setting": "SSHEngineSetLauncher.engines['host@10.0.0.12']['args']: --profile_dir",
            "text": "profiles are made on each host, named like the fleet",
        }
    ]
    assert not (tmp_path / "lab.fleet.yml").exists()
    wrong = problems(typed(str(folder), "--controller", "head", "--name", "Lab"))
    assert wrong[0].endswith(
        "ipcluster_config.py:1: name: expected lower-case letters, digits and dashes, at most 20, a letter first, got 'Lab'"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none"], "none:1: expected an ipcluster_config.py, got no such file"),
        (["."], "./ipcluster_config.py:1: expected an ipcluster_config.py, got no such file"),
        (["none", "-o", "x.yml"], "x.yml: expected a name that ends in .fleet.yml or .fleet.yaml, got x.yml"),
        (["none", "--engine", "n1=two"], "--engine n1=two: expected a number of engines after =, or `auto`, got 'two'"),
    ],
)
def test_what_is_said_wrong_is_told_in_a_line(words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems(typed(*words)) == [expected]
    assert list(tmp_path.iterdir()) == []


def test_the_page_shows_what_is_said(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "coming-from-ipcluster.md").read_text()
    (config,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (more,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    folder = profile(tmp_path, {"ipcluster_config.py": config, "ipcontroller_config.py": "c.HubFactory.ip = '*'\n"})
    with pytest.raises(InputError) as caught:
        read_configuration(folder, {})
    assert str(caught.value).replace(str(tmp_path), "/home/ops/.ipython") in page
    (folder / "ipcontroller_config.py").unlink()
    assert told(read_configuration(folder, {"controller": {"location": "10.0.0.11"}})) in page
    given = {key: value for key, value in yaml.safe_load(more).items() if key not in ("plugin", "path")}
    assert ipcluster_files.read(str(folder), given)[0].groups["postgresql"] == ("db",)
