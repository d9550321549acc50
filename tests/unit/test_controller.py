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
import ipyfleet_slot
import ipyparallel as ipp
import psutil
import pytest
import zmq
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import PortPlan
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import new_secrets
from conftest import ROOT
from ipcontroller import FIRST_GUEST
from ipyparallel.controller.heartmonitor import Heart

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
        self.files = FILES
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
        # of engines that reach the controller by a way of their own
        self.far_engine_file = folder / "far-engine.json"
        self.client_file.write_text(json.dumps(common | self.plan.client | {"task_scheme": "leastload"}))
        self.engine_file.write_text(json.dumps(common | self.plan.engine))
        (folder / "controller.py").write_text(
            "c = get_config()\nc.IPController.reuse_files = True\nc.IPController.restore_engines = True\n"
            f"c.IPController.ports = {self.plan.internal}\nc.HeartMonitor.period = 200\n"
            "c.IPController.registration_timeout = 5\n"
            f"c.IPController.curve_publickey = {keys.curve_public.encode()!r}\n"
            f"c.IPController.curve_secretkey = {keys.curve_secret.encode()!r}\nc.IPController.enable_curve = True\n"
        )

    def start(self, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(self.files / script), *arguments, f"--profile-dir={self.folder}"]
        log = (self.folder / "log.txt").open("a")
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        self.processes.append(process)
        return process

    def controller(self) -> subprocess.Popen[bytes]:
        process = self.start("ipcontroller.py", f"--config={self.folder}/controller.py")
        assert ipyfleet_hub.wait_ready([json.loads(self.client_file.read_text())], 30) == "", (self.folder / "log.txt").read_text()
        return process

    def engine(self, number: int, limits: dict[str, Any] | None = None, far: bool = False, **env: str) -> subprocess.Popen[bytes]:
        path = self.folder / f"engine-{number}.json"
        path.write_text(json.dumps({"id": number, "env": env, **(limits or {})}))
        return self.start("ipengine.py", str(path), *([f"--file={self.far_engine_file}"] if far else []))

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
    # tests that run at the same time look in places of their own, below the ports that connections go out from
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20
    for first in range(20000 + 600 * worker, 32000, 100):
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


def heard(client: ipp.Client, ask: Callable[[Any], Any]) -> list[Any] | None:
    """What all engines answer; None while a message is lost, as those to an engine that is not yet back are."""
    try:
        return list(ask(client[:]).get(timeout=0.5)) if client.ids else None
    except TimeoutError:
        return None


def marks(client: ipp.Client) -> list[int] | None:
    """What all engines remember."""
    return heard(client, lambda view: view.pull("mark", block=False))


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


@pytest.mark.parametrize("meanwhile", ["nothing", "controller killed"])
def test_an_engine_that_was_silent_is_back_with_its_memory(cluster: Cluster, meanwhile: str) -> None:
    controller = cluster.controller()
    engine = cluster.engine(3)
    client = cluster.client()
    eventually(lambda: client.ids == [3])
    client[3].push({"mark": 42}, block=True)
    client.close()
    before = cluster.listed()
    engine.send_signal(signal.SIGSTOP)
    eventually(lambda: cluster.listed() == {})
    if meanwhile == "controller killed":
        cluster.kill(controller)
        cluster.controller()
        assert cluster.listed() == {}
    engine.send_signal(signal.SIGCONT)
    eventually(lambda: cluster.listed() == before)
    again = cluster.client()
    eventually(lambda: marks(again) == [42])
    again.close()


def test_an_engine_that_was_silent_does_not_take_the_place_of_its_successor(cluster: Cluster) -> None:
    cluster.controller()
    silent = cluster.engine(3)
    eventually(lambda: list(cluster.listed()) == [3])
    silent.send_signal(signal.SIGSTOP)
    eventually(lambda: cluster.listed() == {})
    cluster.engine(3)
    eventually(lambda: list(cluster.listed()) == [3])
    successor = cluster.listed()
    silent.send_signal(signal.SIGCONT)
    time.sleep(1)  # five heartbeats
    assert cluster.listed() == successor
    cluster.kill(silent)


def test_an_engine_that_ended_while_there_was_no_controller_is_not_listed_for_ever(cluster: Cluster) -> None:
    controller = cluster.controller()
    lost, kept = cluster.engine(0), cluster.engine(1)
    eventually(lambda: sorted(cluster.listed()) == [0, 1])
    cluster.kill(controller)
    cluster.kill_silently(lost)
    cluster.controller()
    assert sorted(cluster.listed()) == [0, 1]
    eventually(lambda: list(cluster.listed()) == [1])
    assert kept.poll() is None


