"""The shape of the repository, as far as it can be checked."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import links
import pytest
import yaml
from ansible.plugins.loader import action_loader
from ansible_collections.ipyfleet.cluster.plugins.filter.fleet import FilterModule
from conftest import ROOT

TASKS = sorted(ROOT.glob("roles/*/tasks/*.yml"))
PLAYBOOKS = sorted(ROOT.glob("playbooks/*.yml"))
DOC = re.compile(r'^(?P<key>[A-Z]+) = r"""\n(?P<text>.*?)"""', re.DOTALL | re.MULTILINE)
FILTERS = sorted(FilterModule().filters())
TEMPLATES = sorted(ROOT.glob("templates/*/*.j2"))


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_a_clone_is_the_collection_too() -> None:
    """Whatever has the collection's name in a clone is found through links in collections/; each file needs its own."""
    assert links.present() == links.wanted(), "run tools/links.py"


def own(kind: str) -> list[str]:
    return [path.stem for path in ROOT.glob(f"plugins/{kind}/*.py")]


def test_own_plugins_are_called_by_their_full_names() -> None:
    """Short names are found in a clone's or in the collection's own files, but not in both."""
    calls = re.compile(rf"^\s+(?:{'|'.join(own('action'))}):$", re.MULTILINE)
    filters = re.compile(rf"\|\s*(?:{'|'.join(FILTERS)})\b")
    files = [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/*/*.yml"), *TEMPLATES]
    assert not [f"{path}: {found[0]}" for path in files if (found := calls.search(path.read_text()) or filters.search(path.read_text()))]


@pytest.mark.parametrize("name", sorted(own("action")))
def test_options_of_a_task_are_those_that_are_documented(name: str) -> None:
    """An action plugin is documented in the module of its name: what a task may say, not what the module gets."""
    module = (ROOT / "plugins" / "modules" / f"{name}.py").read_text()
    parts = {each["key"]: yaml.safe_load(each["text"]) for each in DOC.finditer(module)}
    documented, examples = parts["DOCUMENTATION"], parts["EXAMPLES"]
    taken = set(action_loader.get(f"ipyfleet.cluster.{name}", class_only=True)._VALID_ARGS)
    assert set(documented["options"]) == taken
    required = {key for key, option in documented["options"].items() if option.get("required")}
    for example in examples:
        assert required <= set(example[f"ipyfleet.cluster.{name}"]) <= taken


def test_there_is_no_link_to_a_folder() -> None:
    listed = subprocess.run(["git", "ls-files", "-s"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    links = [ROOT / line.split("\t", 1)[1] for line in listed if line.startswith("120000")]
    assert links
    assert not [link for link in links if link.is_dir()]


@pytest.mark.parametrize("path", TASKS, ids=names(TASKS))
def test_task_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", PLAYBOOKS, ids=names(PLAYBOOKS))
def test_playbooks_open_with_how_to_use_them(path: Path) -> None:
    head = path.read_text().split("\n- ")[0]
    assert re.search(r"#\s+ansible-playbook -i lab\.fleet\.yml ", head)


@pytest.mark.parametrize("path", TEMPLATES, ids=names(TEMPLATES))
def test_templates_say_who_manages_the_file(path: Path) -> None:
    text = path.read_text()
    without_comments = (
        "backup.json.j2",
        "curve.json.j2",
        "engine.json.j2",
        "ipcontroller-client.json.j2",
        "ipcontroller-engine.json.j2",
        "hardening.j2",
        "passwords.json.j2",
        "start-here.ipynb.j2",  # its user's from then on
        "token.j2",
        "held.j2",  # a macro
        "ssh_key.j2",
    )
    assert "ansible_managed" in text or path.name in without_comments


def test_every_verb_of_the_playbooks_is_documented() -> None:
    text = "\n".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
    assert not [path.name for path in PLAYBOOKS if path.stem not in text]


def test_changelog_fragments_are_of_known_sections() -> None:
    config = yaml.safe_load((ROOT / "changelogs" / "config.yaml").read_text())
    known = {section[0] for section in config["sections"]} | {config["prelude_section_name"], config["trivial_section_name"]}
    for path in ROOT.glob("changelogs/fragments/*.yml"):
        assert set(yaml.safe_load(path.read_text())) <= known, path


def test_no_merge_is_left_half_done() -> None:
    found = subprocess.run(["git", "grep", "-lE", "^(<{7} |>{7} |={7}$)"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_nothing_in_the_tree_keeps_a_key() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert not [name for name in listed if ".ipyfleet/" in name or name.endswith(("secrets.json", "id_ed25519"))]
