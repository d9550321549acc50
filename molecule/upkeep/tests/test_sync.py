"""People's own code on engines that are in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fleet import INVENTORY, answer, command, eventually, main_pids, play, python, recap, shell

IDS = [0, 1, 2]
ASK = """
def ask():
    import importlib
    try:
        import upkeep_code
        return importlib.reload(upkeep_code).N
    except ImportError as error:
        return type(error).__name__
print(json.dumps(rc[[0, 1, 2]].apply_async(ask).get(timeout=20)))
"""


def asked() -> Any:
    """What engines import, by their ids."""
    return python("head", ASK)


def sync(folder: Path, *words: str) -> Any:
    """Bring a folder to the fleet."""
    said = command("sync", str(folder), "-i", str(INVENTORY), "--json", *words)
    assert said.returncode == 0, said.stdout + said.stderr
    return json.loads(said.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("mycode")
    (found / "upkeep_code.py").write_text("N = 1\n")
    (found / "gone.py").write_text("")
    return found


def test_a_dry_run_brings_nothing(folder: Path) -> None:
    assert sync(folder, "--check")["changed"]
    assert shell("node1", "ls /opt/ipyfleet/lab/code", check=False) == ""


def test_code_is_there_for_engines_that_start_and_nothing_is_restarted(folder: Path) -> None:
    before = main_pids()
    result = sync(folder)
    print(f"code on three hosts in {result['seconds']:.1f} s")
    assert main_pids() == before
    # those that ran before any code was there do not look for it yet
    assert asked() == ["ModuleNotFoundError"] * 3
    shell("node1", "systemctl restart ipyfleet-lab-engine@0")
    eventually(lambda: answer(IDS), 60)
    assert asked() == [1, "ModuleNotFoundError", "ModuleNotFoundError"]
    assert not sync(folder)["changed"]


def test_with_a_restart_all_engines_have_it_and_the_controller_stays(folder: Path) -> None:
    before = main_pids()
    result = sync(folder, "--restart")
    assert len([slot for slot in result["slots"] if slot["state"] == "ok"]) == 3
    after = main_pids()
    assert {unit for unit in before if after[unit] == before[unit]} == {"head ipyfleet-lab-controller.service"}
    assert asked() == [1, 1, 1]


def test_a_change_comes_by_a_reload_and_what_is_gone_goes(folder: Path) -> None:
    (folder / "upkeep_code.py").write_text("N = 22\n")
    (folder / "gone.py").unlink()
    before = main_pids()
    result = sync(folder, "--limit", "node2")
    assert [host["name"] for host in result["hosts"] if host["changes"]] == ["node2"]
    assert asked() == [1, 1, 22]
    sync(folder)
    assert asked() == [22, 22, 22]
    assert main_pids() == before
    assert shell("node1", "ls /opt/ipyfleet/lab/code") == "upkeep_code.py"


def test_a_deployment_leaves_it_alone() -> None:
    before = main_pids()
    said = play()
    assert said.returncode == 0, said.stdout[-3000:]
    assert {counts["changed"] for counts in recap(said).values()} == {0}
    assert main_pids() == before
    assert asked() == [22, 22, 22]