def test_an_engine_is_not_lost_whose_controller_dies_before_it_has_heard_its_heart(cluster: Cluster) -> None:
    controller = cluster.controller()
    info = json.loads(cluster.engine_file.read_text())
    line = ipyfleet_hub.Hub(info)
    line.session.send(line.socket, "registration_request", content={"uuid": "the-engine", "id": 3})
    assert line.socket.poll(10_000)
    line.close()
    cluster.kill(controller)
    cluster.controller()
    public, secret = zmq.curve_keypair()
    ping, pong = (f"tcp://127.0.0.1:{info[name]}" for name in ("hb_ping", "hb_pong"))
    serverkey = info["curve_serverkey"].encode()
    heart = Heart(ping, pong, heart_id=b"the-engine", curve_serverkey=serverkey, curve_publickey=public, curve_secretkey=secret)
    heart.start()
    eventually(lambda: cluster.listed() == {3: "the-engine"})


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


@ipp.interactive  # type: ignore[untyped-decorator]  # ipyparallel has no types
def take(megabytes: int) -> int:
    """Takes memory, step by step, and keeps it in a local variable; runs on an engine."""
    taken: list[bytearray] = []
    while sum(map(len, taken)) < megabytes << 20:
        taken.append(bytearray(1 << 20))
    return len(taken)


def test_a_task_that_takes_too_much_gets_an_error_and_its_engine_lives_on(cluster: Cluster) -> None:
    cluster.controller()
    engine = cluster.engine(0, {"memory_max": 400})
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    view = client[0]
    view.push({"kept": "safe"}, block=True)
    assert view.apply_sync(take, 50) == 50
    # the error of a task keeps none of what the task had taken, or the next one would have nothing
    for _ in range(2):
        with pytest.raises(ipp.RemoteError) as told:
            view.apply_sync(take, 1000)
        assert told.value.ename == "MemoryError"
        assert view.apply_sync(take, 50) == 50
    with pytest.raises(ipp.RemoteError, match="MemoryError"):
        view.execute("taken = bytearray(1 << 30)", block=True)
    with pytest.raises(ipp.RemoteError, match="the task's arguments do not fit into the 393 MiB of its engine"):
        view.apply_sync(len, os.urandom(300 << 20))
    # encrypted, it is there twice for a moment, which no task has to pay for
    assert len(view.apply_sync(bytes, 90 << 20)) == 90 << 20
    assert view["kept"] == "safe"
    assert view.apply_sync(os.getpid) == engine.pid
    client.close()


@ipp.interactive  # type: ignore[untyped-decorator]  # ipyparallel has no types
def fill(seconds: float) -> None:
    """Takes all memory that there is, and has it for a while; runs on an engine."""
    import contextlib
    import time

    taken: list[bytearray] = []
    with contextlib.suppress(MemoryError):
        while True:
            taken.append(bytearray(1 << 20))
    time.sleep(seconds)


def test_an_engine_that_cannot_hear_any_more_ends_and_does_not_look_alive(cluster: Cluster) -> None:
    cluster.controller()
    engine = cluster.engine(0, {"memory_max": 400})
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    client[0].apply_async(fill, 5)
    time.sleep(1)
    client[0].apply_async(len, os.urandom(20 << 20))
    assert engine.wait(timeout=20) == ipyfleet_slot.TRY_AGAIN
    assert "a message did not fit into the engine's memory" in (cluster.folder / "log.txt").read_text()
    client.close()


def test_a_lost_controller_is_no_reason_to_end(cluster: Cluster) -> None:
    controller = cluster.controller()
    engine = cluster.engine(0, {"memory_max": 400})
    client = cluster.client()
    eventually(lambda: client.ids == [0])
    client.close()
    cluster.kill(controller)
    time.sleep(ipyfleet_slot.RETRIED_SECONDS + 1)
    cluster.controller()
    client = cluster.client()
    eventually(lambda: heard(client, lambda view: view.apply_async(os.getpid)) == [engine.pid])
    assert client.ids == [0]
    client.close()


@ipp.interactive  # type: ignore[untyped-decorator]  # ipyparallel has no types
def what_i_have() -> dict[str, Any]:
    """Runs on an engine."""
    import os

    return {"cores": sorted(os.sched_getaffinity(0)), "threads": os.environ.get("OMP_NUM_THREADS"), "gpus": os.environ.get("GPUS")}


def test_slots_share_out_the_cores_of_their_host(cluster: Cluster) -> None:
    cluster.controller()
    there = ipyfleet_slot.by_neighbours(sorted(os.sched_getaffinity(0)))
    cluster.engine(0, {"cpus": {"cores": [], "number": 0, "slots": 2}}, GPUS="0")
    cluster.engine(1, {"cpus": {"cores": [there[-1]], "number": 1, "slots": 2}}, OMP_NUM_THREADS="7")
    client = cluster.client()
    eventually(lambda: client.ids == [0, 1])
    mine = sorted(ipyfleet_slot.share(there, 0, 2))
    assert client[:].apply_sync(what_i_have) == [
        {"cores": mine, "threads": str(len(mine)), "gpus": "0"},
        {"cores": [there[-1]], "threads": "7", "gpus": None},
    ]
    client.close()
