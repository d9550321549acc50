"""The documentation: up to date, its links lead somewhere, and its commands are ones that work."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import read_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import positions
from conftest import ROOT
from typer.testing import CliRunner

from ipyfleet.cli.app import app

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "molecule" / "README.md"]
FLEET = re.search(r"```yaml\n(# lab\.fleet\.yml\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def commands() -> list[str]:
    """Every command line of the pages: indented blocks, and those in tables and text."""
    found = []
    for page in PAGES:
        text = page.read_text()
        found += [line.strip() for line in text.splitlines() if line.startswith("    ")]
        found += re.findall(r"`((?:ansible|bin/|ipyfleet |systemctl)[^`]*)`", text)
    return sorted({re.sub(r"\s+#.*", "", line) for line in found})


def test_the_reference_is_up_to_date() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run tools/reference.py"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_fleet_files_of_the_pages_are_right(page: Path) -> None:
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        if re.search(r"plugin: (ipyfleet\.cluster\.)?fleet$", text, re.MULTILINE):
            read_fleet(yaml.safe_load(text), page.name, positions(text))


KNOWN = {
    "bin/demo": "tests/fresh",
    "bin/demo --remove": "tests/fresh",
    "bin/test": "what runs this",
    "bin/test lint unit": "what runs this",
    "bin/test scenario=default": "what runs this",
    "bin/test scenario=NAME": "what runs this",
}


def runnable() -> list[str]:
    return [line for line in commands() if line.startswith(("ansible-playbook ", "ansible-inventory ", "ansible-doc "))]


def test_there_are_commands_to_try() -> None:
    assert len(runnable()) >= 8
    assert [line for line in commands() if line.startswith("bin/")] == sorted(KNOWN)


@pytest.mark.parametrize("line", runnable())
def test_commands_of_the_pages_are_understood(line: str, tmp_path: Path) -> None:
    """Playbooks, options and hosts that they name exist; scenarios run the playbooks themselves."""
    assert FLEET
    (tmp_path / "lab.fleet.yml").write_text(FLEET[1])
    (tmp_path / "profile_ssh").mkdir()
    (tmp_path / "profile_ssh" / "ipcluster_config.py").touch()
    line = line.replace("~/.ipython", str(tmp_path))
    words = [str(tmp_path / "lab.fleet.yml") if word == "lab.fleet.yml" else word for word in shlex.split(re.sub(r"\[.*?\]", "", line))]
    more = ["--syntax-check"] if words[0] == "ansible-playbook" else []
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = subprocess.run([*words, *more], capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PATH": path})
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("ipyfleet ")])
def test_lines_of_the_command_are_understood(line: str) -> None:
    """Verbs and options that they name exist; scenarios run the verbs themselves."""
    words = shlex.split(line)[1:]
    words = words[: words.index("--")] if "--" in words else words
    # on its way to the help, everything before it is read
    said = CliRunner().invoke(app, [word for word in words if word != "VERB"] + ["--help"])
    assert said.exit_code == 0, said.output
