"""Drain, scale and upgrade, by somebody whose client stays open: what is not meant keeps its process and its memory."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fleet import ETC, INVENTORY, NAME, command, eventually, main_pids, play, shell
from ipyparallel.error import RemoteError

from ipyfleet import Cluster, Result

# 00_hosts.yml says how the hosts are reached
SOURCES = (INVENTORY / "00_hosts.yml", INVENTORY / "lab.fleet.yml")
FILE = SOURCES[1]
GIVEN = [word for source in SOURCES for word in ("-i", str(source))]
HOSTS = ("node1", "node2", "node3")
# slot 1 of node1
SECOND = "node1 ipyfleet-lab-engine@1.service"


@pytest.fixture(scope="module", autouse=True)
def own_file() -> Iterator[None]:
    """A fleet file that may be edited: molecule's is a link to the scenario's own."""
    text, link = FILE.read_text(), FILE.readlink()
    FILE.unlink()
    FILE.write_text(text)
    yield
    FILE.unlink()
    FILE.symlink_to(link)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(SOURCES)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client that is opened once, and in use all the time."""
    client = Cluster(SOURCES).client()
    yield client
    client.close()


@pytest.fixture
def untouched(client: Any) -> Callable[..., None]:
    """Call it with the hosts, or units, that may have changed: all others have their processes and memory still."""
    eventually(lambda: len(client.ids) == engines())
    client[:].push({"mark": 7}, block=True)
    before, ids = main_pids(), dict(where(client))

    def check(*meant: str) -> None:
        after = main_pids()
        kept = {key: pid for key, pid in before.items() if not key.startswith(meant)}
        assert {key: after.get(key) for key in kept} == kept
        # the same process under the same id, with what was put there before
        engines = {f"{key.split()[0]} {pid.split()[0]}" for key, pid in kept.items() if "engine@" in key}
        still = {each: number for each, number in ids.items() if each in engines}
        eventually(lambda: {each: number for each, number in where(client).items() if each in engines} == still, 30)
        assert {number: client[number]["mark"] for number in still.values()} == dict.fromkeys(still.values(), 7)

    return check


def engines() -> int:
    """Engines that run, by their units."""
    return sum("engine@" in key for key in main_pids())


def who() -> str:
    import os
    import socket

    return f"{socket.gethostname()} {os.getpid()}"


def nap(seconds: float) -> str:
    import os
    import socket
    import time

    time.sleep(seconds)
    return f"{socket.gethostname()} {os.getpid()}"


who.__module__ = nap.__module__ = "__main__"


def where(client: Any) -> dict[str, int]:
    """Ids of engines by host and process."""
    return {client[number].apply_async(who).get(timeout=15): number for number in client.ids}


def slots(host: str) -> list[int]:
    """Numbers of slots whose engines run on a host."""
    return sorted(int(key.partition("@")[2].partition(".")[0]) for key in main_pids() if key.startswith(f"{host} ") and "engine@" in key)


def said(result: Result) -> str:
    return "; ".join([str(failure) for failure in result.failures] + list(result.warnings))


# -- drain


def test_a_look_before_a_drain_says_what_would_be_waited_for(cluster: Cluster, client: Any, untouched: Callable[..., None]) -> None:
    busy = client[0].apply_async(nap, 8)
    time.sleep(0.5)
    result = cluster.drain(limit="node1", check=True)
    assert result.ok, said(result)
    assert [(slot.number, slot.state) for slot in result.slots] == [(0, "working"), (1, "drained")]
    assert {change.what for change in result.hosts[-1].changes} == {"stop"}
    busy.get(timeout=20)
    untouched()


def test_a_drain_whose_time_is_up_leaves_everything_running(client: Any, untouched: Callable[..., None]) -> None:
    busy = client[0].apply_async(nap, 15)
    view = client.load_balanced_view(targets=[1])
    more = view.apply_async(nap, 15)
    time.sleep(0.5)
    told = command("drain", *GIVEN, "--limit", "node1", "--timeout", "2", "--json")
    assert told.returncode == 1
    data = json.loads(told.stdout)
    assert [slot["state"] for slot in data["slots"]] == ["busy", "busy"]
    assert [failure["message"] for failure in data["failures"]] == [
        "slot 0 (id 0): still busy after 2 s: 1 message of direct views",
        "slot 1 (id 1): still busy after 2 s: 1 load-balanced task",
    ]
    busy.get(timeout=30)
    more.get(timeout=30)
    untouched()
    # and they get work again
    eventually(lambda: len(set(client.load_balanced_view().map_async(nap, [0.05] * 30).get(timeout=30))) == 6, 20)


