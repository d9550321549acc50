"""Where the package finds playbooks, and what it tells Ansible."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

import ipyfleet
from ipyfleet import content
from ipyfleet.errors import InputError, InstallationError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of this machine's, and no ansible.cfg but the test's."""
    for name in [name for name in os.environ if name.startswith(("ANSIBLE_", "IPYFLEET_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def collection(folder: Path) -> Path:
    """A collection, as far as it is looked for."""
    top = folder / content.COLLECTION
    (top / "playbooks").mkdir(parents=True)
    (top / "roles").mkdir()
    (top / "playbooks" / "site.yml").touch()
    return top


def test_a_clone_is_its_own_tree() -> None:
    assert content.tree() == ROOT
    assert content.playbook("site") == ROOT / "playbooks" / "site.yml"


def test_an_installed_package_has_its_tree_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(content, "PACKAGE", tmp_path / "site-packages" / "ipyfleet")
    top = collection(tmp_path / "site-packages")
    assert content.tree() == top
    assert content.environ()["ANSIBLE_COLLECTIONS_PATH"].split(":")[0] == str(tmp_path / "site-packages")


def test_a_tree_is_found_on_the_path_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(content, "PACKAGE", tmp_path / "elsewhere" / "ipyfleet")
    top = collection(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert content.tree() == top


def test_no_tree_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(content, "PACKAGE", tmp_path / "elsewhere" / "ipyfleet")
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(InstallationError, match=r"^expected ansible_collections/ipyfleet/cluster beside .*, got none; .*IPYFLEET_TREE$"):
        content.tree()


def test_a_tree_can_be_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    top = collection(tmp_path)
    monkeypatch.setenv("IPYFLEET_TREE", str(top))
    assert content.tree() == top
    monkeypatch.setenv("IPYFLEET_TREE", str(tmp_path))
    with pytest.raises(InstallationError, match=f"^IPYFLEET_TREE: expected a clone .*, got {tmp_path}$"):
        content.tree()


def test_a_mistyped_playbook_is_told_from_those_that_there_are() -> None:
    with pytest.raises(InputError, match=r"^playbook: expected one of .*site, .*status, .*, got statsu; did you mean status\?$"):
        content.playbook("statsu")
    with pytest.raises(InputError, match=r"teardown.*, got xyz$"):
        content.playbook("xyz")


def test_the_version_is_that_of_the_collection() -> None:
    assert f"\nversion: {ipyfleet.__version__}\n" in (ROOT / "galaxy.yml").read_text()


def test_an_import_costs_nothing() -> None:
    code = (
        "import sys, ipyfleet; sys.exit(bool({'ansible', 'ipyparallel', 'rich', 'typer', 'yaml', 'ipyfleet.content'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT / "src").returncode == 0


def test_what_the_package_sets_is_what_a_clone_sets() -> None:
    """ansible.cfg and `content.DEFAULTS` are for two ways to the same run."""
    config = configparser.ConfigParser()
    config.read(ROOT / "ansible.cfg")
    for name, option in content.DEFAULTS.items():
        found = {config.get(section, option.key, fallback=None) for section in option.sections}
        assert found - {None} == {option.default}, name
    enabled = config["inventory"]["enable_plugins"].replace(" ", "")
    assert content.environ()["ANSIBLE_INVENTORY_ENABLED"] == enabled


def test_ours_comes_first_and_ansibles_own_places_are_kept(tmp_path: Path) -> None:
    found = content.environ()
    assert found["ANSIBLE_COLLECTIONS_PATH"] == f"{ROOT}/collections:{tmp_path}/.ansible/collections:/usr/share/ansible/collections"
    assert found["ANSIBLE_ROLES_PATH"].startswith(f"{ROOT}/roles:{tmp_path}/.ansible/roles:")
    assert found["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert "ANSIBLE_CONFIG" not in found


USERS = """
[defaults]
forks = 5
collections_path = mine
host_key_checking = False
[inventory]
enable_plugins = ini, yaml
[ssh_connection]
pipelining = False
ssh_args = -J bastion
"""


def test_what_the_user_has_set_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text(USERS)
    monkeypatch.setenv("ANSIBLE_FORKS", "7")
    found = content.environ()
    assert found["ANSIBLE_FORKS"] == "7"
    assert found["ANSIBLE_HOST_KEY_CHECKING"] == "False"
    assert found["ANSIBLE_PIPELINING"] == "False"
    assert found["ANSIBLE_SSH_ARGS"] == "-J bastion"
    assert found["ANSIBLE_INVENTORY_ENABLED"] == f"{content.INVENTORY_PLUGINS},ini,yaml"
    assert found["ANSIBLE_COLLECTIONS_PATH"] == f"{ROOT}/collections:{tmp_path}/mine"
    assert found["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] == "True"
    assert found["ANSIBLE_CONFIG"] == str(tmp_path / "ansible.cfg")


def test_settings_stay_as_they_are_when_they_are_set_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    once = content.environ()
    for name, value in once.items():
        monkeypatch.setenv(name, value)
    assert content.environ() == once


def test_an_unreadable_configuration_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").write_text("forks = 5\n")
    with pytest.raises(
        InstallationError, match=r"^expected a configuration that Ansible can read, got: .*ansible\.cfg.*no section headers.*$"
    ) as caught:
        content.environ()
    assert "\n" not in str(caught.value)


def requirements(name: str) -> dict[str, str]:
    """What a requirements file says of each package."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-r"))]
    return {Requirement(line).name.lower(): line for line in lines}


def test_requirements_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package = {Requirement(line).name: line for line in project["project"]["dependencies"]}
    control, tests = requirements("requirements.txt"), requirements("requirements-test.txt")
    assert control.items() <= package.items()
    assert package.items() <= (control | tests).items()
    assert set(project["build-system"]["requires"]) <= set(tests.values())
