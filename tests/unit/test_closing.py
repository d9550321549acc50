"""Engines that are closed and drained, with a real controller and engines on loopback."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_closing
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_closing import Draining, close, doing
from test_controller import Cluster, eventually


def where(seconds: float = 0) -> int:
    import os
    import time

    time.sleep(seconds)
    return os.getpid()


# engines have no such module to import it from: it goes there as it is
where.__module__ = "__main__"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ipp.Client]:
    cluster = Cluster(tmp_path)
    try:
        cluster.controller()
        cluster.engine(0)
        cluster.engine(1)
        client = cluster.client()
        eventually(lambda: client.ids == [0, 1])
        yield client
        client.close()
    finally:
        cluster.stop()


def answers(client: ipp.Client) -> dict[int, int]:
    pids = {number: client[number].apply_sync(where) for number in (0, 1)}
    return {pid: number for number, pid in pids.items()}


def balanced(client: ipp.Client, known: dict[int, int], tasks: int = 8) -> Counter[int]:
    """How many tasks of a load-balanced view ran on each engine."""
    return Counter(known[pid] for pid in client.load_balanced_view().map_async(where, [0.02] * tasks).get(timeout=20))


def state(found: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(each["id"], each["state"]) for each in found]


def test_a_closed_engine_gets_no_task_and_is_open_again_by_itself(client: ipp.Client) -> None:
    known = answers(client)
    assert set(balanced(client, known)) == {0, 1}
    assert close(client, [1, 99], 2.0) == [1]
    assert balanced(client, known) == {0: 8}
    # direct views go there all the same
    assert known[client[1].apply_sync(where)] == 1
    eventually(lambda: 1 in balanced(client, known), seconds=10)
    assert close(client, [0], 60) == [0]
    assert close(client, [0], 0) == [0]
    assert set(balanced(client, known)) == {0, 1}


def test_tasks_wait_while_all_engines_are_closed(client: ipp.Client) -> None:
    close(client, [0, 1], 60)
    task = client.load_balanced_view().apply_async(where)
    task.wait(1)
    assert not task.ready()
    close(client, [1], 0)
    assert task.get(timeout=10) in answers(client)


def test_what_an_engine_has_is_waited_for_and_nothing_new_comes(client: ipp.Client) -> None:
    known = answers(client)
    view = client.load_balanced_view()
    long = [view.apply_async(where, 2.5), view.apply_async(where, 2.5)]
    time.sleep(0.5)
    waiting = [view.apply_async(where, 0.05) for _ in range(6)]
    begin = time.monotonic()
    assert state(Draining(client, [1]).wait(20)) == [(1, "idle")]
    assert time.monotonic() - begin > 1.5
    assert {known[task.get(timeout=10)] for task in long} == {0, 1}
    assert {known[task.get(timeout=10)] for task in waiting} == {0}
    # it stays closed, for somebody to stop it
    assert balanced(client, known) == {0: 8}
    # and others kept what they have
    assert client[0].apply_sync(where) == next(pid for pid, number in known.items() if number == 0)


def test_time_is_up_and_the_engine_has_work_again(client: ipp.Client) -> None:
    known = answers(client)
    client[1].block = False
    long = client[1].apply_async(where, 4)
    time.sleep(0.3)
    found = Draining(client, [0, 1, 7]).wait(1)
    assert state(found) == [(0, "idle"), (1, "busy"), (7, "gone")]
    assert doing(found[1]) == "1 message of direct views"
    assert known[long.get(timeout=10)] == 1
    assert set(balanced(client, known)) == {0, 1}


def test_what_was_sent_to_all_engines_at_once_is_waited_for_too(client: ipp.Client) -> None:
    long = client.broadcast_view([1]).apply_async(where, 3)
    time.sleep(0.3)
    found = Draining(client, [1]).wait(1)
    assert state(found) == [(1, "silent")]
    assert doing(found[0]).startswith("nothing is queued there, but it does not answer")
    assert state(Draining(client, [1]).wait(20)) == [(1, "idle")]
    assert len(long.get(timeout=10)) == 1


def test_an_engine_that_left_is_not_waited_for(client: ipp.Client) -> None:
    client[1].apply_async(where, 60)
    time.sleep(0.3)
    client.shutdown([1], block=False)
    draining = Draining(client, [1])
    eventually(lambda: client.ids == [0], seconds=30)
    begin = time.monotonic()
    assert state(draining.wait(20)) == [(1, "gone")]
    assert time.monotonic() - begin < 10


def test_messages_that_were_lost_are_not_waited_for(client: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fleet_closing.loads

    def more(client: Any) -> dict[int, dict[str, int]] | None:
        """What a controller counts that does not hear of an end."""
        return {number: {**load, "queue": load["queue"] + 1} for number, load in (real(client) or {}).items()}

    monkeypatch.setattr(fleet_closing, "loads", more)
    long = client[1].apply_async(where, 3)
    time.sleep(0.3)
    assert [(each["id"], each["state"], each["queue"]) for each in Draining(client, [0, 1]).wait(1)] == [(0, "idle", 0), (1, "busy", 2)]
    assert state(Draining(client, [0, 1]).wait(20)) == [(0, "idle"), (1, "idle")]
    assert long.ready()


def test_closed_engines_are_open_again_when_nobody_asks_for_it_any_more(client: ipp.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    known = answers(client)
    monkeypatch.setattr(fleet_closing, "LEASE_SECONDS", 1.0)
    draining = Draining(client, [1])
    draining.renew()
    assert balanced(client, known) == {0: 8}
    # whoever drained is killed here
    eventually(lambda: 1 in balanced(client, known), seconds=10)


def test_a_controller_that_is_killed_meanwhile_does_not_end_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        controller = cluster.controller()
        cluster.engine(0)
        client = cluster.client()
        eventually(lambda: client.ids == [0])
        client[0].apply_async(where, 3)
        time.sleep(0.3)
        found: list[list[dict[str, Any]]] = []
        waiting = threading.Thread(target=lambda: found.append(Draining(client, [0]).wait(40)))
        waiting.start()
        time.sleep(0.5)
        cluster.kill(controller)
        cluster.controller()
        waiting.join(50)
        assert [state(each) for each in found] == [[(0, "idle")]]
        client.close()
    finally:
        cluster.stop()
