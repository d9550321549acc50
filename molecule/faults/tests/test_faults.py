"""What can happen to a fleet that runs: it comes back by itself, memory stays where it can, and a client that was open goes on.

After each fault all slots answer under their ids, engines that it did not hit are the same processes with
what they remembered, and nothing is left over. The figures are in a table at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from figures import FIGURES
from fleet import ENGINE_FILE, INVENTORY, NAME, ROOT, STATE, USER, command, container, engine_run, eventually, shell

from ipyfleet import Cluster
from ipyfleet.client import new_client

CONTROLLER = f"ipyfleet-{NAME}-controller.service"
IDS = [0, 1, 2, 3]
HOSTS = ("head", "node1", "node2")
# of each host: its engines
ENGINES = {"head": 0, "node1": 2, "node2": 2}
State = dict[int, tuple[int, int | None]]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client on this machine that is open all the time; not through ssh, whose connection would end with the controller's host."""
    info = {**Cluster(INVENTORY).access().info, "location": shell("head", "hostname -I").split()[0]}
    found = new_client(info, "head", 20)
    assert found.ids == IDS
    yield found
    found.close()


def state(client: Any, seconds: float = 2) -> State:
    """Process and memory of each engine that answers."""
    asked = {}
    for number in IDS:
        # the client may not know yet that it is back
        with contextlib.suppress(Exception):
            view = client[number]
            asked[number] = (view.apply_async(os.getpid), view.pull("mark", block=False))
    found: State = {}
    deadline = time.monotonic() + seconds
    for number, (pid, mark) in asked.items():
        with contextlib.suppress(Exception):
            answer = int(pid.get(timeout=max(0.01, deadline - time.monotonic())))
            found[number] = (answer, None)
            found[number] = (answer, int(mark.get(timeout=max(0.01, deadline - time.monotonic()))))
    return found


def marked(client: Any) -> State:
    """State of all engines, each of which remembers something."""
    for number in IDS:
        client[number].push({"mark": 11 * number}, block=False).get(timeout=20)
    found = state(client, 20)
    assert {number: mark for number, (_, mark) in found.items()} == {number: 11 * number for number in IDS}
    return found


def is_back(client: Any, before: State, lost: Collection[int]) -> bool:
    """Whether all engines answer, those that were lost as new processes, the others as the same with their memory."""
    now = state(client)
    if sorted(now) != IDS or client.ids != IDS:
        return False
    return all(now[each] == before[each] if each not in lost else now[each][0] != before[each][0] for each in IDS)


def recovers(
    client: Any, what: str, act: Callable[[], object], lost: Collection[int] = (), also: Callable[[], bool] = lambda: True
) -> None:
    """Have something happen, and note the seconds until all is well again.

    :param act: what happens; it returns when the fault is over, or when it has begun where nobody ends it.
    :param lost: engines that do not outlive it.
    :param also: what has to be true for all to be well.
    """
    before = marked(client)
    act()
    seconds = eventually(lambda: also() and is_back(client, before, lost), 90)
    eventually(lambda: leftovers() == [], 20)
    # balanced tasks, too
    waiting = [client.load_balanced_view().apply_async(os.getpid) for _ in IDS]
    assert all(each.get(timeout=20) for each in waiting)
    FIGURES.append((what, seconds))


def leftovers() -> list[str]:
    """What is there twice, or failed, or should not be there."""
    found = []
    for name in HOSTS:
        lines = [line.split(None, 3) for line in shell(name, "ps -eo pid=,ppid=,stat=,args=").splitlines()]
        mains = [line for line in lines if "lib/ipengine.py" in line[3]]
        nannies = [line for line in lines if "ipyparallel.engine.nanny" in line[3]]
        controllers = [line for line in lines if "lib/ipcontroller.py" in line[3] and line[1] == "1"]
        counts = (len(mains), len(nannies), len(controllers))
        if counts != (ENGINES[name], ENGINES[name], int(name == "head")):
            found.append(f"{name}: engines, nannies, controllers: {counts}")
        if failed := shell(name, f"systemctl list-units --failed --plain --no-legend 'ipyfleet-{NAME}*'"):
            found.append(f"{name}: {failed}")
    return found


def main_pid(name: str, unit: str) -> str:
    return shell(name, f"systemctl show -p MainPID --value {unit}")


def engine_unit(slot: int) -> str:
    return f"ipyfleet-{NAME}-engine@{slot}.service"


def ports() -> dict[str, Any]:
    return dict(json.loads(shell("head", f"cat {ENGINE_FILE}")))


# -- killed


@pytest.mark.parametrize("which", ["first", "second", "third"])
def test_a_controller_is_killed(client: Any, which: str) -> None:
    recovers(client, f"controller killed, {which} time", lambda: shell("head", f"kill -9 {main_pid('head', CONTROLLER)}"))


def test_all_processes_of_the_controller_are_killed(client: Any) -> None:
    recovers(client, "all processes of the controller killed", lambda: shell("head", f"systemctl kill -s KILL {CONTROLLER}"))


