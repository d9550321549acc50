"""What happens to a fleet by itself when connections die, clocks are set, and processes are gone; on loopback."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyfleet_hub
import psutil
import pytest
from test_controller import Cluster, eventually, heard, marks

CLOCK = """
import os, time
real = time.time
def skewed():
    with open(os.environ["CLOCK_FILE"]) as stream:
        return real() + float(stream.read() or 0)
time.time = skewed
"""


class Wire:
    """The network between a controller and an engine that can be cut: the controller's end is never told.

    :param ports: of the controller on 127.0.0.1; the engine finds them on 127.0.0.2.
    """

    def __init__(self, ports: list[int]) -> None:
        self.open = True
        self.done = False
        self.listeners = {}
        for port in ports:
            listener = socket.create_server(("127.0.0.2", port))
            self.listeners[listener] = port
        # near and far ends of connections, and ends that nobody reads from any more
        self.pairs: dict[socket.socket, socket.socket] = {}
        self.dead: list[socket.socket] = []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.done:
            watched = [*self.listeners, *self.pairs] if self.open else []
            if not self.open:
                self.bury()
            for each in select.select(watched, [], [], 0.05)[0]:
                if each in self.listeners:
                    near = each.accept()[0]
                    far = socket.create_connection(("127.0.0.1", self.listeners[each]))
                    self.pairs |= {near: far, far: near}
                elif each in self.pairs:
                    self.forward(each)

    def forward(self, source: socket.socket) -> None:
        data = b""
        try:
            data = source.recv(65536)
            if data:
                self.pairs[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (source, self.pairs.pop(source)):
                self.pairs.pop(each, None)
                each.close()

    def bury(self) -> None:
        """The engine notices that its connections are dead; the controller does not."""
        for each in list(self.pairs):
            if each.getsockname()[0] == "127.0.0.2":
                each.close()
            else:
                self.dead.append(each)
        self.pairs.clear()

    def close(self) -> None:
        self.done = True
        self.thread.join()
        for each in (*self.listeners, *self.pairs, *self.dead):
            each.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nothing runs yet; what does in the end is killed."""
    found = Cluster(tmp_path)
    yield found
    found.stop()


@pytest.fixture
def wire(cluster: Cluster) -> Iterator[Wire]:
    """A wire that engines of the cluster are connected by; controller and clients are not."""
    info = json.loads(cluster.engine_file.read_text())
    found = Wire(ipyfleet_hub.ports_of(info))
    cluster.far_engine_file.write_text(json.dumps(info | {"interface": "tcp://127.0.0.2"}))
    yield found
    found.close()


def test_an_engine_whose_connections_died_on_one_side_alone_is_heard_and_hears_again(cluster: Cluster, wire: Wire) -> None:
    cluster.controller()
    engine = cluster.engine(0, far=True)
    cluster.engine(1)
    client = cluster.client()
    eventually(lambda: client.ids == [0, 1])
    client[:].push({"mark": 42}, block=True)
    wire.open = False
    eventually(lambda: client.ids == [1])
    assert client[1]["mark"] == 42
    wire.open = True
    eventually(lambda: client.ids == [0, 1])
    eventually(lambda: marks(client) == [42, 42])
    assert client.load_balanced_view(targets=[0]).apply_async(os.getpid).get(timeout=10) == engine.pid
    broadcast = client.broadcast_view()
    eventually(lambda: heard(client, lambda _view: broadcast.apply_async(os.getpid)) is not None)
    assert len(wire.dead) > 5
    client.close()


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_is_set_stops_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    clock = cluster.folder / "clock"
    clock.write_text("0")
    shim = cluster.folder / "shim"
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(CLOCK)
    monkeypatch.setenv("PYTHONPATH", str(shim))
    monkeypatch.setenv("CLOCK_FILE", str(clock))
    cluster.controller()
    first, second = cluster.engine(0), cluster.engine(1)
    monkeypatch.delenv("PYTHONPATH")
    client = cluster.client()
    eventually(lambda: client.ids == [0, 1])
    assert client[0].apply_sync(time.time) == pytest.approx(time.time(), abs=60)
    client[:].push({"mark": 42}, block=True)
    clock.write_text(str(step))
    assert client[0].apply_sync(time.time) == pytest.approx(time.time() + step, abs=60)
    assert client.load_balanced_view().apply_async(os.getpid).get(timeout=10) in (first.pid, second.pid)
    # missed heartbeats are missed
    second.send_signal(signal.SIGSTOP)
    eventually(lambda: client.ids == [0])
    second.send_signal(signal.SIGCONT)
    eventually(lambda: client.ids == [0, 1])
    eventually(lambda: marks(client) == [42, 42])
    client.close()


def nanny_of(pid: int) -> psutil.Process | None:
    """The nanny of an engine."""
    for each in psutil.Process(pid).children():
        # one that was killed has no command line
        with contextlib.suppress(psutil.Error):
            if "ipyparallel.engine.nanny" in each.cmdline():
                return each
    return None


def interrupted(client: Any, waiting: Any) -> bool:
    """Interrupt what an engine does; whether that came through."""
    client.send_signal(signal.SIGINT, targets=[0], block=False)
    try:
        waiting.get(timeout=2)
    except TimeoutError:
        return False
    except Exception as error:
        return "KeyboardInterrupt" in str(error)
    return False


def test_a_killed_nanny_has_a_successor_and_the_engine_keeps_its_memory(cluster: Cluster) -> None:
    cluster.controller()
    engine = cluster.engine(0)
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    client[0].push({"mark": 42}, block=True)
    for _ in range(2):
        nanny = nanny_of(engine.pid)
        assert nanny
        nanny.kill()
        eventually(lambda: nanny_of(engine.pid) not in (None, nanny))  # noqa: B023
        # it does what nannies are for: signals come through
        waiting = client[0].apply_async(time.sleep, 30)
        time.sleep(1.5)
        # one that is sent before the successor is connected is lost
        eventually(functools.partial(interrupted, client, waiting))
    assert client[0].apply_sync(os.getpid) == engine.pid
    assert client[0]["mark"] == 42
    engine.kill()
    eventually(lambda: client.ids == [], seconds=3)
    client.close()
