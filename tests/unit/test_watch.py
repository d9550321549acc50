"""The watchdog of a host: what it has started anew, and what it leaves alone; with real processes on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ipyfleet_hub
import ipyfleet_unit
import psutil
import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_notes import healed
from ipyfleet_watch import FORGIVEN_SECONDS, Case, greets
from test_controller import FILES, Cluster, eventually, marks

SECONDS = 2
# until a watchdog that is being started has had a look
LOOKED_SECONDS = 5


class Watched(Cluster):
    """A cluster whose host has a watchdog, and no supervisor: what is killed stays away."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # processes of other tests are none of this one's
        self.files = folder / "lib"
        shutil.copytree(FILES, self.files)
        self.log = folder / "watchdog.txt"

    def watch(self, *arguments: str) -> None:
        command = [sys.executable, str(self.files / "ipyfleet_watch.py"), f"--etc={self.folder}", f"--run={self.folder}"]
        command += [f"--engine-file={self.engine_file}", f"--client-file={self.client_file}", *arguments]
        self.processes.append(subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT, start_new_session=True))

    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Watched]:
    """Nothing runs yet; what does in the end is killed."""
    found = Watched(tmp_path)
    yield found
    found.stop()


def test_an_engine_that_was_stopped_is_killed_and_no_other(cluster: Watched) -> None:
    cluster.controller()
    first, second = cluster.engine(0), cluster.engine(1)
    client = cluster.client()
    eventually(lambda: client.ids == [0, 1])
    client[1].push({"mark": 42}, block=True)
    cluster.watch(f"--engines={SECONDS}")
    time.sleep(SECONDS)
    first.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert first.wait(timeout=30) == -signal.SIGKILL
    assert SECONDS - 1 < time.monotonic() - begin < 4 * SECONDS
    assert cluster.said() == f"engine@0: it was stopped for {SECONDS} s; it is killed, to be started anew\n"
    again = cluster.engine(0)
    eventually(lambda: cluster.listed().keys() == {0, 1})
    eventually(lambda: client.ids == [0, 1])
    assert client[1]["mark"] == 42
    assert client[1].apply_sync(os.getpid) == second.pid
    assert healed(str(cluster.folder), "engine@0").startswith("1 time, last at 20")
    assert healed(str(cluster.folder), "engine@0").endswith(f": it was stopped for {SECONDS} s")
    assert healed(str(cluster.folder), "engine@1") == ""
    # the next time, it may be deaf for twice as long
    again.send_signal(signal.SIGSTOP)
    assert again.wait(timeout=40) == -signal.SIGKILL
    assert f"engine@0: it was stopped for {2 * SECONDS} s; " in cluster.said()
    assert healed(str(cluster.folder), "engine@0").startswith("2 times, ")
    client.close()


def test_an_engine_that_the_controller_does_not_know_is_killed(cluster: Watched) -> None:
    cluster.controller()
    zombie, other = cluster.engine(0), cluster.engine(1)
    eventually(lambda: cluster.listed().keys() == {0, 1})
    cluster.watch(f"--engines={SECONDS}")
    time.sleep(LOOKED_SECONDS)
    line = ipyfleet_hub.Hub(json.loads(cluster.engine_file.read_text()))
    line.leave(0, 5)
    line.close()
    assert cluster.listed().keys() == {1}
    assert zombie.wait(timeout=30) == -signal.SIGKILL
    assert other.poll() is None
    assert f"engine@0: the controller did not know it for {SECONDS} s" in cluster.said()


def test_without_a_controller_nothing_is_killed(cluster: Watched) -> None:
    controller = cluster.controller()
    engine = cluster.engine(0)
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    client[0].push({"mark": 42}, block=True)
    cluster.watch(f"--engines={SECONDS}")
    cluster.kill(controller)
    time.sleep(3 * SECONDS)
    cluster.controller()
    eventually(lambda: marks(client) == [42])
    time.sleep(2 * SECONDS)
    assert engine.poll() is None
    assert cluster.said() == ""
    client.close()


