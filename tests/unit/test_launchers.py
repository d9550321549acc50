"""Launchers under ipyparallel's `Cluster`, with a fleet that only notes what it is asked for."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from dataclasses import replace
from pathlib import Path

import ipyparallel as ipp
import pytest
from fake_fleet import ACCESS, FLEET, Fake, fleet_of, new

from ipyfleet import attached
from ipyfleet.access import Access
from ipyfleet.cluster import named
from ipyfleet.launchers import FleetCluster, LaunchError


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The fleet of this folder, with an IPython folder of its own."""
    return fleet_of(tmp_path, monkeypatch)


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


def test_a_set_that_is_restarted_has_the_engines_that_it_had(fake: Fake) -> None:
    cluster = new()
    cluster.start_cluster_sync()
    cluster.stop_engine_sync(1)
    cluster.restart_engines_sync()
    assert fake.asked[-1] == ("start", ["n1/0", "n2/0", "n2/1"])
    assert (cluster.engine_set.ids, cluster.engine_set.n) == ([0, 2, 3], 3)


def test_a_set_that_is_restarted_has_the_engines_of_the_hosts_that_answered(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.away = {"n1"}
    cluster = new(log=logging.getLogger("test"))
    cluster.start_cluster_sync()
    (found,) = cluster.engines
    cluster.restart_engines_sync()
    assert fake.asked[-1] == ("start", ["n2/0", "n2/1"])
    fake.away = set()
    cluster.stop_engines_sync()
    assert "ran before" not in caplog.text
    # those that it did not have come after those that it had
    asyncio.run(cluster.start_engines(3, found))
    assert fake.asked[-1] == ("start", ["n1/0", "n2/0", "n2/1"])


def test_a_second_set_has_other_engines_and_more_than_there_are_slots_are_refused(fake: Fake) -> None:
    cluster = new(n=3)
    cluster.start_cluster_sync()
    with pytest.raises(LaunchError, match="n: expected at most 1 engines, as many as fleet lab has slots for, got 2"):
        cluster.start_engines_sync(2)
    asked = list(fake.asked)
    second = cluster.start_engines_sync(1)
    assert fake.asked[len(asked) :] == [("start", ["n2/1"])]
    assert cluster.engines[second].ids == [3]


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


def test_a_single_word_is_one_service() -> None:
    assert named("controller") == ["controller"]
    assert named([3, "n1/0"]) == ["3", "n1/0"]


def test_plain_clusters_find_them_by_their_short_name(fake: Fake) -> None:
    cluster = ipp.Cluster(controller="fleet", engines="fleet", delay=0, shutdown_atexit=False)
    cluster.start_cluster_sync(n=1)
    assert (cluster.to_dict()["controller"]["class"], cluster.to_dict()["engines"]["class"]) == ("fleet", "fleet")
    assert fake.running == {"controller", "n1/0"}