@pytest.mark.parametrize("how", ["engine", "engine and nanny"])
def test_an_engine_is_killed(client: Any, how: str) -> None:
    unit = engine_unit(1)
    act = f"kill -9 {main_pid('node1', unit)}" if how == "engine" else f"systemctl kill -s KILL {unit}"
    recovers(client, f"{how} killed", lambda: shell("node1", act), lost=[1])


def test_children_of_a_killed_engine_die_with_it(client: Any) -> None:
    code = "import subprocess; child = subprocess.Popen(['sleep', '4242'], start_new_session=True)"
    client[3].execute(code, block=False).get(timeout=20)
    assert shell("node2", "pgrep -fc '^sleep 4242'") == "1"
    pid = main_pid("node2", engine_unit(1))
    recovers(client, "engine with children killed", lambda: shell("node2", f"kill -9 {pid}"), lost=[3])
    assert shell("node2", "pgrep -fc '^sleep 4242'", check=False) == "0"


def test_a_nanny_is_killed(client: Any) -> None:
    def act() -> None:
        pid = shell("node1", f"pgrep -P {main_pid('node1', engine_unit(0))} -f ipyparallel.engine.nanny")
        shell("node1", f"kill -9 {pid}")
        eventually(lambda: leftovers() == [], 20)

    recovers(client, "nanny killed", act)
    # signals come through it
    waiting = client[0].apply_async(time.sleep, 60)
    time.sleep(1)
    client.send_signal(signal.SIGINT, targets=[0], block=True)
    with pytest.raises(Exception, match="KeyboardInterrupt"):
        waiting.get(timeout=20)


def test_a_scheduler_is_killed(client: Any) -> None:
    """The controller goes on without it; its watchdog notices."""
    mux = json.loads(shell("head", f"cat {ENGINE_FILE}"))["mux"]
    # who may look at the user's processes is the user alone, root is not in a container
    pid = shell("head", f"runuser -u {USER} -- ss -Htlnp sport = :{mux} | grep -o 'pid=[0-9]*' | cut -d= -f2")
    recovers(client, "one of the controller's schedulers killed", lambda: shell("head", f"kill -9 {pid}"))


# -- hung


def test_an_engine_hangs(client: Any) -> None:
    recovers(client, "engine hung", lambda: shell("node1", f"kill -STOP {main_pid('node1', engine_unit(1))}"), lost=[1])
    slots = json.loads(command("status", "-i", str(INVENTORY), "--json").stdout)["slots"]
    assert [slot["id"] for slot in slots if slot["healed"]] == [1]
    assert slots[1]["healed"].startswith("1 time, last at 20")
    assert slots[1]["healed"].endswith(": it was stopped for 20 s")


def test_a_controller_hangs(client: Any) -> None:
    pid = main_pid("head", CONTROLLER)
    # engines and client go on by its schedulers meanwhile
    recovers(
        client, "controller hung", lambda: shell("head", f"kill -STOP {pid}"), also=lambda: main_pid("head", CONTROLLER) not in (pid, "0")
    )
    told = command("status", "-i", str(INVENTORY), "--json").stdout
    assert [line for line in json.loads(told)["warnings"] if line.startswith("head: controller was restarted by its watchdog 2 times, ")]


def test_an_engine_that_only_works_is_left_alone(client: Any) -> None:
    """For longer than a watchdog has patience, without Python's lock being free for a moment."""
    before = marked(client)
    client[0].execute("import ctypes; ctypes.PyDLL(None).sleep(30)", block=False).get(timeout=60)
    assert is_back(client, before, [])


# -- away


def test_a_host_loses_power(client: Any) -> None:
    def act() -> None:
        engine_run("kill", container("node2"))
        engine_run("start", container("node2"))

    recovers(client, "engine host without power and back", act, lost=[2, 3])


def test_the_network_between_a_host_and_the_controller_is_cut_for_a_minute(client: Any) -> None:
    first = ports()["registration"]

    def act() -> None:
        shell("node1", "nft add table inet cut; nft add chain inet cut out '{ type filter hook output priority 0; }'")
        shell("node1", "nft add chain inet cut in '{ type filter hook input priority 0; }'")
        shell("node1", f"nft add rule inet cut out tcp dport {first}-{first + 99} drop")
        shell("node1", f"nft add rule inet cut in tcp sport {first}-{first + 99} drop")
        try:
            begin = time.monotonic()
            eventually(lambda: client.ids == [2, 3], 40)
            assert sorted(state(client)) == [2, 3]
            time.sleep(max(0.0, 60 - (time.monotonic() - begin)))
        finally:
            shell("node1", "nft delete table inet cut")

    recovers(client, "network of an engine host cut for 60 s", act)


def test_the_controller_s_host_loses_power(client: Any) -> None:
    def act() -> None:
        engine_run("kill", container("head"))
        engine_run("start", container("head"))

    recovers(client, "controller's host without power and back", act)