def test_an_engine_that_only_works_hard_is_left_alone(cluster: Watched) -> None:
    cluster.controller()
    engine = cluster.engine(0)
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    cluster.watch(f"--engines={SECONDS}")
    # in C, and no other thread runs Python meanwhile
    code = f"import ctypes; slept = ctypes.PyDLL(None).sleep({LOOKED_SECONDS + 3 * SECONDS})"
    client[0].execute(code, block=False).get(timeout=60)
    assert client[0]["slept"] == 0
    assert client[0].apply_sync(os.getpid) == engine.pid
    assert cluster.said() == ""
    client.close()


def test_a_stopped_nanny_is_killed_and_its_engine_is_not(cluster: Watched) -> None:
    cluster.controller()
    engine = cluster.engine(0)
    eventually(lambda: list(cluster.listed()) == [0])
    (nanny,) = psutil.Process(engine.pid).children()
    cluster.watch(f"--engines={SECONDS}")
    nanny.suspend()
    eventually(lambda: not nanny.is_running() or nanny.status() == psutil.STATUS_ZOMBIE)
    eventually(lambda: [each.pid for each in psutil.Process(engine.pid).children()] not in ([], [nanny.pid]))
    assert engine.poll() is None


@pytest.mark.parametrize(
    ("how", "what"),
    [
        (signal.SIGSTOP, r"its process \d+ was stopped"),
        (signal.SIGKILL, r"nothing listened on port \d+"),
    ],
)
def test_a_controller_that_is_deaf_is_killed_with_all_of_its_processes(cluster: Watched, how: signal.Signals, what: str) -> None:
    controller = cluster.controller()
    engine = cluster.engine(0)
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    client[0].push({"mark": 42}, block=True)
    cluster.watch(f"--controller={SECONDS}", f"--engines={SECONDS}")
    time.sleep(LOOKED_SECONDS)
    assert cluster.said() == ""
    family = [psutil.Process(controller.pid), *psutil.Process(controller.pid).children()]
    family[2].send_signal(how)
    assert controller.wait(timeout=30) == -signal.SIGKILL
    psutil.wait_procs(family, timeout=5)
    assert not [each for each in family if each.is_running()]
    assert len(cluster.said().splitlines()) == 1
    assert re.match(f"controller: {what} for {SECONDS} s; it is killed", cluster.said())
    cluster.controller()
    eventually(lambda: marks(client) == [42])
    assert engine.poll() is None
    client.close()


def test_what_ports_say(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        assert greets("127.0.0.1", port) == f"port {port} took connections and said nothing"
    assert greets("127.0.0.1", port) == f"nothing listened on port {port}"

    def nobody(*_: object) -> socket.socket:
        raise TimeoutError("timed out")

    # no way there is no reason to kill who may listen
    monkeypatch.setattr(socket, "create_connection", nobody)
    assert greets("192.0.2.1", port) == ""


def test_patience_grows_and_what_happened_is_forgotten() -> None:
    case = Case("engine@0", 20)
    case.about(7)
    assert not case.due(100)
    assert not case.due(119)
    assert case.due(120)
    case.act(120)
    assert case.patience() == 40
    case.about(8)
    assert not case.due(130, more=60)
    assert not case.due(229, more=60)
    assert case.due(230, more=60)
    case.well(140)
    assert case.patience() == 40
    case.well(121 + FORGIVEN_SECONDS)
    assert case.patience() == 20
    for _ in range(20):
        case.act(1000)
    assert case.patience() == 20 * 64
    # a host that stood still
    assert not case.due(2000)
    case.pause()
    assert not case.due(9999)


def test_a_note_that_is_none_says_nothing(tmp_path: Path) -> None:
    assert healed(str(tmp_path), "engine@0") == ""
    note = {"boot": ipyfleet_unit.boot_id(), "times": 2, "last": 1e99, "why": "x"}
    for text in (
        "",
        "[]",
        json.dumps(note),
        json.dumps(note | {"last": 0, "times": []}),
        json.dumps(note | {"boot": "another", "last": 0}),
    ):
        (tmp_path / "healed-engine@0.json").write_text(text)
        assert healed(str(tmp_path), "engine@0") == ""
