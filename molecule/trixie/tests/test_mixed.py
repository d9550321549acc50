"""Hosts whose engines may use different things: GPUs, cores, memory, environment variables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleet import NAME, main_pids, play, python, shell

CHOSEN = "--limit=localhost:node2"
ON_NODE2 = """
    ids = [number for number in rc.ids if rc[number].apply_sync(os.uname).nodename == "node2"]
    view = rc[ids]
"""
REPORT = """
    @ipp.interactive
    def mine():
        import os, resource
        words = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS", "WHERE")
        said = {word: os.environ.get(word) for word in words}
        return {**said, "host": os.uname().nodename, "cores": sorted(os.sched_getaffinity(0)),
                "memory": resource.getrlimit(resource.RLIMIT_DATA)[0] >> 20}

    print(json.dumps(rc[:].apply_sync(mine)))
"""


def reports(host: str) -> list[dict[str, Any]]:
    """What the engines of a host have, slot by slot."""
    return [each for each in python("head", REPORT, user="ops") if each["host"] == host]


def test_each_slot_has_its_own_share() -> None:
    found = reports("node2")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in found] == ["0", "2", "0"]
    assert {each["CUDA_DEVICE_ORDER"] for each in found} == {"PCI_BUS_ID"}
    assert {each["WHERE"] for each in found} == {"here"}
    # 63 of 64 parts of 512
    assert {each["memory"] for each in found} == {504}
    assert [each["OMP_NUM_THREADS"] for each in found] == [str(len(each["cores"])) for each in found]
    there = int(shell("node2", "nproc"))
    assert {core for each in found for core in each["cores"]} == set(range(there))
    # slots take turns at cores only where there are not enough
    assert sum(len(each["cores"]) for each in found) == max(there, 3)


def test_a_host_of_which_nothing_is_said_has_no_limits() -> None:
    for each in reports("node1"):
        assert each["cores"] == list(range(int(shell("node1", "nproc"))))
        assert [each[word] for word in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS", "WHERE")] == [None] * 4
        # no limit is -1
        assert each["memory"] == -1


def test_a_task_that_takes_too_much_gets_an_error_and_nobody_else_notices() -> None:
    before = main_pids()
    code = f"""{ON_NODE2}
    rc[:].push({{"kept": "safe"}}, block=True)
    said = []
    for _ in range(2):
        try:
            rc[ids[0]].apply_sync(bytearray, 1 << 30)
        except ipp.RemoteError as error:
            said.append(error.ename)
    said.append(rc[ids[0]].apply_sync(len, bytes(50 << 20)))
    print(json.dumps([said, set(rc[:]["kept"]) == {{"safe"}}]))
    """
    assert python("head", code, user="ops") == [["MemoryError", "MemoryError", 50 << 20], True]
    assert main_pids() == before


def test_what_a_slot_takes_altogether_is_limited_by_systemd() -> None:
    # cgroups of these containers are not theirs to write, so that the kernel's part is not seen here
    said = shell("node2", f"systemctl show -p MemoryMax -p OOMPolicy ipyfleet-{NAME}-engine@0.service").splitlines()
    assert sorted(said) == [f"MemoryMax={512 << 20}", "OOMPolicy=continue"]
    assert "MemoryMax=infinity" in shell("node1", f"systemctl show -p MemoryMax ipyfleet-{NAME}-engine@0.service")


def test_only_slots_whose_share_changes_are_restarted() -> None:
    before = main_pids()
    said = play(CHOSEN, "-e", json.dumps({"ipp_engine_gpu_names": [0, 3]}))
    assert said.returncode == 0, said.stdout
    changed = {unit for unit, pid in main_pids().items() if before.get(unit) != pid}
    assert changed == {f"node2 ipyfleet-{NAME}-engine@1.service"}
    assert [each["CUDA_VISIBLE_DEVICES"] for each in reports("node2")] == ["0", "3", "0"]
    assert play(CHOSEN).returncode == 0
    assert [each["CUDA_VISIBLE_DEVICES"] for each in reports("node2")] == ["0", "2", "0"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"ipp_engine_cpus": "0,8000"},
            "node2: expected cores that the host has for the cpus of its engines, got 8000; it has 0",
        ),
        (
            {"ipp_engine_cpus": "many"},
            "node2: ipp_engine_cpus: expected `spread`, or cores of the host such as \"0-3,8\", each once, got 'many'",
        ),
    ],
)
def test_what_a_host_has_not_is_found_before_anything_is_changed(variables: dict[str, Any], expected: str) -> None:
    before = main_pids()
    said = play(CHOSEN, "-e", json.dumps(variables))
    assert said.returncode != 0
    assert expected in said.stdout
    assert "nothing was changed" in said.stdout
    assert main_pids() == before