# -- without resources


def test_the_disk_of_an_engine_host_is_full(client: Any) -> None:
    units = f"{engine_unit(0)} {engine_unit(1)}"
    small = f"mkdir -p /mnt/small && mount -t tmpfs -o size=8m,mode=750 none /mnt/small && cp -a {STATE}/. /mnt/small"
    shell("node2", f"{small} && chown --reference={STATE} /mnt/small && mount --bind /mnt/small {STATE} && systemctl restart {units}")
    try:
        eventually(lambda: sorted(state(client)) == IDS, 60)
        marked(client)

        def act() -> None:
            shell("node2", f"dd if=/dev/zero of={STATE}/work/fill bs=64k", check=False)
            assert shell("node2", f"df --output=avail {STATE} | tail -1") == "0"
            with pytest.raises(Exception, match="No space left on device"):
                client[3].execute("with open('more', 'wb') as stream: stream.write(bytes(1 << 20))", block=False).get(timeout=20)
            shell("node2", f"kill -9 {main_pid('node2', engine_unit(0))}")

        recovers(client, "engine killed on a host whose disk is full", act, lost=[2])
    finally:
        shell("node2", f"systemctl stop {units}; umount {STATE} /mnt/small; systemctl start {units}")
    eventually(lambda: sorted(state(client)) == IDS, 60)


def test_an_engine_takes_all_memory(client: Any) -> None:
    """The kernel kills it, not the others."""
    pid = main_pid("node1", engine_unit(1))
    shell("node1", f"echo 1000 >/proc/{pid}/oom_score_adj")
    engine_run("update", "--memory=1g", "--memory-swap=1g", container("node1"))

    def act() -> None:
        client[1].execute("taken = [b'x' * (1 << 24) for _ in range(200)]", block=False)
        eventually(lambda: main_pid("node1", engine_unit(1)) != pid, 30)

    try:
        recovers(client, "engine killed for want of memory", act, lost=[1])
    finally:
        engine_run("update", "--memory=16g", "--memory-swap=16g", container("node1"))
        # by which conmon says that memory ran out, in the folder where the container was started
        (ROOT / "molecule" / "shared" / "oom").unlink(missing_ok=True)


# -- the clock

SHIM = """
import time
real = time.time
def time_of_day():
    with open("/run/ipyfleet-clock/step") as stream:
        return real() + int(stream.read())
time.time = time_of_day
"""


@pytest.fixture
def clock() -> Iterator[Callable[[int], None]]:
    """Sets the clock that controller and engines have: hosts in containers share the machine's, so their Python's is another one."""
    folder = "/run/ipyfleet-clock"
    units = {"head": [CONTROLLER], "node1": [engine_unit(0), engine_unit(1)]}

    def step(seconds: int) -> None:
        for name in units:
            shell(name, f"echo {seconds} >{folder}/new && chmod 644 {folder}/new && mv {folder}/new {folder}/step")

    try:
        for name, mine in units.items():
            shell(name, f"mkdir -p {folder} && cat >{folder}/sitecustomize.py <<'END'{SHIM}END")
            for unit in mine:
                drop_in = f"/run/systemd/system/{unit}.d"
                shell(name, f"mkdir -p {drop_in} && printf '[Service]\\nEnvironment=PYTHONPATH={folder}\\n' >{drop_in}/clock.conf")
        step(0)
        for name, mine in units.items():
            shell(name, f"systemctl daemon-reload && systemctl restart {' '.join(mine)}")
        yield step
    finally:
        for name, mine in units.items():
            shell(name, f"rm -r /run/systemd/system/ipyfleet-{NAME}-*.service.d {folder}; systemctl daemon-reload", check=False)
            shell(name, f"systemctl restart {' '.join(mine)}")


def test_the_clock_is_set(client: Any, clock: Callable[[int], None]) -> None:
    eventually(lambda: sorted(state(client)) == IDS, 60)
    for hours in (-1, 1):
        recovers(client, f"clock set by {hours:+d} h", lambda seconds=3600 * hours: clock(seconds))  # type: ignore[misc]
        assert client[0].apply_async(time.time).get(timeout=20) == pytest.approx(time.time() + 3600 * hours, abs=120)
        # heartbeats are sent, and missed
        pid = main_pid("node2", engine_unit(0))
        shell("node2", f"kill -STOP {pid}")
        try:
            eventually(lambda: client.ids == [0, 1, 3], 30)
        finally:
            shell("node2", f"kill -CONT {pid}")
        eventually(lambda: client.ids == IDS, 30)
        # the watchdog looks every 4 s: it has to see once that the engine runs, or it was stopped for all the time
        time.sleep(5)


def test_all_is_as_it_was(client: Any) -> None:
    eventually(lambda: sorted(state(client)) == IDS, 60)
    # a moment after controller and engines were started, an answer can take longer than is waited for it
    eventually(lambda: Cluster(INVENTORY).verify().ok, 90)
    assert leftovers() == []
