"""The fleet's controller and engine entry points, with real processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipcontroller
import ipyfleet_hub
import ipyparallel as ipp
import psutil
import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import PortPlan
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import new_secrets
from conftest import ROOT
from ipcontroller import FIRST_GUEST

FILES = ROOT / "roles" / "ipp_node" / "files"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"engines": {"0": "a", "3": "b"}, "next_id": 0}', 4),
        ('{"engines": {"0": "a"}, "next_id": 9}', 9),
        ('{"engines": {}, "next_id": 0}', 0),
    ],
)
def test_the_next_id_is_beyond_all_that_are_given(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "engines.json").write_text(text)
    state = ipcontroller.read_state(tmp_path / "engines.json")
    assert state is not None
    assert state["next_id"] == expected


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"engines": {"x": "a"}, "next_id": 0}', '{"engines": {}}'])
def test_a_damaged_list_of_engines_is_told_apart(tmp_path: Path, text: str) -> None:
    (tmp_path / "engines.json").write_text(text)
    assert ipcontroller.read_state(tmp_path / "engines.json") is None


class Cluster:
    """A controller and engines as the roles start them, without a supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.plan = PortPlan(free_block())
        security = folder / "security"
        security.mkdir()
        keys = new_secrets()
        common = {
            "fleet": "test", "ssh": "", "interface": "tcp://127.0.0.1", "location": "localhost", "key": keys.key,
            "curve_serverkey": keys.curve_public, "pack": "json", "unpack": "json", "signature_scheme": "hmac-sha256",
        }  # fmt: skip
        self.client_file = security / "ipcontroller-client.json"
        self.engine_file = security / "ipcontroller-engine.json"
        self.client_file.write_text(json.dumps(common | self.plan.client | {"task_scheme": "leastload"}))
        self.engine_file.write_text(json.dumps(common | self.plan.engine))
        (folder / "controller.py").write_text(
            "c = get_config()\nc.IPController.reuse_files = True\nc.IPController.restore_engines = True\n"
            f"c.IPController.ports = {self.plan.internal}\nc.HeartMonitor.period = 200\n"
            f"c.IPController.curve_publickey = {keys.curve_public.encode()!r}\n"
            f"c.IPController.curve_secretkey = {keys.curve_secret.encode()!r}\nc.IPController.enable_curve = True\n"
        )

    def start(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(FILES / script), *arguments, f"--profile-dir={self.folder}"]
        log = (self.folder / "log.txt").open("a")
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        self.processes.append(process)
        return process

    def controller(self) -> subprocess.Popen[bytes]:
        process = self.start("ipcontroller.py", f"--config={self.folder}/controller.py")
        assert ipyfleet_hub.wait_ready([json.loads(self.client_file.read_text())], 30) == "", (self.folder / "log.txt").read_text()
        return process

    def engine(self, number: int, **env: str) -> subprocess.Popen[bytes]:
        path = self.folder / f"engine-{number}.json"
        path.write_text(json.dumps({"id": number, "env": env}))
        return self.start("ipengine.py", str(path))

    def listed(self) -> dict[int, str]:
        """Engines as the hub lists them."""
        line = ipyfleet_hub.Hub(json.loads(self.client_file.read_text()))
        try:
            return line.engines(timeout=5)
        finally:
            line.close()

    def client(self) -> ipp.Client:
        return ipp.Client(str(self.client_file), timeout=20)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process and all it has started, as a supervisor does."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def start_guest(self, *options: str) -> subprocess.Popen[bytes]:
        """An engine that somebody starts by hand: by itself, it asks for no id."""
        command = [sys.executable, "-m", "ipyparallel.engine", f"--profile-dir={self.folder}", *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=self.folder)
        self.processes.append(process)
        return process

    def kill_silently(self, process: subprocess.Popen[bytes]) -> None:
        """Kill engine and nanny in one go, as a power cut does: nobody tells the hub."""
        family = psutil.Process(process.pid).children(recursive=True)
        for each in [*family, psutil.Process(process.pid)]:
            each.suspend()
        for each in [*family, psutil.Process(process.pid)]:
            each.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for path in Path("/proc").glob("[0-9]*/cmdline"):  # nannies have sessions of their own
            try:
                if b"ipyparallel.engine.nanny" in path.read_bytes() and (path.parent / "cwd").readlink() == self.folder:
                    os.kill(int(path.parent.name), signal.SIGKILL)
            except OSError:
                continue