def test_a_drained_slot_gets_nothing_new_and_is_stopped_when_it_is_done(
    cluster: Cluster, client: Any, untouched: Callable[..., None]
) -> None:
    numbers = where(client)
    busy = client[1].apply_async(nap, 22)
    time.sleep(0.5)
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(cluster.drain(services=["node1/1"], timeout=60)))
    thread.start()
    time.sleep(12)
    during = Counter(numbers[name] for name in client.load_balanced_view().map_async(nap, [0.05] * 40).get(timeout=30))
    thread.join(90)
    assert results[0].ok, said(results[0])
    assert busy.get(timeout=5).startswith("node1 ")
    assert 1 not in during
    assert (slots("node1"), client.ids) == ([0], [0, 2, 3, 4, 5])
    untouched("node1 ipyfleet-lab-engine@1")
    again = cluster.drain(services=["node1/1"])
    assert (again.ok, again.changed) == (True, False)
    assert cluster.start(services=["node1/1"]).ok
    eventually(lambda: client.ids == [0, 1, 2, 3, 4, 5])


def test_ops_drain_a_host_by_its_playbook(untouched: Callable[..., None]) -> None:
    told = play("--limit=node2", playbook="playbooks/drain.yml", sources=SOURCES)
    assert told.returncode == 0, told.stdout
    assert slots("node2") == []
    untouched("node2 ")
    assert play("--limit=node2", playbook="playbooks/start.yml", sources=SOURCES).returncode == 0


# -- scale


def test_a_look_before_scaling_changes_nothing(untouched: Callable[..., None]) -> None:
    before = FILE.read_text()
    told = command("scale", *GIVEN, "node1=3", "node3=0", "--check")
    assert told.returncode == 0, told.stdout
    assert "-  node1: 2\n+  node1: 3\n" in told.stdout
    assert "start: ipyfleet-lab-engine@2.service" in told.stdout
    assert "would be taken out of the fleet: node3" in told.stdout
    assert (FILE.read_text(), sorted(INVENTORY.glob(".*.fleet.yml"))) == (before, [])
    untouched()


def test_more_slots(cluster: Cluster, client: Any, untouched: Callable[..., None]) -> None:
    result = cluster.scale({"node1": "+1", "node3": 3})
    assert result.ok, said(result)
    assert {slot.host for slot in result.slots} == {"node1", "node3"}
    assert (slots("node1"), slots("node2"), slots("node3")) == ([0, 1, 2], [0, 1], [0, 1, 2])
    assert "\n  # the rack by the window\n  node2: 2\n  node3: 3   # two each\n" in FILE.read_text()
    untouched()
    eventually(lambda: client.ids == list(range(8)))


def test_slots_that_go_are_waited_for(cluster: Cluster, client: Any, untouched: Callable[..., None]) -> None:
    numbers = {slot.number: slot.id for slot in cluster.status(limit="node1").slots}
    busy = client[numbers[2]].apply_async(nap, 12)
    time.sleep(0.5)
    before = FILE.read_text()
    late = cluster.scale({"node1": 2}, timeout=1)
    assert (late.status, late.exit_code) == ("failed", 1)
    assert "lab.fleet.yml is as it was; run it again to go on" in late.warnings
    assert (FILE.read_text(), slots("node1")) == (before, [0, 1, 2])
    result = cluster.scale({"node1": 2, "node3": 2})
    assert result.ok, said(result)
    assert busy.get(timeout=5).startswith("node1 ")
    assert (slots("node1"), slots("node3")) == ([0, 1], [0, 1])
    assert shell("node1", f"ls {ETC}").split() == ["engine-0.json", "engine-1.json", "fleet.json", "ipengine_config.py"]
    untouched("node1 ipyfleet-lab-engine@2", "node3 ipyfleet-lab-engine@2")


def test_a_host_goes_and_comes(cluster: Cluster, client: Any, untouched: Callable[..., None]) -> None:
    out = cluster.scale({"node3": 0})
    assert out.ok, said(out)
    assert "node3" not in FILE.read_text()
    assert shell("node3", "ls -d /etc/ipyfleet/lab /opt/ipyfleet/lab; getent passwd ipyfleet-lab", check=False) == ""
    untouched("node3 ")
    assert client.ids == [0, 1, 2, 3]
    back = cluster.scale({"node3": 2})
    assert back.ok, said(back)
    assert (slots("node3"), back.slots[0].host) == ([0, 1], "node3")
    untouched("node3 ")
    eventually(lambda: client.ids == list(range(6)))


