"""What is said to people: failures of modules in one line, reports as tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import explain, summary, unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import (
    fleet_of,
    healed_lines,
    slots_of,
    slots_report,
    status_text,
    table,
    verify_text,
)

FLEET: dict[str, Any] = {
    "name": "lab",
    "controller": "head",
    "launcher": "service",
    "scope": "system",
    "location": "head",
    "secrets_dir": "/keys",
    "postgresql": None,
    "ports": {"first": 10000, "last": 10099},
    "asked": ["head", "n1", "n2"],
    "locks": {"": "aaaa"},
    "hosts": {
        "head": {"roles": ["ipp_controller"], "slots": [], "packages": []},
        "n1": {"slots": [{"number": 0, "id": 0}, {"number": 1, "id": 1}], "roles": ["ipp_engine"], "packages": []},
        "n2": {"slots": [{"number": 0, "id": 2}], "roles": ["ipp_engine"], "packages": []},
    },
}


def raised(message: str) -> SimpleNamespace:
    """What Ansible makes of an exception that ended a module, as far as it is read."""
    return SimpleNamespace(event=SimpleNamespace(msg=message, chain=None))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"msg": "Missing sudo password"}, "expected sudo without a password"),
        ({"module_stderr": "sudo: a password is required"}, "expected sudo without a password"),
        ({"msg": "Task failed", "module_stderr": "/bin/sh: 1: sudo: not found"}, "expected sudo, got a host without it"),
        ({"module_stderr": "eve is not in the sudoers file."}, "expected to become root by sudo, got refused"),
        ({"msg": "The module interpreter '/usr/bin/python3' was not found."}, "expected Python 3, got a host without it"),
        ({"module_stdout": "/bin/sh: 1: /usr/bin/python3: not found"}, "expected Python 3, got a host without it"),
        ({"msg": "ansible-core requires a minimum of Python version 3.8."}, "expected Python 3.10 or newer, got an older one"),
        ({"msg": "OSError: [Errno 28] No space left on device"}, "expected free space, got a full disk"),
        ({"msg": "Failed to create temporary directory."}, "expected a folder for temporary files"),
        ({"module_stderr": "Traceback (most recent call last):\n  File x\nKeyError: 'a'\n"}, "KeyError: 'a'"),
        ({"msg": "first line\nsecond line"}, "first line"),
        ({"exception": raised("[Errno 17] File exists")}, "[Errno 17] File exists"),
        ({"exception": raised("[Errno 28] No space left on device")}, "expected free space, got a full disk"),
        ({}, "the module failed without a message"),
    ],
)
def test_a_failure_is_one_line(result: dict[str, Any], expected: str) -> None:
    text = explain(result)
    assert text.startswith(expected)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ssh: connect to host h port 22: Connection refused", "expected an SSH server, got refused"),
        ("ssh: Could not resolve hostname h.lab: Name or service not known", "expected the name h.lab to resolve"),
        ("No ED25519 host key is known for h.\nHost key verification failed.", "expected a host key"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "expected the host key that is known"),
        ("ops@h: Permission denied (publickey,password).", "expected to log in with a key, got refused"),
        ("Connection timed out during banner exchange", "expected an answer, got none in time"),
        ("ssh: connect to host h port 22: No route to host", "expected a way to the host, got none"),
        ("Connection closed by UNKNOWN port 65535", "expected an SSH server, got a connection that was closed"),
        ("Failed to create temporary directory. In some cases", "expected a folder for temporary files"),
        ("Task failed: something\nnew", "something new"),
    ],
)
def test_why_a_host_was_not_reached_is_one_line(message: str, expected: str) -> None:
    text = unreached(f"Task failed: Failed to connect to the host via ssh: {message}" if "something" not in message else message)
    assert text.startswith(expected)
    assert "\n" not in text


def test_changes_are_counted() -> None:
    whats = ["create file", "create file", "set mode, owner", "start", "link to x", "remove folder, but keep /y"]
    assert summary([{"what": what} for what in whats]) == "create file 2, set, start, link, remove folder"
    assert summary([]) == "nothing to change"


def test_tables() -> None:
    assert table([["id", "host"], [1, "a"], [10, "bb"]], numbers=(0,)) == ["id  host", " 1  a", "10  bb"]


GUESTS = [
    {"id": 10000, "state": "idle", "hostname": "desk", "pid": 9, "python": "3.11.2"},
    {"id": 10001, "state": "busy", "hostname": None, "pid": None, "python": None},
]
GUEST_LINES = [
    "guest 10000, an engine that no slot asks for: on desk, pid 9, Python 3.11.2",
    "guest 10001, an engine that no slot asks for: busy",
]


def verified(**states: str) -> dict[str, Any]:
    slots = [{**slot, "state": "ok", "pid": 7, "python": "3.11.2", "ms": 3.1} for slot in slots_of(FLEET)]
    for slot in slots:
        slot["state"] = states.get(f"{slot['host']}_{slot['number']}", "ok")
        if slot["state"] in ("missing", "silent"):
            for key in ("pid", "python", "ms"):
                slot.pop(key)
    return {"slots": slots, "short": len(states), "guests": []}


def test_slots_outside_of_a_limit_do_not_count() -> None:
    assert [slot["id"] for slot in slots_of(FLEET | {"asked": ["n2"]})] == [2]


def known(result: dict[str, Any], units: dict[str, Any]) -> dict[str, Any]:
    return fleet_of(FLEET) | slots_report(result, FLEET, units)


def test_report_of_a_whole_fleet() -> None:
    assert verify_text(known(verified(), {})).splitlines() == [
        "fleet lab: 3 of 3 engine slots answered",
        "id  host  slot  state  pid  Python   ms",
        " 0  n1       0  ok       7  3.11.2  3.1",
        " 1  n1       1  ok       7  3.11.2  3.1",
        " 2  n2       0  ok       7  3.11.2  3.1",
    ]


def test_report_says_why_a_slot_is_short() -> None:
    down = {"state": "failed (exit-code)", "running": False, "last": "ImportError: no zmq"}
    runs = {"state": "active (running)", "running": True, "last": ""}
    result = verified(n1_0="missing", n1_1="silent", n2_0="missing")
    lines = verify_text(known(result, {"n1": {"engine@0": down, "engine@1": runs}})).splitlines()
    assert lines[0] == "fleet lab: 0 of 3 engine slots answered"
    assert lines[-3:] == [
        "n1 slot 0 (id 0): its service is failed (exit-code); it last said: ImportError: no zmq",
        "n1 slot 1 (id 1): its service runs, but the engine did not run the code in time",
        "n2 slot 0 (id 2): the host did not answer, or something failed there before",
    ]


def test_report_names_a_drifted_environment() -> None:
    result = verified(n2_0="drifted")
    result["slots"][-1] |= {"lock": "bbbb", "wanted_lock": "aaaa"}
    assert verify_text(known(result, {})).splitlines()[-1] == "n2 slot 0 (id 2): has environment bbbb instead of aaaa"


def test_report_of_a_controller_that_does_not_answer() -> None:
    result = verified(n1_0="missing", n1_1="missing", n2_0="missing") | {"problem": "TimeoutError: Hub connection request timed out"}
    states = {"head": {"controller": {"state": "failed (exit-code)", "running": False, "last": "Bad config"}}}
    lines = verify_text(known(result, states)).splitlines()
    assert "the controller on head gave no answer: TimeoutError: Hub connection request timed out" in lines
    assert "head: its service is failed (exit-code); it last said: Bad config" in lines


def test_status() -> None:
    result: dict[str, Any] = {"slots": [slot | {"state": "listed"} for slot in slots_of(FLEET)], "short": 0, "guests": GUESTS}
    result["slots"][2]["state"] = "missing"
    runs = {"state": "active (running)", "running": True, "restarts": 2, "last": ""}
    lines = status_text(known(result, {"head": {"controller": runs}, "n1": {"engine@0": runs, "engine@1": runs}})).splitlines()
    assert lines[0] == "fleet lab: 2 of 3 engine slots registered with head, ports 10000 to 10099"
    assert lines[1].split() == ["id", "host", "slot", "service", "restarts", "registered"]
    assert lines[3].split() == ["0", "n1", "0", "active", "(running)", "2", "yes"]
    assert lines[5].split() == ["2", "n2", "0", "no", "answer", "-", "no"]
    assert lines[-2:] == GUEST_LINES


def test_what_a_watchdog_did_is_told_of_each_service() -> None:
    runs = {"running": True, "state": "active (running)", "last": "", "healed": ""}
    healed = runs | {"healed": "1 time, last at 2026-01-02 03:04:05: it was stopped for 20 s"}
    units = {"head": {"controller": healed}, "n1": {"engine@0": runs, "engine@1": healed}}
    assert healed_lines(known(verified(), units)) == [
        "head: controller was restarted by its watchdog 1 time, last at 2026-01-02 03:04:05: it was stopped for 20 s",
        "n1: slot 1 (id 1) was restarted by its watchdog 1 time, last at 2026-01-02 03:04:05: it was stopped for 20 s",
    ]


def test_a_verification_names_guests_too() -> None:
    assert verify_text(known(verified() | {"guests": GUESTS}, {})).splitlines()[-2:] == GUEST_LINES


def test_a_slot_whose_tunnel_does_not_hold_is_told_so() -> None:
    unit = {"running": True, "state": "active (running)", "last": ""}
    tunnel = {"running": False, "state": "activating (auto-restart)", "last": "Host key verification failed."}
    told = slots_report(verified(n2_0="missing"), FLEET, {"n2": {"engine@0": unit, "tunnel": tunnel}})["slots"][2]["reason"]
    assert told == (
        "its service runs, but the engine is not registered with the controller; "
        "its tunnel there is activating (auto-restart); it last said: Host key verification failed."
    )
