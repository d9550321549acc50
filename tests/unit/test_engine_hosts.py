"""What engines do and on which host they are: without a controller."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_engines import watch
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.engine_hosts import groups_of, hosts_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.engines_file import read_source
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import FleetFileError
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import positions
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain


class Answer:
    """What an engine answers, if it does."""

    def __init__(self, value: Any, there: bool) -> None:
        self.value, self.there = value, there

    def ready(self) -> bool:
        return self.there

    def get(self) -> Any:
        return self.value


class Client:
    """Engines by id: their load, and whether they answer."""

    def __init__(self, loads: dict[int, tuple[int, int]], answering: set[int], later: dict[int, tuple[int, int]] | None = None) -> None:
        self.loads = [loads, later or loads]
        self.answering = answering
        self.asked: list[int] = []

    def queue_status(self) -> dict[Any, Any]:
        loads = self.loads.pop(0)
        return {"unassigned": 3} | {number: {"queue": q, "tasks": t, "completed": 7} for number, (q, t) in loads.items()}

    def __getitem__(self, number: int) -> Any:
        client = self

        class View:
            def apply_async(self, function: Any, question: str) -> Answer:
                client.asked.append(number)
                return Answer(function(question), number in client.answering)

        return View()


def states(client: Client, ids: list[int], seconds: float = 0.05) -> dict[int, str]:
    return {each["id"]: each["state"] for each in watch(client, ids, seconds)}


def test_only_engines_that_have_nothing_to_do_are_asked() -> None:
    client = Client({0: (0, 0), 1: (1, 0), 2: (0, 1), 3: (0, 0)}, answering={0, 1, 2})
    found = watch(client, [0, 1, 2], 5)
    assert [(each["id"], each["state"]) for each in found] == [(0, "idle"), (1, "busy"), (2, "busy")]
    assert client.asked == [0]
    said = [found[0][key] for key in ("hostname", "pid", "python", "completed")]
    assert said == [socket.gethostname(), os.getpid(), platform.python_version(), 7]
    assert "hostname" not in found[1]


def test_who_does_not_answer_is_silent_busy_with_another_s_work_by_now_or_gone() -> None:
    # a question of ours waits there
    client = Client({0: (0, 0), 1: (0, 0), 2: (0, 0)}, answering=set(), later={0: (1, 0), 1: (2, 0)})
    assert states(client, [0, 1, 2]) == {0: "silent", 1: "busy"}


def engine(number: int, state: str = "idle", hostname: str | None = None) -> dict[str, Any]:
    found = {"id": number, "state": state, "queue": int(state == "busy"), "tasks": 0, "completed": 2}
    return found | ({"hostname": hostname, "pid": 10 + number, "python": "3.11.2"} if hostname else {})


SLOTS = {0: ("node1", 0), 1: ("node1", 1), 2: ("node2", 0), 3: ("node3", 0)}


def test_engines_are_on_the_hosts_of_their_slots_busy_or_not() -> None:
    listed = [engine(0, hostname="vm-17.lab.example"), engine(1, "busy"), engine(2, "silent"), engine(10000, hostname="vm-17.lab.example")]
    found = hosts_of(listed, SLOTS, ["node1", "head"], [])
    assert {host: each["engine_ids"] for host, each in found.items()} == {"node1": [0, 1, 10000], "node2": [2], "node3": []}
    assert {host: groups_of(each) for host, each in found.items()} == {
        "node1": ["engines", "engines_idle", "engines_busy", "engines_guests"],
        "node2": ["engines", "engines_silent"],
        "node3": ["engines_missing"],
    }
    assert found["node1"]["engine_counts"] == {"all": 3, "idle": 2, "busy": 1, "silent": 0, "guests": 1, "missing": 0, "unplaced": 0}
    assert found["node3"]["engine_missing_ids"] == [3]
    assert found["node1"]["engines"][1] == {
        "id": 1, "state": "busy", "queue": 1, "tasks": 0, "completed": 2, "hostname": None, "pid": None, "python": None, "slot": 1,
    }  # fmt: skip
    assert found["node1"]["engines"][2]["slot"] is None


@pytest.mark.parametrize(
    ("hostname", "host"),
    [
        ("desk", "desk"),
        ("head", "head"),
        ("head.lab.example", "head"),
        ("twin.a", "twin.a"),
        ("twin.c", "twin.c"),
        ("ipp_engine", "engine-9"),
        ("{{ x }}", "engine-9"),
        ("-oProxyCommand=x", "engine-9"),
        ("localhost", "engine-9"),
        ("LocalHost.localdomain", "engine-9"),
        ("127.0.1.1", "engine-9"),
        ("::1", "engine-9"),
        ("engines", "engine-9"),
        ("engines_idle", "engine-9"),
        (None, "engine-9"),
    ],
)
def test_a_guest_s_host_is_what_it_calls_itself_if_that_is_a_host_s_name(hostname: str | None, host: str) -> None:
    found = hosts_of([engine(9, hostname=hostname)], {}, ["head", "twin.a", "twin.b"], ["ipp_engine"])
    assert list(found) == [host]
    assert "{" not in str(found[host]["engines"][0]["hostname"])
    assert ("engines_unplaced" in groups_of(found[host])) == (host == "engine-9")
    assert "engines_guests" not in groups_of(found[host])


FILE = "/lab/live.engines.yml"


def test_a_file_says_which_controller_is_asked() -> None:
    def source(text: str) -> tuple[str, str, float, float]:
        found = read_source(plain_yaml(text), FILE, positions(text))
        return found.way, found.value, found.timeout, found.engine_timeout

    assert source("plugin: engines\n") == ("", "", 10, 5)
    assert source("plugin: ipyfleet.cluster.engines\nfleet: lab.fleet.yml\ntimeout: 3\n") == ("fleet", "/lab/lab.fleet.yml", 3, 5)
    assert source("plugin: engines\nconnection_file: /x.json\nengine_timeout: 0.5\n") == ("connection_file", "/x.json", 10, 0.5)
    assert source("plugin: engines\nprofile: lab\n") == ("profile", "lab", 10, 5)


def plain_yaml(text: str) -> Any:
    import yaml

    return plain(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ":1: expected a mapping of keys"),
        ("plugin: fleet\n", ":1: plugin: expected `engines` or `ipyfleet.cluster.engines`, got 'fleet'"),
        ("plugin: engines\nprofil: lab\n", ":2: profil: unknown key; did you mean `profile`?"),
        (
            "plugin: engines\nprofile: lab\nfleet: x\n",
            ":3: fleet: expected one of connection_file, profile, fleet, got profile and fleet",
        ),
        ("plugin: engines\nconnection_file: 7\n", ":2: connection_file: expected a file, got 7"),
        ("plugin: engines\nprofile: ''\n", ":2: profile: expected the name of a profile, got ''"),
        ("plugin: engines\ntimeout: 0\n", ":2: timeout: expected a number of seconds above 0, up to 3600, got 0"),
        ("plugin: engines\nprofile: a\nprofile: b\n", ":3: profile: stands twice, on lines 2 and 3"),
    ],
)
def test_what_is_wrong_with_a_file(text: str, expected: str) -> None:
    with pytest.raises(FleetFileError) as caught:
        read_source(plain_yaml(text), FILE, positions(text))
    assert str(caught.value.problems[0]).startswith(f"{FILE}{expected}")
