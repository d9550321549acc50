"""What the doctor says of everything that goes wrong: one test, and the cases in `cases/`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from accidents import fill
from fleet import INVENTORY, ROOT, command, container, engine_run, eventually, python_alone, shell

CASES = [
    (path.stem, case)
    for path in sorted((ROOT / "molecule" / "doctor" / "cases").glob("*.yml"))
    for case in yaml.safe_load(path.read_text())
]
KEYS = {"id", "breaks", "pause", "hosts", "finds", "mends", "fixes", "exits"}


def ports() -> dict[str, str]:
    """Two of the controller's ports for engines, as words."""
    first = json.loads(shell("head", "cat /etc/ipyfleet/lab/fleet.json"))["first_port"]
    return {"port1": str(first + 1), "port2": str(first + 2)}


def do(commands: dict[str, str], words: dict[str, str], check: bool = True) -> None:
    """Run shell commands by host, at the same time."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: shell(name, f"set -e; {fill(commands[name], words)}", check=check), commands))


def doctor(*words: str, sources: tuple[Path, ...] = (INVENTORY,)) -> dict[str, Any]:
    """What `ipyfleet doctor --json` says."""
    given = [word for source in sources for word in ("-i", str(source))]
    begin = time.monotonic()
    said = command("doctor", "--json", *given, *words)
    assert said.stdout, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    print(f"{time.monotonic() - begin:.1f} s, exit code {said.returncode}")
    print("\n".join(f"  {each['cause']}: {each['host']} {each['slot']}: {each['what']}; {each['fix']}" for each in found["findings"]))
    assert found["exit_code"] == said.returncode
    assert "Traceback" not in said.stdout + said.stderr
    return found


def registered() -> bool:
    """Whether the controller lists both engines."""
    code = """
import ipyparallel as ipp, json
rc = ipp.Client("/var/lib/ipyfleet/lab/ipython/profile_lab/security/ipcontroller-client.json", timeout=5)
print(json.dumps(rc.ids))
"""
    try:
        return bool(python_alone("head", code) == [0, 1])
    except AssertionError:
        return False


def healthy() -> None:
    """The fleet has no findings."""
    eventually(registered)
    found = doctor()
    assert found["findings"] == [], found["failures"]
    assert (found["status"], found["exit_code"]) == ("ok", 0)


@pytest.fixture(scope="module", autouse=True)
def _healthy() -> Iterator[None]:
    """Before and after all, nothing is found."""
    healthy()
    yield
    healthy()


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A case, broken and mended, whatever came of it."""
    given: dict[str, Any] = request.param
    assert set(given) <= KEYS
    words = ports()
    given["finds"] = fill(given["finds"], words)
    try:
        if "pause" in given:
            engine_run("pause", container(given["pause"]))
        do(given.get("breaks", {}), words)
        yield given
    finally:
        if "pause" in given:
            engine_run("unpause", container(given["pause"]))
        do(given.get("mends", {}), words, check=False)
        eventually(registered)


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{group}: {case['id']}") for group, case in CASES], indirect=True)
def test_each_cause_is_named_and_nothing_else_is(case: dict[str, Any], tmp_path: Path) -> None:
    sources = [INVENTORY]
    if "hosts" in case:
        sources.append(tmp_path / "zz_hosts.yml")
        sources[-1].write_text(yaml.safe_dump({"all": {"hosts": case["hosts"]}}))
    found = doctor(sources=tuple(sources))
    wanted = {(each["host"], each["cause"], each.get("slot")) for each in case["finds"]}
    assert {(each["host"], each["cause"], each["slot"]) for each in found["findings"]} == wanted
    for each in case["finds"]:
        said = [one for one in found["findings"] if (one["host"], one["cause"]) == (each["host"], each["cause"])]
        assert any(each["says"] in one["what"] for one in said)
        assert said[0]["fixable"] == each.get("fixable", False)
        assert said[0]["fix"]
    assert found["exit_code"] == case.get("exits", found["exit_code"]) != 0
    if case.get("fixes"):
        mended = doctor("--fix")
        assert mended["exit_code"] == 0
        assert {(each["host"], each["cause"], each["slot"]) for each in mended["findings"] if each["fixed"]} == wanted


def test_a_limit_is_about_its_hosts_alone() -> None:
    shell("node1", "systemctl stop ipyfleet-lab-engine@0")
    try:
        assert doctor("--limit", "node2")["findings"] == []
        assert [each["cause"] for each in doctor("--limit", "node1")["findings"]] == ["stopped"]
        assert doctor("--limit", "node1", "--fix", "--check")["changed"]
        assert shell("node1", "systemctl is-active ipyfleet-lab-engine@0", check=False) == "inactive"
    finally:
        shell("node1", "systemctl start ipyfleet-lab-engine@0")
    eventually(registered)