def free_block() -> int:
    """First port of a block of 100 in which none is taken now."""
    for first in range(31000, 60000, 100):
        try:
            for port in (first, first + 40, first + 50):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nothing runs yet; what does in the end is killed."""
    found = Cluster(tmp_path)
    yield found
    found.stop()


def eventually(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def marks(client: ipp.Client) -> list[int] | None:
    """What all engines remember; None while a message is lost, as those to an engine that is not yet back are."""
    try:
        return list(client[:].pull("mark", block=False).get(timeout=0.5))
    except TimeoutError:
        return None


def test_a_killed_controller_finds_engines_with_their_memory_and_an_open_client_goes_on(cluster: Cluster) -> None:
    controller = cluster.controller()
    for number in (0, 5):
        cluster.engine(number, FLAVOUR=f"engine {number}")
    client = cluster.client()
    eventually(lambda: client.ids == [0, 5])
    view = client[:]
    view.push({"mark": 42}, block=True)
    assert view.apply_sync(os.getenv, "FLAVOUR") == ["engine 0", "engine 5"]
    for _ in range(2):
        cluster.kill(controller)
        controller = cluster.controller()
        eventually(lambda: marks(client) == [42, 42])
        assert client.ids == [0, 5]
    state = json.loads((cluster.folder / "log" / "engines.json").read_text())
    assert sorted(state["engines"]) == ["0", "5"]
    client.close()


def test_a_guest_takes_no_slot_s_id_and_comes_back_under_its_own(cluster: Cluster) -> None:
    controller = cluster.controller()
    cluster.engine(0)
    slot = cluster.engine(1)
    client = cluster.client()
    eventually(lambda: client.ids == [0, 1])
    slot.terminate()
    eventually(lambda: client.ids == [0])
    cluster.start_guest()
    eventually(lambda: client.ids == [0, FIRST_GUEST])
    cluster.engine(1)
    # a slot that the fleet did not have when the guest came
    cluster.engine(2)
    eventually(lambda: client.ids == [0, 1, 2, FIRST_GUEST])
    client[:].push({"mark": 42}, block=True)
    cluster.kill(controller)
    cluster.controller()
    eventually(lambda: marks(client) == [42, 42, 42, 42])
    cluster.start_guest()
    eventually(lambda: client.ids == [0, 1, 2, FIRST_GUEST, FIRST_GUEST + 1])
    client.close()


def test_an_engine_that_asks_for_a_taken_id_gets_no_slot_s_either(cluster: Cluster) -> None:
    cluster.controller()
    cluster.engine(0)
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    cluster.start_guest("--IPEngine.id=0")
    eventually(lambda: client.ids == [0, FIRST_GUEST])
    client.close()


def test_a_successor_takes_the_id_of_an_engine_that_was_lost_without_a_word(cluster: Cluster) -> None:
    cluster.controller()
    first = cluster.engine(3)
    client = cluster.client()
    eventually(lambda: client.ids == [3])
    lost = cluster.listed()[3]
    cluster.kill_silently(first)
    assert cluster.listed() == {3: lost}
    successor = cluster.engine(3)
    eventually(lambda: cluster.listed().get(3, lost) != lost)
    assert sorted(cluster.listed()) == [3]
    eventually(lambda: client.ids == [3])
    assert client[3].apply_sync(os.getpid) == successor.pid
    client.close()


def test_readiness_says_what_is_missing(cluster: Cluster) -> None:
    info = json.loads(cluster.client_file.read_text())
    assert ipyfleet_hub.wait_ready([info], 0).startswith(f"no connection to port {cluster.plan.first}, ")
    cluster.controller()
    assert ipyfleet_hub.wait_ready([info], 5) == ""
    stranger = info | {"key": "another key"}
    assert ipyfleet_hub.wait_ready([stranger], 0) == "ports are open, but the hub answers no signed request"
    plain = info | {"curve_serverkey": None}
    assert ipyfleet_hub.wait_ready([plain], 0) == "ports are open, but the hub answers no signed request"


def test_leaving(cluster: Cluster) -> None:
    cluster.controller()
    engine = cluster.engine(2)
    client = cluster.client()
    eventually(lambda: client.ids == [2])
    cluster.kill_silently(engine)
    leave = [sys.executable, str(FILES / "ipyfleet_hub.py"), "leave", str(cluster.engine_file), str(cluster.folder / "engine-2.json")]
    assert subprocess.run(leave, check=False).returncode == 0
    eventually(lambda: client.ids == [], seconds=5)
    client.close()


def test_stopping_is_not_a_failure(cluster: Cluster) -> None:
    controller = cluster.controller()
    engine = cluster.engine(0)
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    client.close()
    engine.terminate()
    assert engine.wait(timeout=20) == 0
    controller.terminate()
    assert controller.wait(timeout=20) == 0
