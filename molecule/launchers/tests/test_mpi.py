"""Engines that are the ranks of one MPI job over all hosts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import EPHEMERAL, INVENTORY, ROOT, eventually, play, python_alone, recap, shell

# its keys are beside it
FLEET = EPHEMERAL / "mpi.fleet.yml"
HOSTS = ("head", "node1", "node2")
IDS = [0, 1, 2, 3, 4]
UNIT = "ipyfleet-mpi-mpi"
PYTHON = "/opt/ipyfleet/mpi/env/bin/python"
# everything of the job, on a host
JOB = "ps -u ipyfleet-mpi -o args= | grep -cE '(ipengine.py|orted|mpiexec|ipyparallel.engine.nanny)'"
BEGIN = """
import json, socket
import ipyparallel as ipp
rc = ipp.Client(profile="mpi", timeout=20)
def world():
    from mpi4py import MPI
    world = MPI.COMM_WORLD
    return [world.Get_rank(), world.Get_size(), socket.gethostname()]
def total():
    from mpi4py import MPI
    return MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.Get_rank() + 1)
rc[:].execute("import socket").get(20)
"""


def on_head(expression: str) -> Any:
    """The value of an expression in a client's session; None while the fleet is not whole."""
    try:
        return python_alone("head", f"{BEGIN}\nprint(json.dumps({expression}))", program=PYTHON)
    except AssertionError:
        return None


def deployed(*arguments: str, playbook: str = "site.yml") -> Any:
    """Run a playbook on the fleet."""
    return play(*arguments, playbook=playbook, sources=(FLEET, INVENTORY / "00_hosts.yml"))


def whole() -> bool:
    """Whether all engines take part in a sum."""
    return bool(on_head("rc[:].apply_async(total).get(20)") == [15] * 5)


@pytest.fixture(scope="module", autouse=True)
def fleet() -> Iterator[None]:
    """The fleet, on hosts without MPI."""
    shutil.copy(ROOT / "molecule" / "launchers" / "inventory" / FLEET.name, FLEET)
    for name in HOSTS:
        assert shell(name, "command -v mpiexec", check=False) == ""
    said = deployed()
    assert said.returncode == 0, said.stdout
    assert "fleet mpi: 5 of 5 engine slots answered" in said.stdout
    yield
    gone = deployed("-e", "teardown_keys=true", playbook="playbooks/teardown.yml")
    assert gone.returncode == 0, gone.stdout
    for name in HOSTS:
        assert shell(name, "find / -xdev -path '*/ipyfleet/mpi' -not -path '/proc/*'; getent passwd ipyfleet-mpi", check=False) == ""


def test_every_slot_is_a_rank_on_its_host() -> None:
    seen = on_head("dict(zip(rc.ids, rc[:].apply_async(world).get(20)))")
    assert {number: host for number, (_, _, host) in seen.items()} == {"0": "head", "1": "node1", "2": "node1", "3": "node2", "4": "node2"}
    assert sorted(rank for rank, _, _ in seen.values()) == IDS
    assert {size for _, size, _ in seen.values()} == {5}


def test_a_sum_goes_over_all_hosts() -> None:
    assert whole()


def test_again_changes_nothing() -> None:
    job = shell("head", f"systemctl show -p MainPID --value {UNIT}")
    again = deployed()
    assert again.returncode == 0, again.stdout
    assert [counts["changed"] for counts in recap(again).values()] == [0] * len(recap(again))
    assert shell("head", f"systemctl show -p MainPID --value {UNIT}") == job


def test_a_rank_that_is_killed_takes_the_job_along_and_all_come_back() -> None:
    # a job goes on with all of its ranks or not at all
    shell("node1", "pkill -9 -u ipyfleet-mpi -o -f ipengine.py")
    eventually(whole, 90)


def test_nothing_is_left_when_the_job_is_killed() -> None:
    shell("head", f"systemctl kill -s KILL {UNIT}; systemctl stop {UNIT}")
    eventually(lambda: [shell(name, JOB, check=False) for name in HOSTS] == ["0"] * 3, 60)
    shell("head", f"systemctl start {UNIT}")
    eventually(whole, 90)


def test_verbs() -> None:
    said = deployed(playbook="playbooks/stop.yml")
    assert said.returncode == 0, said.stdout
    eventually(lambda: [shell(name, JOB, check=False) for name in HOSTS] == ["0"] * 3, 30)
    said = deployed(playbook="playbooks/start.yml")
    assert said.returncode == 0, said.stdout
    assert whole()


def test_packages_that_somebody_removed_are_there_again() -> None:
    shell("node2", "apt-get -qq remove -y openmpi-bin")
    said = deployed("--check")
    assert recap(said)["node2"]["changed"]
    said = deployed()
    assert said.returncode == 0, said.stdout
    assert shell("node2", "command -v mpiexec") == "/usr/bin/mpiexec"
