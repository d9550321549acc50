"""Launchers under ipyparallel's `Cluster`, with a fleet that only notes what it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipyparallel as ipp
import pytest
from ipyparallel.cluster.app import IPClusterStart
from registered import register

from ipyfleet import attached, launchers, launching
from ipyfleet.access import Access, Engine, Way
from ipyfleet.cluster import named
from ipyfleet.errors import ClientError, IpyfleetError
from ipyfleet.launchers import FleetCluster, LaunchError
from ipyfleet.results import Change, Failure, Host, LogLine, Result

FLEET = "plugin: fleet\nname: lab\ncontroller: head\nengines: {n1: 2, n2: 2}\n"
ENGINES = tuple(Engine(number, f"n{1 + number // 2}", number % 2) for number in range(4))

ACCESS = Access({"location": "head"}, "head", {}, "lab", Way("head", {}, ()), ENGINES, Path("/none"), {})


class Fake:
    """A fleet: services that run or do not, hosts that are away, and all that was asked for."""

    sources = ("lab.fleet.yml",)

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.away: set[str] = set()
        self.asked: list[tuple[str, list[str]]] = []
        self.deployed = True
        self.silent: set[int] = set()

    def access(self) -> Access:
        if not self.deployed:
            raise ClientError("fleet lab: expected its keys in /keys, got none; deploy it first")
        return ACCESS

    def host_of(self, name: str) -> str:
        return name.partition("/")[0] if "/" in name else "head"

    def act(self, verb: str, services: list[str], what: dict[str, str]) -> Result:
        self.asked.append((verb, sorted(services)))
        # nobody goes to a host of which no service is meant
        missed = self.away & {self.host_of(name) for name in services}
        changes: dict[str, list[Change]] = {"head": [], "n1": [], "n2": []}
        for name in services:
            host = self.host_of(name)
            if host not in self.away:
                unit = f"ipyfleet-lab-engine@{name.partition('/')[2]}.service" if "/" in name else f"ipyfleet-lab-{name}.service"
                changes[host].append(Change(unit, what["running" if name in self.running else "stopped"]))
        hosts = [
            Host(name, "unreachable" if name in missed else "changed", changes=tuple(each for each in found if each.what))
            for name, found in changes.items()
        ]
        failures = tuple(Failure("unreachable: no answer", name) for name in sorted(missed))
        there = {name for name in services if self.host_of(name) not in self.away}
        self.running = self.running - there if verb == "stop" else self.running | there
        return Result(verb, "failed" if failures else "ok", 1.0, 0, hosts=tuple(hosts), failures=failures)

    def start(self, *, services: list[str], verify: bool) -> Result:
        # engines may be busy
        assert verify == (services == ["controller"])
        return self.act("start", services, {"running": "", "stopped": "start"})

    def restart(self, *, services: list[str], verify: bool = True) -> Result:
        del verify
        return self.act("restart", services, {"running": "restart", "stopped": "start"})

    def stop(self, *, services: list[str]) -> Result:
        return self.act("stop", services, {"running": "stop", "stopped": ""})

    def signal(self, *, name: str, services: list[str]) -> Result:
        return self.act(name, services, {"running": "signal", "stopped": ""})

    def logs(self, *, lines: int, services: list[str]) -> Result:
        assert lines == 200
        said = tuple(LogLine(self.host_of(name), name, "hello") for name in services if self.host_of(name) not in self.away)
        failures = tuple(Failure("unreachable: no answer", name) for name in self.away)
        return Result("logs", "ok", 1.0, 0, logs=said, failures=failures)

    def cancel(self) -> None:
        self.asked.append(("cancel", []))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """The fleet of this folder, with an IPython folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("IPYFLEET_INVENTORY", raising=False)
    (tmp_path / "lab.fleet.yml").write_text(FLEET)
    (tmp_path / "site").mkdir()
    register(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = Fake()
    monkeypatch.setattr(attached, "Cluster", lambda *_, **__: found)
    monkeypatch.setattr(attached, "_KNOWN", {})
    monkeypatch.setattr(attached.Attached, "client_info", lambda _: {"location": "nowhere"})
    monkeypatch.setattr(attached.Attached, "client", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(launchers, "ask_engines", lambda _, ids, __: {number: 1 for number in ids if number not in found.silent})
    monkeypatch.setattr(launching.FleetLauncher.watch_seconds, "default_value", 0.05)
    yield found


def new(**more: Any) -> Any:
    """A cluster of the fleet; it is not stopped by the garbage collector."""
    return FleetCluster(delay=0, shutdown_atexit=False, **more)


def test_all_slots_are_started_by_default_and_what_was_started_is_stopped_in_one_run(fake: Fake) -> None:
    cluster = new()
    asyncio.run(cluster.start_cluster())
    assert fake.asked == [("start", ["controller"]), ("start", ["n1/0", "n1/1", "n2/0", "n2/1"])]
    assert (cluster.engine_set.n, cluster.engine_set.ids) == (4, [0, 1, 2, 3])
    asyncio.run(cluster.stop_cluster())
    assert fake.asked[2:] == [("stop", ["controller", "n1/0", "n1/1", "n2/0", "n2/1"])]
    assert not cluster.engines
    assert not Path(cluster.cluster_file).exists()


def test_what_ran_before_is_left_running_and_said_so(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.running = {"controller", "n1/0"}
    cluster = new(log=logging.getLogger("test"))
    with caplog.at_level("INFO", "test"):
        cluster.start_cluster_sync(n=2)
        cluster.stop_cluster_sync()
    assert fake.asked[-1] == ("stop", ["n1/1"])
    assert "controller ran before, and is left running" in caplog.text
    assert fake.running == {"controller", "n1/0"}


def test_engines_that_ran_before_are_restarted_when_that_is_asked_for(fake: Fake) -> None:
    fake.running = {"controller", "n1/0"}
    cluster = new()
    cluster.start_cluster_sync(n=2)
    cluster.restart_engines_sync()
    assert fake.asked[-2:] == [("stop", ["n1/1"]), ("restart", ["n1/0", "n1/1"])]
    cluster.stop_cluster_sync()
    assert fake.running == {"controller", "n1/0"}


def test_a_second_set_has_other_engines_and_more_than_there_are_slots_are_refused(fake: Fake) -> None:
    cluster = new(n=3)
    cluster.start_cluster_sync()
    with pytest.raises(LaunchError, match="n: expected at most 1 engines, as many as fleet lab has slots for, got 2"):
        cluster.start_engines_sync(2)
    asked = list(fake.asked)
    second = cluster.start_engines_sync(1)
    assert fake.asked[len(asked) :] == [("start", ["n2/1"])]
    assert cluster.engines[second].ids == [3]


def test_a_host_that_is_away_does_not_fail_the_others(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.away = {"n2"}
    cluster = new(log=logging.getLogger("test"))
    cluster.start_cluster_sync()
    assert cluster.engine_set.n == 2
    assert cluster.engine_set.get_output().splitlines() == ["n1 n1/0: hello", "n1 n1/1: hello"]
    assert caplog.text.count("n2: unreachable: no answer") >= 2


def test_an_engine_that_was_started_and_does_not_answer_is_named_and_not_counted(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.running, fake.silent = {"n2/0"}, {1, 2}
    cluster = new(log=logging.getLogger("test"))
    cluster.start_cluster_sync()
    # one that ran before may be busy
    assert cluster.engine_set.n == 3
    assert "n1/1: engine 1 was started, and does not answer" in caplog.text
    # a controller that runs knows who has left
    cluster.restart_engines_sync()
    assert cluster.engine_set.n == 3


def test_a_set_of_which_no_host_answers_is_an_error(fake: Fake) -> None:
    fake.away = {"n2"}
    cluster = new(n=2)
    cluster.start_cluster_sync()
    with pytest.raises(LaunchError, match="n2: unreachable: no answer"):
        cluster.start_engines_sync(2)
    cluster.stop_cluster_sync()
    assert fake.asked[-1] == ("stop", ["controller", "n1/0", "n1/1"])


def test_a_fleet_of_which_no_host_answers_is_an_error(fake: Fake) -> None:
    fake.away = {"head", "n1", "n2"}
    with pytest.raises(LaunchError, match="head: unreachable: no answer"):
        new().start_cluster_sync()


def test_a_fleet_that_is_not_deployed_is_an_error_that_says_what_to_do(fake: Fake) -> None:
    fake.deployed = False
    with pytest.raises(LaunchError, match="deploy it first"):
        new().start_cluster_sync()
    assert not fake.asked


def test_launchers_of_two_kinds_are_refused_before_anything_is_started(fake: Fake) -> None:
    with pytest.raises(LaunchError, match="engines: expected 'fleet' with controller='fleet', got LocalEngineSetLauncher"):
        new(engines="local").start_cluster_sync()
    with pytest.raises(LaunchError, match="controller: expected 'fleet' with engines='fleet', since its engines belong to it; got none"):
        new().start_engines_sync(1)
    assert not fake.asked


def test_which_fleet_it_is(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.fleet.yml").write_text(FLEET)
    with pytest.raises(LaunchError, match=r"c\.FleetLauncher\.fleet_file: expected one fleet file, got b\.fleet\.yml, lab\.fleet\.yml"):
        new().start_controller_sync()
    monkeypatch.setenv("IPYFLEET_INVENTORY", "b.fleet.yml")
    chosen = {}
    for name, more in {"b": {}, "lab": {"fleet_file": "lab.fleet.yml"}}.items():
        cluster = new(**more)
        cluster.start_controller_sync()
        chosen[name] = cluster.controller.sources
    assert chosen == {name: [str(tmp_path / f"{name}.fleet.yml")] for name in ("b", "lab")}
    assert fake.asked


def test_another_process_stops_what_this_one_has_started_and_this_one_notices(fake: Fake) -> None:
    async def scenario() -> None:
        cluster = new(n=2)
        await cluster.start_cluster()
        saved = json.loads(Path(cluster.cluster_file).read_text())
        copy = ipp.Cluster.from_file(cluster.cluster_file)
        assert isinstance(copy, FleetCluster)
        assert saved == copy.to_dict()
        await copy.stop_cluster()
        for launcher in (cluster.controller, cluster.engine_set):
            await launcher.join(timeout=20)
        assert not cluster._is_running()
        await cluster.stop_cluster()

    asyncio.run(scenario())
    assert [verb for verb, _ in fake.asked] == ["start", "start", "stop"]


def test_one_engine_is_restarted_stopped_and_signalled(fake: Fake) -> None:
    cluster = new(n=3)
    cluster.start_cluster_sync()
    del fake.asked[:]
    cluster.restart_engine_sync(2)
    cluster.signal_engine_sync(signal.SIGINT, 1)
    cluster.signal_engines_sync("SIGUSR1")
    cluster.stop_engine_sync(0)
    assert fake.asked == [("restart", ["n2/0"]), ("SIGINT", ["n1/1"]), ("SIGUSR1", ["n1/0", "n1/1", "n2/0"]), ("stop", ["n1/0"])]
    assert (cluster.engine_set.n, cluster.engine_set.ids, cluster.engine_set.started) == (2, [1, 2], ["n1/1", "n2/0"])
    with pytest.raises(LaunchError, match="engine: expected one of 1, 2, got 0"):
        cluster.restart_engine_sync(0)


def test_ipcluster_ends_with_one_line_where_it_would_wait_for_ever(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.deployed = False
    app = IPClusterStart(log=logging.getLogger("test"))
    cluster = new(parent=app, log=app.log)
    with pytest.raises(SystemExit) as caught:
        asyncio.run(cluster.start_cluster())
    assert caught.value.code == 1
    assert caplog.messages[-1] == "fleet lab: expected its keys in /keys, got none; deploy it first"


def test_access_is_read_anew_when_a_key_has_changed_and_only_then(fake: Fake, tmp_path: Path) -> None:
    reads = []

    def access() -> Access:
        reads.append(1)
        return replace(ACCESS, secrets_dir=tmp_path)

    fake.access = access  # type: ignore[method-assign]
    known = attached.attached(["lab.fleet.yml"])
    known.access()
    (tmp_path / "claim").touch()
    known.access()
    assert len(reads) == 1
    (tmp_path / "secrets.json").write_text("{}")
    known.access()
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("code", "out", "err", "expected"),
    [
        (0, '{"failures": []}', "", ""),
        (1, '{"failures": [{"host": "n1", "message": "away"}]}', "", "n1: away"),
        (2, "", "ipyfleet: no such fleet\n", "ipyfleet: no such fleet"),
    ],
)
def test_a_process_that_ends_stops_by_the_command(monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str, expected: str) -> None:
    typed: list[str] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        typed.extend(command)
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    monkeypatch.setattr(subprocess, "run", run)
    if expected:
        with pytest.raises(IpyfleetError, match=expected):
            attached.stop_by_command(["a.yml"], ["-v"], ["n1/0"])
    else:
        attached.stop_by_command(["a.yml"], ["-v"], ["n1/0"])
    assert typed == [sys.executable, "-m", "ipyfleet", "stop", "--json", "-i", "a.yml", "--service", "n1/0", "--", "-v"]


def test_a_single_word_is_one_service() -> None:
    assert named("controller") == ["controller"]
    assert named([3, "n1/0"]) == ["3", "n1/0"]


def test_plain_clusters_find_them_by_their_short_name(fake: Fake) -> None:
    cluster = ipp.Cluster(controller="fleet", engines="fleet", delay=0, shutdown_atexit=False)
    cluster.start_cluster_sync(n=1)
    assert (cluster.to_dict()["controller"]["class"], cluster.to_dict()["engines"]["class"]) == ("fleet", "fleet")
    assert fake.running == {"controller", "n1/0"}
