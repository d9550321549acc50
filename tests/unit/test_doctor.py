"""What a doctor makes of what was seen, and what it sees."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_probe
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import doctor, doctor_hosts, doctor_report
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.doctor_words import Finding
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import pins

from ipyfleet.events import Collector

FLEET: dict[str, Any] = {
    "name": "lab",
    "scope": "system",
    "controller": "head",
    "location": "head.lab",
    "launcher": "service",
    "ports": {"first": 10000, "last": 10099},
    "postgresql": {"host": "db", "port": 5432},
    "hosts": {"head": {"slots": []}, "n1": {"slots": [{"number": 0, "id": 0}]}, "n2": {"slots": [{"number": 0, "id": 1}]}},
}
UNIT = {"state": "active (running)", "running": True, "last": "", "loops": False, "quick": 0, "killed": False, "since": 900.0}
KEYS = {"key": "k1", "curve": "c1", "rest": "r1"}
DISK = {"path": "/var", "free_mb": 9000, "size_mb": 20000, "inodes": 100000, "all_inodes": 200000, "read_only": False}
ENGINE_FILE = "/var/lib/ipyfleet/lab/ipython/profile_lab/security/ipcontroller-engine.json"
NO = "inactive (dead)"


def seen(unit: str, doctor_: dict[str, Any] | None = None, look: dict[str, Any] | None = None, **state: Any) -> dict[str, Any]:
    """A host as it was seen: healthy, but for what is given."""
    healthy = {
        "deployed": True,
        "units": {unit: UNIT | state},
        "disks": [DISK],
        "memory": {"total_mb": 8000, "available_mb": 4000},
        "oom": 0,
        "connection": KEYS,
        "software": {"python": "3.11.2", "packages": {"numpy": "2.0", "zmq": "1.0"}},
        "clock": [-0.2, 0.3],
    }
    if unit.startswith("engine@"):
        healthy["ports"] = {"10000": "open", "10001": "open", "10002": "open"}
    facts = {"python": "3.11", "location": {"addresses": ["10.0.0.1"]}}
    return {"doctor": healthy | (doctor_ or {}), "look": {"facts": facts, "changes": []} | (look or {})}


def judge(
    head: dict[str, Any] | None = None,
    n1: dict[str, Any] | None = None,
    missing: tuple[str, ...] = (),
    problem: str = "",
    database: dict[str, Any] | None = None,
    lab: dict[str, Any] | None = None,
) -> list[Finding]:
    hosts = {"head": head or seen("controller"), "n1": n1 or seen("engine@0"), "n2": seen("engine@0")}
    slots = [
        {"id": number, "host": host, "number": 0, "state": "missing" if host in missing or problem else "listed"}
        for number, host in enumerate(("n1", "n2"))
    ]
    listed = {"slots": slots} | ({"problem": problem} if problem else {})
    lock = {host: {"numpy": "2.0", "zmq": "1.0"} for host in hosts}
    return doctor.Judge(FLEET, hosts, listed, database, lab, lock).findings()


def told(found: list[Finding]) -> list[tuple[str, str, int | None]]:
    return [(each.host, each.cause, each.slot) for each in found]


def test_a_healthy_fleet_has_no_findings() -> None:
    assert judge() == []


@pytest.mark.parametrize(
    ("state", "cause", "says", "treatment"),
    [
        ({"state": NO, "running": False}, "stopped", "its engine does not run: its service is inactive (dead)", "start"),
        ({"state": "failed (failed)", "running": False, "last": "no GPU"}, "failed", "has failed; it last said: no GPU", "start"),
        (
            {"loops": True, "quick": 7, "last": "no GPU"},
            "crash-loop",
            "ended 7 times in a row right after its start; it last said: no GPU",
            "",
        ),
    ],
)
def test_a_service_that_does_not_run_is_told_with_its_last_words(state: dict[str, Any], cause: str, says: str, treatment: str) -> None:
    found = judge(n1=seen("engine@0", **state), missing=("n1",))
    assert told(found) == [("n1", cause, 0)]
    assert says in found[0].what
    assert found[0].treatment == treatment


def test_an_engine_that_the_controller_does_not_know_is_one_only_after_some_time() -> None:
    assert told(judge(missing=("n1",))) == [("n1", "zombie", 0)]
    assert told(judge(n1=seen("engine@0", since=3.0), missing=("n1",))) == [("n1", "starting", 0)]


def test_what_follows_from_a_controller_that_does_not_run_is_not_told() -> None:
    refused = dict.fromkeys(("10000", "10001"), "refused")
    found = judge(
        head=seen("controller", state=NO, running=False), n1=seen("engine@0", {"ports": refused}, loops=True), problem="no answer"
    )
    assert told(found) == [("head", "stopped", None)]


def test_hosts_that_are_away() -> None:
    away = {"look": {"unreachable": True, "msg": "expected an SSH server, got refused; check ansible_host"}, "doctor": {}}
    found = judge(n1=away, missing=("n1",))
    assert told(found) == [("n1", "host-unreachable", None)]
    assert (found[0].what, found[0].fix) == ("it is not reached: expected an SSH server, got refused", "check ansible_host")
    assert told(judge(head=away, n1=seen("engine@0", {"ports": {"10000": "filtered"}}), problem="unreachable")) == [
        ("head", "host-unreachable", None)
    ]


def test_a_controller_that_runs_and_gives_no_answer() -> None:
    found = judge(problem="TimeoutError: Hub")
    assert told(found) == [("head", "controller-silent", None)]
    assert (found[0].treatment, found[0].unit) == ("restart", "controller")


@pytest.mark.parametrize(
    ("ports", "cause", "says"),
    [
        ({"10000": "open", "10001": "refused", "10002": "refused"}, "port-refused", "ports 10001 to 10002 of head.lab (head) refused"),
        ({"10000": "open", "10002": "filtered"}, "port-filtered", "port 10002 of head.lab (head) cannot be reached from it: no answer"),
        ({}, "name", "the controller's name head.lab does not resolve on it"),
    ],
)
def test_the_way_to_the_controller(ports: dict[str, str], cause: str, says: str) -> None:
    found = judge(n1=seen("engine@0", {"ports": ports}, loops=True), missing=("n1",))
    assert told(found) == [("n1", cause, None)]
    assert says in found[0].what


@pytest.mark.parametrize(
    ("mine", "changes", "cause", "says", "treatment"),
    [
        ({"key": "k2"}, [("change file", ENGINE_FILE)], "key", "has another key than the controller's", "connection"),
        ({"curve": "c2"}, [("change file", ENGINE_FILE)], "key", "has another CURVE key than the controller's", "connection"),
        ({"rest": "r2"}, [("change file", ENGINE_FILE)], "connection", "is not as it was deployed", "connection"),
        (
            {},
            [("restart", "ipyfleet-lab-engine@0.service")],
            "connection",
            "its services engine@0 were started with other files",
            "connection",
        ),
    ],
)
def test_connection_files(mine: dict[str, str], changes: list[tuple[str, str]], cause: str, says: str, treatment: str) -> None:
    differs = [{"what": what, "path": path} for what, path in changes]
    found = judge(n1=seen("engine@0", {"connection": KEYS | mine}, {"changes": differs}), missing=("n1",))
    assert told(found) == [("n1", cause, None)]
    assert says in found[0].what
    assert found[0].treatment == treatment


def test_nothing_is_written_where_the_fleet_file_asks_for_more() -> None:
    changes = [{"what": "change file", "path": ENGINE_FILE}, {"what": "create file", "path": "/etc/ipyfleet/lab/engine-1.json"}]
    found = judge(n1=seen("engine@0", {"connection": KEYS | {"key": "k2"}}, {"changes": changes}))
    assert told(found) == [("n1", "key", None), ("n1", "drift", None)]
    assert doctor.treatments(found) == {"start": {}, "restart": {}, "connection": [], "certificate": []}


@pytest.mark.parametrize(
    ("more", "cause", "says"),
    [
        ({"disks": [DISK | {"free_mb": 20}]}, "disk", "the disk at /var is full: 20 of 20000 MB are free"),
        ({"disks": [DISK | {"read_only": True}]}, "disk", "can only be read"),
        ({"disks": [DISK | {"inodes": 3}]}, "inodes", "can hold 3 more files"),
        ({"memory": {"total_mb": 2000, "available_mb": 50}}, "memory", "memory is short: 50 of 2000 MB are available"),
        ({"software": {"error": "no such file"}}, "python", "the fleet's Python does not run on it: no such file"),
        ({"software": {"packages": {"numpy": "1.9"}}}, "packages", "numpy 1.9 instead of 2.0, zmq 1.0 is missing"),
        ({"deployed": False}, "not-deployed", "fleet lab is not on it"),
        ({"database": {"error": "no pg_hba.conf entry for host"}}, "database-refused", "the database on db does not let it in"),
    ],
)
def test_what_a_host_lacks(more: dict[str, Any], cause: str, says: str) -> None:
    found = judge(n1=seen("engine@0", more))
    assert told(found) == [("n1", cause, None)]
    assert says in found[0].what
    assert found[0].fix


def test_unlike_pythons() -> None:
    look = {"facts": {"python": "3.12", "location": {"addresses": ["10.0.0.1"]}}}
    assert "it has Python 3.12, the controller's host 3.11" in judge(n1=seen("engine@0", look=look))[0].what


def test_an_engine_that_was_killed_for_want_of_memory_where_memory_was_short() -> None:
    assert told(judge(n1=seen("engine@0", {"oom": 1}, killed=True))) == [("n1", "out-of-memory", 0)]
    assert judge(n1=seen("engine@0", killed=True)) == []


def test_limits_of_open_files() -> None:
    found = judge(head=seen("controller", files={"used": 40, "limit": 300}))
    assert told(found) == [("head", "open-files", None)]
    assert judge(head=seen("controller", files={"used": 40, "limit": 1024})) == []


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ({"head": [0, 1], "n1": [-301, -300], "n2": [0, 1]}, [("n1", "its clock is 5 min behind the controller's")]),
        ({"head": [7300, 7301], "n1": [0, 1], "n2": [0, 1]}, [("head", "its clock is 2 h ahead of this machine's")]),
        (
            {"head": [700, 701], "n1": [699, 702], "n2": [700, 701]},
            [("head", "the clocks of all hosts are 12 min ahead of this machine's")],
        ),
        ({"head": [0, 20], "n1": [-20, 0]}, []),
    ],
)
def test_clocks(offsets: dict[str, list[float]], expected: list[tuple[str, str]]) -> None:
    assert [(host, what) for host, _, what, _ in doctor_hosts.clocks(offsets, "head")] == expected


def test_the_database_and_jupyterlab_by_their_hosts() -> None:
    base = {"host": "db", "certificate_days": 3, "running": True, "problems": ["the backup of today failed: disk full; see it"]}
    lab = {"host": "head", "state": "failed", "reason": "expected a kernel that runs, got one that ended"}
    found = judge(database=base, lab=lab)
    assert told(found) == [("db", "certificate", None), ("db", "backup", None), ("head", "jupyterlab", None)]
    assert doctor.treatments(found)["certificate"] == ["db"]
    down = base | {"certificate_days": 300, "running": False, "problems": ["its server does not run"]}
    refused = seen("engine@0", {"database": {"error": "Connection refused"}})
    assert told(judge(n1=refused, database=down)) == [("db", "database-down", None)]


def test_disks_of_the_database() -> None:
    head = "Filesystem 1048576-blocks Used Available Capacity Mounted on\n"
    said = head + "/dev/vda1 20000 19000 1000 95% /\n/dev/vdb 9000 8990 10 99% /var/lib/post gres\ntmpfs 64 60 4 94% /run\n"
    base: dict[str, Any] = {"host": "db", "certificate_days": None, "running": True, "problems": [], "full": doctor_report.full(said)}
    (found,) = judge(database=base)
    assert (found.host, found.cause) == ("db", "disk")
    assert found.what == "the disk at /var/lib/post gres, of the database or its backups, is full: 10 of 9000 MB are free"


@pytest.mark.parametrize(("age", "calendar", "late"), [(40, "daily", False), (50, "daily", True), (50, "Mon *-*-* 03:00", False)])
def test_backups_that_are_late(age: int, calendar: str, late: bool) -> None:
    assert bool(doctor_report.late({"newest": {"age": age * 3600}}, calendar)) == late
    assert doctor_report.late({"newest": None}, calendar) == []


def test_what_was_treated_is_told_as_fixed() -> None:
    before = [each.to_dict() for each in judge(n1=seen("engine@0", state=NO, running=False), missing=("n1", "n2"))]
    after = [each.to_dict() for each in judge(missing=("n2",))]
    found = doctor.compared(before, after)
    assert [(each["host"], each["cause"], each["fixed"]) for each in found] == [("n1", "stopped", True), ("n2", "zombie", False)]
    text = doctor.text({"name": "lab", "findings": found, "slots": [{"state": "listed"}, {"state": "missing"}]})
    assert text.splitlines()[0] == "fleet lab: 1 of 2 engine slots registered, 1 finding"
    assert "fixed: n1 slot 0: its engine does not run" in text
    assert text.splitlines()[-1].endswith("; run `ipyfleet doctor --fix`, or `ipyfleet restart --slot n2/0`")


def test_versions_of_a_lock() -> None:
    lock = "zmq==1.0 \\\n    --hash=sha256:00\nUV_Loop==2 ; x\nColor.ama==3\nnumpy==2.0 ; python_version < '3.12' \\\n    --hash=x\n"
    assert pins(lock) == {"zmq": "1.0", "color-ama": "3"}


def test_findings_are_the_failures_of_a_result() -> None:
    reader = Collector("doctor")
    fleet = {"hosts": {"n1": {"roles": []}}, "asked": ["n1"], "name": "lab", "scope": "system", "controller": "n1", "location": "n1"}
    fleet |= {"ports": {"first": 1, "last": 2}}
    reader.read({"event": "runner_on_ok", "event_data": {"task_action": "fleet_prepare", "host": "n1", "res": {"fleet": fleet}}})
    gone = {"task_action": "fleet_host", "host": "n1", "res": {"unreachable": True, "msg": "no answer"}}
    reader.read({"event": "runner_on_unreachable", "event_data": gone})
    finding = Finding("n1", "host-unreachable", "it is not reached: no answer", "see that it is up").to_dict()
    mended = Finding("n1", "stopped", "its engine does not run", "start it", 0).to_dict() | {"fixed": True}
    report = {"findings": [finding, mended], "slots": [], "ok": False}
    reader.read({"event": "runner_on_ok", "event_data": {"task_action": "fleet_report", "host": "n1", "res": {"report": report}}})
    result = reader.result(2, 1.0, False)
    assert [str(each) for each in result.failures] == ["n1: it is not reached: no answer; see that it is up"]
    assert [str(each) for each in result.findings] == [
        "n1: it is not reached: no answer; see that it is up",
        "fixed: n1 slot 0: its engine does not run",
    ]
    assert result.headline() == "doctor lab: failed in 1.0 s, 1 finding, 1 fixed"


def test_ports_are_probed_all_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as gone:
        there, free = server.getsockname()[1], gone.getsockname()[1]
        gone.close()
        assert fleet_probe.ports(["127.0.0.1"], [there, free]) == {str(there): "open", str(free): "refused"}


def test_digests_tell_keys_apart_and_nothing_of_them(tmp_path: Path) -> None:
    files = []
    for number, (key, curve, location) in enumerate((("secret", "c", "a"), ("secret", "d", "a"), ("other", "c", "b"))):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps({"key": key, "curve_serverkey": curve, "location": location}))
    one, two, three = (fleet_probe.connection(str(path)) for path in files)
    assert "secret" not in str(one)
    assert [one[word] == two[word] for word in ("key", "curve", "rest")] == [True, False, True]
    assert [one[word] == three[word] for word in ("key", "curve", "rest")] == [False, True, False]
    assert fleet_probe.connection(str(tmp_path / "none.json")) == {"error": "No such file or directory"}


def test_disks_and_memory_of_this_machine(tmp_path: Path) -> None:
    (disk,) = fleet_probe.disks([str(tmp_path), str(tmp_path / "not" / "there")])
    assert 0 < disk["free_mb"] <= disk["size_mb"]
    memory = fleet_probe.memory()
    assert 0 < memory["available_mb"] <= memory["total_mb"]