def test_a_host_that_is_not_there_does_not_come(untouched: Callable[..., None]) -> None:
    before = FILE.read_text()
    told = command("scale", *GIVEN, "nowhere=2")
    assert told.returncode == 1, told.stdout
    assert "nowhere: unreachable" in told.stdout
    assert "nothing was changed" in told.stdout
    assert FILE.read_text() == before
    untouched()


def test_ops_edit_the_file_and_run_a_playbook(client: Any, untouched: Callable[..., None]) -> None:
    before = FILE.read_text()
    number = next(number for name, number in where(client).items() if name == f"node1 {main_pids()[SECOND].split()[0]}")
    busy = client[number].apply_async(nap, 20)
    FILE.write_text(before.replace("node1: 2", "node1: 1"))
    late = play("--limit=node1", "-e", "drain_timeout=1", playbook="playbooks/scale.yml", sources=SOURCES)
    assert late.returncode != 0
    assert f"node1/1 (id {number}): still busy after 1 s: 1 message of direct views" in late.stdout
    assert slots("node1") == [0, 1]
    done = play("--limit=node1", playbook="playbooks/scale.yml", sources=SOURCES)
    assert done.returncode == 0, done.stdout
    assert busy.get(timeout=5).startswith("node1 ")
    assert slots("node1") == [0]
    untouched(SECOND)
    FILE.write_text(before)
    assert play("--limit=node1", sources=SOURCES).returncode == 0
    assert slots("node1") == [0, 1]


# -- upgrade

PACKAGE = "tabulate"
HAS = f"import importlib.util, json; print(json.dumps(importlib.util.find_spec('{PACKAGE}') is not None))"


def hosts_with_package() -> list[str]:
    return [name for name in ("head", *HOSTS) if shell(name, f'/opt/ipyfleet/{NAME}/env/bin/python -c "{HAS}"') == "true"]


def test_an_upgrade_stops_at_the_first_host_that_fails_and_goes_on(cluster: Cluster, client: Any, untouched: Callable[..., None]) -> None:
    FILE.write_text(FILE.read_text() + f"python_packages: [{PACKAGE}]\n")
    looked = cluster.upgrade(check=True)
    assert looked.ok, said(looked)
    untouched()
    # node2's engines do not come up any more
    folder = "/etc/systemd/system/ipyfleet-lab-engine@.service.d"
    shell("node2", f"mkdir -p {folder}; printf '[Service]\\nExecStartPre=/bin/false\\n' > {folder}/broken.conf; systemctl daemon-reload")
    stopped = cluster.upgrade()
    assert not stopped.ok
    assert "after its upgrade, 2 of 2 engine slots did not answer; the upgrade stopped at node2." in said(stopped)
    assert hosts_with_package() == ["head", "node1", "node2"]
    untouched("head ", "node1 ", "node2 ")
    # its neighbours work with the new controller all the same
    eventually(lambda: len(where(client)) == 4)
    shell("node2", f"rm -r {folder}; systemctl daemon-reload; systemctl reset-failed 'ipyfleet-lab-engine@*'")
    node1 = [key for key in main_pids() if key.startswith("node1 ")]
    before = main_pids()
    result = cluster.upgrade()
    assert result.ok, said(result)
    assert [slot.state for slot in result.slots] == ["ok"] * 6
    assert hosts_with_package() == ["head", *HOSTS]
    # what was done is not done again
    after = main_pids()
    assert {key: after[key] for key in node1} == {key: before[key] for key in node1}
    assert after["head ipyfleet-lab-controller.service"] == before["head ipyfleet-lab-controller.service"]
    eventually(lambda: client.ids == list(range(6)))


def test_a_busy_engine_is_waited_for_before_its_host_s_turn(cluster: Cluster, client: Any) -> None:
    FILE.write_text(FILE.read_text().replace(f"[{PACKAGE}]", "[]"))
    number = cluster.status(limit="node3").slots[0].id
    busy = client[number].apply_async(nap, 600)
    time.sleep(0.5)
    late = cluster.upgrade(batch=2, timeout=3)
    assert not late.ok
    assert "the upgrade stopped at" in said(late)
    assert hosts_with_package() == ["node3"]
    cluster.signal("INT", services=[number])
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        busy.get(timeout=20)
    result = cluster.upgrade(batch=3)
    assert result.ok, said(result)
    assert hosts_with_package() == []
