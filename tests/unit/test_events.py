"""From ansible-runner's events to results."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import database_report
from rich.console import Console

from ipyfleet.cli.show import as_text
from ipyfleet.events import Collector, Progress
from ipyfleet.results import Backup, Guest, Restored

FLEET: dict[str, Any] = {
    "name": "lab",
    "scope": "system",
    "controller": "head",
    "location": "10.0.0.5",
    "ports": {"first": 10000, "last": 10099},
    "asked": ["head", "n1", "n2"],
    "hosts": {"head": {"roles": ["ipp_controller", "ipp_client"]}, "n1": {"roles": ["ipp_engine"]}, "n2": {"roles": ["ipp_engine"]}},
}
ALL = ("ipp_controller", "ipp_engine", "ipp_client")


def event(
    kind: str, action: str, host: str = "", res: dict[str, Any] | None = None, task: str = "role : A task", **data: Any
) -> dict[str, Any]:
    return {"event": kind, "stdout": "", "event_data": {"task": task, "task_action": action, "host": host, "res": res or {}, **data}}


def collector(*events: dict[str, Any], takes_part: tuple[str, ...] = ()) -> Collector:
    found = Collector("up", takes_part=takes_part)
    found.read(event("playbook_on_task_start", "ipyfleet.cluster.fleet_prepare"))
    found.read(event("runner_on_ok", "ipyfleet.cluster.fleet_prepare", "head", {"fleet": FLEET}))
    for each in events:
        found.read(each)
    return found


def slot(number: int, host: str, state: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "host": host, "number": 0, "state": state, "reason": "" if state == "ok" else "its service is dead"} | more


def report(*slots: dict[str, Any], **more: Any) -> dict[str, Any]:
    known = {
        "controller": "head",
        "slots": list(slots),
        "guests": [{"id": 7, "state": "idle", "hostname": "desk", "pid": 9, "python": "3.11.2", "message": "guest 7"}],
        "problem": "",
        **more,
    }
    return event("runner_on_ok", "ipyfleet.cluster.fleet_report", "head", {"report": known})


def test_all_there() -> None:
    changed = {
        "changed": True,
        "msg": "start",
        "changes": [{"path": "/etc/x", "what": "change file", "diff": {"before": "a\n", "after": "b\n"}}],
    }
    events = [event("runner_on_ok", "fleet_host", "n1", changed, duration=1.5), event("runner_on_ok", "fleet_host", "n2", {})]
    result = collector(*events, report(slot(0, "n1", "ok", pid=5, ms=2.5), slot(1, "n2", "ok")), takes_part=ALL).result(0, 3.0, False)
    assert (result.status, result.ok, result.exit_code, result.changed) == ("ok", True, 0, True)
    assert result.fleet
    assert (result.fleet.name, result.fleet.location, result.fleet.clients) == ("lab", "10.0.0.5", ("head",))
    assert [(host.name, host.outcome) for host in result.hosts] == [("head", "ok"), ("n1", "changed"), ("n2", "ok")]
    assert result.hosts[1].seconds == 1.5
    assert [(change.path, change.what, change.diff) for change in result.hosts[1].changes] == [("/etc/x", "change file", "")]
    assert (result.slots[0].pid, result.slots[0].ms, result.guests) == (5, 2.5, (Guest(7, "idle", "desk", 9, "3.11.2", "guest 7"),))


def test_differences_are_kept_when_they_were_asked_for() -> None:
    found = Collector("up", diff=True)
    change = {"path": "/etc/x", "what": "change file", "diff": {"before": "a\n", "after": "b\n"}}
    found.read(event("runner_on_ok", "fleet_host", "n1", {"changed": True, "changes": [change]}))
    assert found.result(0, 1, False).hosts[0].changes[0].diff.splitlines() == ["--- /etc/x", "+++ /etc/x", "@@ -1 +1 @@", "-a", "+b"]


def test_some_slots_short_is_partial_and_says_why() -> None:
    failing = event("runner_on_failed", "ansible.builtin.fail", "head", {"msg": "long text"}, task="Name what is short")
    heard = [event("runner_on_ok", "fleet_host", host) for host in ("n1", "n2")]
    result = collector(*heard, report(slot(0, "n1", "ok"), slot(1, "n2", "missing")), failing, takes_part=ALL).result(2, 3.0, False)
    assert (result.status, result.exit_code) == ("partial", 3)
    assert [str(each) for each in result.failures] == ["n2: slot 0 (id 1): its service is dead"]
    assert [host.outcome for host in result.hosts] == ["ok", "ok", "ok"]


def test_a_controller_that_gives_no_answer_is_named() -> None:
    found = collector(report(slot(0, "n1", "missing"), problem="TimeoutError: no answer")).result(2, 3.0, False)
    assert found.status == "failed"
    assert str(found.failures[0]) == "head: the controller gave no answer: TimeoutError: no answer"


def test_an_unreachable_host_is_a_failure_with_its_reason() -> None:
    found = collector(event("runner_on_unreachable", "fleet_host", "n2", {"msg": "ssh: No route to host"})).result(4, 1.0, False)
    assert [str(each) for each in found.failures] == ["n2: unreachable: ssh: No route to host"]
    assert {host.name: host.outcome for host in found.hosts}["n2"] == "unreachable"


def test_a_host_that_is_not_heard_of_is_a_failure_whatever_the_exit_code() -> None:
    found = collector(event("runner_on_ok", "fleet_host", "n1"), takes_part=("ipp_engine",)).result(0, 1.0, False)
    assert not found.ok
    assert [str(each) for each in found.failures] == ["n2: expected it to take part, but nothing was heard of it"]


def test_a_run_on_no_host_is_a_failure() -> None:
    assert not Collector("up", takes_part=ALL).result(0, 1.0, False).ok


def test_a_refused_run_names_each_problem_with_its_host() -> None:
    msg = "n1: expected free space, got a full disk\nfleet_name: expected one\n2 problems; nothing was changed"
    found = collector(event("runner_on_failed", "ipyfleet.cluster.fleet_prepare", "head", {"msg": msg})).result(2, 1.0, False)
    assert (found.status, found.exit_code) == ("refused", 1)
    assert [(each.host, each.message) for each in found.failures] == [
        ("n1", "expected free space, got a full disk"),
        ("", "fleet_name: expected one"),
    ]


def test_a_wrong_inventory_is_an_error_of_input() -> None:
    found = Collector("up")
    found.read(event("runner_on_failed", "fleet_prepare", "head", {"msg": "x: expected y, got z\n1 problem; nothing was changed"}))
    assert found.input_problems == ["x: expected y, got z"]


def test_errors_before_the_first_task_are_kept_without_colours() -> None:
    found = Collector("up")
    found.read({"event": "verbose", "stdout": "\x1b[0;31m[ERROR]: lab.fleet.yml:4: controler: unknown key\x1b[0m\r\n"})
    found.read({"event": "warning", "stdout": "[WARNING]: careful"})
    assert (found.errors, found.warnings) == (["lab.fleet.yml:4: controler: unknown key"], ["careful"])


def test_an_exit_code_without_a_reason_is_a_failure_too() -> None:
    assert [str(each) for each in collector().result(2, 1.0, False).failures] == ["ansible-playbook ended with exit code 2"]


def test_a_cancelled_run_is_that_and_no_failure() -> None:
    found = collector(takes_part=ALL).result(99, 1.0, True)
    assert (found.status, found.failures, found.exit_code) == ("cancelled", (), 130)


def test_what_the_control_node_does_is_no_host_s_progress() -> None:
    found = collector()
    assert found.read(event("runner_on_ok", "debug", "localhost"))[0].host == ""
    assert found.read(event("playbook_on_task_start", "ansible.builtin.meta")) == []
    assert found.read(event("playbook_on_task_start", "fleet_host", task="ipp_node : Look")) == [Progress("task", task="Look")]


@pytest.mark.parametrize("count", [200])
def test_little_is_kept_of_many_hosts(count: int) -> None:
    import tracemalloc

    found = Collector("up", takes_part=ALL)
    padding = "x" * 10_000
    tracemalloc.start()
    for _ in range(20):
        for number in range(count):
            found.read(event("runner_on_ok", "debug", f"n{number}", {"msg": padding + str(number), "big": padding}))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.hosts) == count
    # the events themselves came to 80 MB
    assert kept < 1_000_000


def test_what_a_report_warns_of_is_in_the_result() -> None:
    warning = "head: does not come back after a reboot: no crontab, no linger"
    said = event("runner_on_ok", "fleet_report", "head", {"report": {}, "warnings": [warning]})
    assert collector(said).result(0, 3.0, False).warnings == (warning,)


def test_backups_and_what_was_brought_back() -> None:
    backup = {"name": "20260301T021500Z", "age": 90, "bytes": 1000, "rows": 3, "databases": ["lab"], "whole": True, "proven": None}
    said: dict[str, Any] = {"backups": [backup | {"reason": "a row"}], "backup_problems": ["the drill failed: a row"]}
    result = collector(event("runner_on_ok", "fleet_report", "head", {"report": said})).result(0, 3.0, False)
    assert result.backups == (Backup("20260301T021500Z", 90, 1000, 3, ("lab",), True, None, "a row"),)
    assert result.warnings == ("database: the drill failed: a row",)
    assert result.restored is None
    restored = {
        "database": "lab",
        "backup": "20260301T021500Z",
        "rows": 3,
        "tables": 1,
        "replaced": True,
        "kept": "lab_before",
        "roles": ["r"],
    }
    said = {"restored": {**restored, "message": "it is back", "check": False, "seconds": 1.0}}
    result = collector(event("runner_on_ok", "fleet_report", "head", {"report": said})).result(0, 3.0, False)
    assert result.restored == Restored("lab", "20260301T021500Z", 3, 1, True, "lab_before", ("r",), "it is back")


def test_a_result_says_how_the_database_does_wherever_it_is_shown() -> None:
    fleet = {"postgresql": {"host": "db", "port": 5432, "user": "lab", "databases": [{"name": "lab"}, {"name": "results"}]}}
    slots = [
        {"host": "n1", "number": 0, "database": {"tls": "TLSv1.3", "version": "17.6"}},
        {"host": "n2", "number": 0, "database": {"error": "connection refused"}},
    ]
    said = {"database": database_report.report_of(fleet, slots, None)}
    result = collector(event("runner_on_ok", "fleet_report", "head", {"report": said})).result(0, 3.0, False)
    assert result.database and not result.database.ok
    words = "database lab, results on db, port 5432: reached by 1 of 2 engines over TLSv1.3, verified, PostgreSQL 17.6"
    assert result.database.message == words
    console = Console(record=True, soft_wrap=True)
    as_text(console, result)
    for shown in (str(result), result._repr_html_(), console.export_text()):
        assert words in shown
        assert "n2 slot 0: connection refused" in shown


def drained(verb: str, *slots: dict[str, Any], rc: int = 0) -> Any:
    found = Collector(verb)
    found.read(event("playbook_on_task_start", "ipyfleet.cluster.fleet_prepare"))
    found.read(event("runner_on_ok", "ipyfleet.cluster.fleet_prepare", "head", {"fleet": FLEET}))
    found.read(event("runner_on_ok", "ipyfleet.cluster.fleet_drain", "head", {"slots": list(slots), "short": 1}))
    if rc:
        found.read(event("runner_on_failed", "ansible.builtin.fail", "n1", {"msg": "n2/0 ..."}, task="ipp_node : Name what is short"))
    return found.result(rc, 1.0, False)


def test_drained_slots_are_told() -> None:
    result = drained("drain", slot(0, "n1", "drained", reason=""), slot(1, "n2", "drained", reason=""))
    assert (result.status, result.headline()) == ("ok", "drain lab: ok in 1.0 s, 2 of 2 engine slots drained")


def test_a_drain_that_takes_too_long_has_failed_as_nothing_was_stopped() -> None:
    result = drained("drain", slot(0, "n1", "drained", reason=""), slot(1, "n2", "busy", reason="still busy after 2 s: 1 message"), rc=2)
    assert (result.status, result.exit_code) == ("failed", 1)
    assert [str(failure) for failure in result.failures] == ["n2: slot 0 (id 1): still busy after 2 s: 1 message"]
    assert result.headline() == "drain lab: failed in 1.0 s, 1 of 2 engine slots had nothing to do"


def test_another_verb_tells_of_drained_slots_when_one_is_busy() -> None:
    assert drained("upgrade", slot(0, "n1", "drained", reason="")).slots == ()
    assert [each.id for each in drained("upgrade", slot(0, "n1", "drained"), slot(1, "n2", "busy"), rc=2).slots] == [1]
