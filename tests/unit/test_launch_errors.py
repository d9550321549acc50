"""Launchers under ipyparallel's `Cluster` when something goes wrong, or is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_fleet import FLEET, Client, Fake, fleet_of, new
from ipyparallel.cluster.app import IPClusterStart

from ipyfleet import attached, runner
from ipyfleet.cluster import CANCEL, Cluster
from ipyfleet.errors import ClientError, IpyfleetError
from ipyfleet.launchers import LaunchError
from ipyfleet.results import Result


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The fleet of this folder, with an IPython folder of its own."""
    return fleet_of(tmp_path, monkeypatch)


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


def test_a_controller_that_does_not_answer_is_stopped_again(fake: Fake) -> None:
    fake.verified = False
    with pytest.raises(LaunchError, match="head: expected the controller to answer, got none"):
        new().start_cluster_sync()
    assert fake.asked == [("start", ["controller"]), ("stop", ["controller"])]
    fake.running = {"controller"}
    with pytest.raises(LaunchError, match="head: expected the controller to answer, got none"):
        new().start_cluster_sync()
    assert fake.running == {"controller"}


def test_engines_that_cannot_be_asked_whether_they_are_there_are_stopped_again(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached.Attached, "client", no_way)
    cluster = new(n=2)
    with pytest.raises(LaunchError, match="head: no way leads there"):
        cluster.start_cluster_sync()
    assert fake.running == {"controller"}
    cluster.stop_cluster_sync()
    assert fake.running == set()


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


def test_a_signal_goes_by_the_hosts_to_those_alone_that_the_controller_did_not_reach(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    monkeypatch.setattr(attached.Attached, "client", lambda _: contextlib.nullcontext(client))
    cluster = new(log=logging.getLogger("test"))
    cluster.start_cluster_sync()
    del fake.asked[:]
    cluster.signal_engines_sync("INT")
    assert client.passed_on == [("SIGINT", 0), ("SIGINT", 1), ("SIGINT", 2)]
    assert fake.asked == [("SIGINT", ["n1/1", "n2/1"])]
    assert "the controller did not pass on SIGINT (No such engine: 3; too late); asking the engines' hosts" in caplog.text
    cluster.signal_engine_sync("INT", 0)
    assert len(fake.asked) == 1


def test_who_is_cancelled_ends_what_it_asked_for_and_nothing_that_others_did(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, left = threading.Event(), threading.Event()
    waited: list[bool] = []

    def restart(*, services: list[str]) -> Result:
        entered.set()
        # as a run does, which ends when it is cancelled
        waited.append(CANCEL.get().wait(0.5))
        left.set()
        return fake.act("restart", services, {"running": "restart", "stopped": "start"})

    async def scenario(first_too: bool) -> None:
        entered.clear()
        left.clear()
        first = asyncio.create_task(cluster.restart_engine(0))
        await asyncio.to_thread(entered.wait, 10)
        second = asyncio.create_task(cluster.stop_engine(1))
        await asyncio.sleep(0.1)
        second.cancel()
        if first_too:
            first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert await asyncio.to_thread(left.wait, 10)

    cluster = new(n=2)
    cluster.start_cluster_sync()
    del fake.asked[:]
    monkeypatch.setattr(fake, "restart", restart)
    asyncio.run(scenario(first_too=False))
    assert waited == [False]
    asyncio.run(scenario(first_too=True))
    assert waited == [False, True]
    assert fake.asked == [("restart", ["n1/0"])] * 2
    # who comes afterwards is not cancelled
    cluster.stop_engine_sync(1)
    assert fake.asked[-1] == ("stop", ["n1/1"])


def test_a_run_is_cancelled_by_the_event_of_its_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab.fleet.yml").write_text(FLEET)
    seen: list[threading.Event] = []
    monkeypatch.setattr(runner, "run", lambda _request, _progress, cancel: seen.append(cancel))
    fleet, event = Cluster(tmp_path / "lab.fleet.yml"), threading.Event()
    contextvars.copy_context().run(attached.cancelled_by, event, fleet.status)
    fleet.status()
    assert seen[0] is event
    assert seen[1] is not event


def no_way(_: Any) -> Any:
    raise ClientError("head: no way leads there")


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("name", ["client_info", "client"])
def test_ipcluster_ends_when_no_way_leads_to_the_controller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr(attached.Attached, name, no_way)
    app = IPClusterStart(log=logging.getLogger("test"))
    cluster = new(parent=app, log=app.log)
    with pytest.raises(SystemExit) as caught:
        asyncio.run(cluster.start_cluster())
    assert caught.value.code == 1
    assert caplog.messages[-1] == "head: no way leads there"


def test_ipcluster_that_would_leave_the_cluster_running_stops_what_it_has_started(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    app = IPClusterStart(log=logging.getLogger("test"), daemonize=True)
    cluster = new(parent=app, log=app.log, n=9)
    with pytest.raises(SystemExit):
        asyncio.run(cluster.start_cluster())
    assert "n: expected at most 4 engines" in caplog.text
    assert fake.asked == [("start", ["controller"]), ("stop", ["controller"])]
    assert not Path(cluster.cluster_file).exists()


def test_ipcluster_ends_with_one_line_where_it_would_wait_for_ever(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.deployed = False
    app = IPClusterStart(log=logging.getLogger("test"))
    cluster = new(parent=app, log=app.log)
    with pytest.raises(SystemExit) as caught:
        asyncio.run(cluster.start_cluster())
    assert caught.value.code == 1
    assert caplog.messages[-1] == "fleet lab: expected its keys in /keys, got none; deploy it first"


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
