"""The inventory plugin engines: what the running controller has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import INVENTORY, NAME, ROOT, environ, eventually, play, python, shell


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "live.engines.yml"
    path.write_text(f"plugin: engines\nfleet: {INVENTORY}\ntimeout: 20\nengine_timeout: 20\n")
    yield path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT, env=environ())


def listed(path: Path) -> dict[str, Any]:
    said = command("ansible-inventory", "-i", str(path), "--list")
    assert said.returncode == 0, said.stderr
    return dict(json.loads(said.stdout))


def on(name: str) -> list[int]:
    return list(python("head", f"print(json.dumps([n for n in rc.ids if rc[n].apply_sync(os.uname).nodename == {name!r}]))", user="ops"))


def test_hosts_with_what_their_engines_do(live: Path) -> None:
    number = on("node2")[0]
    python("head", f"import time; rc[{number}].apply_async(time.sleep, 3600); time.sleep(1); print('null')", user="ops")
    try:
        found = listed(live)
        said = command("ansible", "-i", str(live), "engines_idle", "-m", "ansible.builtin.command", "-a", "hostname")
    finally:
        shell("node2", f"systemctl restart ipyfleet-{NAME}-engine@0")
    assert found["engines_busy"]["hosts"] == ["node2"]
    assert set(found["engines_idle"]["hosts"]) == {"node1", "node2"}
    # it was never deployed
    assert found["engines_missing"]["hosts"] == ["old"]
    (engine,) = [each for each in found["_meta"]["hostvars"]["node2"]["engines"] if each["id"] == number]
    assert (engine["id"], engine["state"], engine["slot"], engine["pid"]) == (number, "busy", 0, None)
    idle = found["_meta"]["hostvars"]["node1"]["engines"]
    assert {each["hostname"] for each in idle} == {"node1"}
    assert {each["pid"] for each in idle} <= {
        int(pid) for pid in shell("node1", f"systemctl show -P MainPID 'ipyfleet-{NAME}-engine@*'").split()
    }
    # and one does something on those that have nothing to do
    assert said.returncode == 0, said.stdout
    assert "node1" in said.stdout
    assert "old |" not in said.stdout


def test_a_controller_that_does_not_run_is_an_error_and_no_empty_inventory(live: Path) -> None:
    shell("head", f"systemctl stop ipyfleet-{NAME}-controller")
    try:
        said = command("ansible-inventory", "-i", str(INVENTORY), "-i", str(live), "--list")
    finally:
        shell("head", f"systemctl start ipyfleet-{NAME}-controller")
    assert said.returncode == 1
    assert f"[ERROR]: {live}:2: fleet: expected a controller that listens at head:" in said.stderr
    assert "and through ssh to head, which answers: expected a controller that listens at" in said.stderr
    assert said.stdout == ""
    eventually(lambda: len(on("node2")) == 3)
    assert play("--limit=localhost:all:!old", playbook="playbooks/status.yml").returncode == 0
