"""What a user does with a fleet by ipyparallel: in code, in a notebook, and by `ipcluster`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import nbclient
import nbformat
import pytest
from registered import typed

from ipyfleet.launchers import FleetCluster

NOTEBOOK = (
    "from ipyfleet.launchers import FleetCluster\nrc = FleetCluster(n=2, cluster_id='note').start_and_connect_sync(activate=True)",
    "%px me = 7 * 6",
    "print(rc[:]['me'])",
    "rc.cluster.stop_cluster_sync()",
)


def running() -> set[str]:
    """Services of the fleet that run: those that a start would not start."""
    found = json.loads(typed("ipyfleet", "start", "--check", "--json").stdout)
    stopped = {change["path"] for host in found["hosts"] for change in host["changes"]}
    return {"controller", *(f"engine@{number}" for number in range(5))} - stopped


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test ends with a fleet that is stopped."""
    yield
    if left := running():
        typed("ipyfleet", "stop")
        ipcluster("clean", "--force")
    assert left == set()


async def test_start_stop_controller(Cluster: Callable[..., ipp.Cluster]) -> None:  # noqa: N803
    """ipyparallel's test of that name, without the process of this machine."""
    cluster = Cluster()
    await cluster.start_controller()
    with pytest.raises(RuntimeError):
        await cluster.start_controller()
    with await cluster.connect_client() as rc:
        assert rc.queue_status() == {"unassigned": 0}
    await cluster.stop_controller()
    assert cluster.controller is None
    await cluster.stop_controller()


def test_one_engine_is_restarted_interrupted_and_stopped() -> None:
    cluster = FleetCluster(n=2, delay=0)
    rc = cluster.start_and_connect_sync()
    before = rc[:].apply_async(os.getpid).get_dict(timeout=30)
    cluster.restart_engine_sync(1)
    rc.wait_for_engines(2, timeout=30)
    after = rc[:].apply_async(os.getpid).get_dict(timeout=30)
    assert after[0] == before[0]
    assert after[1] != before[1]
    sleeping = rc[1].apply_async(time.sleep, 60)
    time.sleep(1)
    cluster.signal_engine_sync(signal.SIGINT, 1)
    with pytest.raises(ipp.RemoteError, match="KeyboardInterrupt"):
        sleeping.get(timeout=30)
    rc.close()
    cluster.stop_engine_sync(1)
    assert running() == {"controller", "engine@0"}
    cluster.stop_cluster_sync()


def test_in_a_notebook(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(text) for text in NOTEBOOK]
    done = nbclient.execute(nbformat.v4.new_notebook(cells=cells), cwd=tmp_path, timeout=300)
    assert "[42, 42]" in done.cells[2].outputs[0]["text"]


def ipcluster(*words: str) -> subprocess.CompletedProcess[str]:
    return typed("ipyparallel.cluster", *words, "--profile-dir", os.environ["IPYTHONDIR"] + "/profile_default")


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ipcluster("list", "-o", "json").stdout)
    return found


def test_ipcluster_from_start_to_stop() -> None:
    begun = ipcluster("start", "--controller=fleet", "--engines=fleet", "-n", "2", "--daemonize")
    assert begun.returncode == 0, begun.stderr
    (found,) = listed()
    assert (found["controller"]["class"], found["engines"]["class"]) == ("fleet", "fleet")
    (engines,) = found["engines"]["sets"].values()
    assert engines["n"] == 2
    with ipp.Cluster.from_file(profile="default").connect_client_sync() as rc:
        assert len(rc.wait_for_engines(2, timeout=30) or rc.ids) == 2
    again = ipcluster("start", "--controller=fleet", "--engines=fleet")
    assert again.returncode == 10
    assert "already running" in again.stderr
    assert ipcluster("stop").returncode == 0
    assert listed() == []
    assert ipcluster("stop").returncode == 11
    assert ipcluster("clean").returncode == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--engines=fleet", "--controller=fleet", "-n", "9"],
            "n: expected at most 5 engines, as many as fleet launch has slots for",
        ),
        (["--controller=fleet"], "engines: expected 'fleet' with controller='fleet', got LocalEngineSetLauncher"),
        (
            ["--engines=fleet", "--controller=fleet", "--FleetLauncher.fleet_file=no.fleet.yml"],
            "no.fleet.yml: expected a fleet file, got no such file",
        ),
    ],
)
def test_ipcluster_that_cannot_start_says_why_and_ends(words: list[str], expected: str) -> None:
    said = ipcluster("start", *words)
    assert said.returncode == 1, said.stderr
    assert expected in said.stderr
    assert "Traceback" not in said.stderr
    assert listed() == []


def test_ipcluster_in_the_foreground_ends_when_another_stops_it() -> None:
    words = ["start", "--controller=fleet", "--engines=fleet", "-n", "1", f"--profile-dir={os.environ['IPYTHONDIR']}/profile_default"]
    with subprocess.Popen([sys.executable, "-m", "ipyparallel.cluster", *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            for line in process.stderr:
                if "Starting 1 engines" in line:
                    break
            deadline = time.monotonic() + 120
            while not [each for each in listed() if each["engines"]["sets"]]:
                assert time.monotonic() < deadline
                time.sleep(0.5)
            assert ipcluster("stop").returncode == 0
            process.communicate(timeout=60)
            assert process.returncode == 0
        finally:
            process.kill()


def test_a_process_that_ends_stops_what_it_has_started() -> None:
    code = "import ipyparallel as ipp; c = ipp.Cluster(controller='fleet', engines='fleet', n=1); c.start_cluster_sync()"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert said.returncode == 0
    assert "Error stopping cluster" not in said.stderr
