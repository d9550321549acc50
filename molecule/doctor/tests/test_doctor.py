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
from fleet import CLIENT_FILE, INVENTORY, ROOT, command, container, engine_run, eventually, play, python_alone, shell

CASES = [
    (path.stem, case)
    for path in sorted((ROOT / "molecule" / "doctor" / "cases").glob("*.yml"))
    for case in yaml.safe_load(path.read_text())
]
CLIENT = f"import ipyparallel as ipp, json, time\nrc = ipp.Client({CLIENT_FILE!r}, timeout=10)\n"
# what a host's processes have, without what can be dropped at once
USED = """
cd /sys/fs/cgroup
cat memory.current memory/memory.usage_in_bytes 2>/dev/null
cat memory.stat memory/memory.stat 2>/dev/null | grep -E '^(total_)?inactive_file' | tail -1
"""
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
    try:
        return bool(python_alone("head", CLIENT + "print(json.dumps(rc.ids))") == [0, 1])
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


def test_a_certificate_that_ends_soon_is_renewed() -> None:
    names = json.dumps({"fleet_ca_names": ["soon.example.org"]})
    said = play("--limit", "head", "-e", names, "-e", "fleet_ca_days=10", "-e", "fleet_ca_renew_before_days=1")
    assert said.returncode == 0, said.stdout
    found = doctor()
    assert [(each["host"], each["cause"], each["fixable"]) for each in found["findings"]] == [("head", "certificate", True)]
    assert "the database's certificate ends in 9 days" in found["findings"][0]["what"]
    mended = doctor("--fix")
    assert (mended["exit_code"], [each["fixed"] for each in mended["findings"]]) == (0, [True])
    assert mended["database"]["certificate_days"] > 300


def test_an_engine_that_was_killed_for_want_of_memory() -> None:
    box, told = container("node1"), shell("node1", USED, check=False).split()
    limit = int(told[0]) - int(told[-1]) + (95 << 20)
    engine_run("update", "--memory", str(limit), "--memory-swap", str(limit), box)
    try:
        python_alone("head", CLIENT + "rc[0].apply_async(lambda: len(b'x' * (800 << 20))); time.sleep(2); print(0)")
        eventually(lambda: "KILL" in shell("node1", "journalctl -q -o cat -u ipyfleet-lab-engine@0 --since -1min", check=False))
        eventually(registered)
        found = {(each["host"], each["cause"], each["slot"]) for each in doctor()["findings"]}
        # what is left by then may be too little, too
        assert found - {("node1", "memory", None)} == {("node1", "out-of-memory", 0)}
    finally:
        engine_run("update", "--memory", "16g", "--memory-swap", "16g", box)
        # podman's monitor leaves a note where the hosts were started from
        (ROOT / "molecule" / "shared" / "oom").unlink(missing_ok=True)
        # what is in the journal is told for a quarter of an hour
        shell("node1", "journalctl -q --rotate; sleep 1; journalctl -q --vacuum-time=1s", check=False)
        eventually(registered)


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
