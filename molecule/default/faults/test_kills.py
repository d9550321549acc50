"""Processes and hosts that are killed: everything comes back by itself, and memory stays where it can."""

from __future__ import annotations

import json
import subprocess
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import ENGINE, ENGINE_FILE, NAME, PYTHON, container, engine_run, eventually, python, shell

CONTROLLER = f"ipyfleet-{NAME}-controller.service"

# A client that stays open on `head`. Told a line, it answers with one.
CLIENT = f"""
import ipyparallel as ipp, json, os, sys
rc = ipp.Client(profile={NAME!r}, timeout=20)

def on_all(action, seconds=2):
    waiting = {{number: action(rc[number]) for number in rc.ids}}
    return {{number: result.get(timeout=seconds) for number, result in waiting.items()}}

def answer(word):
    if word == "mark":
        for number in rc.ids:
            rc[number].push({{"mark": number * 11}}, block=True)
        return rc.ids
    if word == "marks":
        return on_all(lambda view: view.pull("mark", block=False))
    if word == "pids":
        return on_all(lambda view: view.apply_async(os.getpid))

for line in sys.stdin:
    try:
        found = answer(line.strip())
    except Exception as error:
        found = type(error).__name__
    print(json.dumps(found), flush=True)
"""
ALL = {str(number): number * 11 for number in range(4)}


class OpenClient:
    """A client process that was connected before anything happened."""

    def __init__(self) -> None:
        command = [ENGINE, "exec", "-i", "-e", "HOME=/root", container("head"), PYTHON, "-u", "-c", CLIENT]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def client() -> Iterator[OpenClient]:
    """An open client whose engines all remember something."""
    found = OpenClient()
    assert found.ask("mark") == [0, 1, 2, 3]
    yield found
    found.process.kill()


def forgotten(marks: Any, number: str) -> bool:
    """Whether an answer tells that one engine remembers nothing, and the others all."""
    return bool(marks == "RemoteError" or (isinstance(marks, dict) and marks == {**ALL, number: marks[number]}))


def main_pid(name: str, unit: str) -> str:
    return shell(name, f"systemctl show -p MainPID --value {unit}")


def figure(what: str, seconds: float) -> None:
    print(f"\nfigure: {what}: {seconds:.1f} s")


def test_a_controller_killed_three_times_loses_nothing(client: OpenClient) -> None:
    for _ in range(3):
        shell("head", f"kill -9 {main_pid('head', CONTROLLER)}")
        figure(
            "controller killed, until an open client reaches all engines with their memory",
            eventually(lambda: client.ask("marks") == ALL, 30),
        )
        assert python("head", "print(json.dumps(rc.ids))") == [0, 1, 2, 3]
        time.sleep(11)  # longer than what counts as a quick end


def test_all_processes_of_the_controller_killed_at_once(client: OpenClient) -> None:
    shell("head", f"systemctl kill -s KILL {CONTROLLER}")
    figure("controller and its schedulers killed, until the same", eventually(lambda: client.ask("marks") == ALL, 30))


def test_a_scheduler_killed_alone_is_noticed(client: OpenClient) -> None:
    """The controller goes on without it, deaf on its ports; restarting it brings everything back."""
    before = client.ask("marks")
    shell("head", f"systemctl restart {CONTROLLER}")
    figure("controller restarted, until the same", eventually(lambda: client.ask("marks") == before == ALL, 30))


@pytest.mark.parametrize("how", ["engine", "engine and nanny"])
def test_a_killed_engine_comes_back_under_its_id_and_the_others_do_not_notice(client: OpenClient, how: str) -> None:
    unit = f"ipyfleet-{NAME}-engine@1.service"
    old = main_pid("node1", unit)
    before = client.ask("pids")
    command = f"kill -9 {old}" if how == "engine" else f"systemctl kill -s KILL {unit}"
    shell("node1", command)
    figure(f"{how} killed, until its slot answers again", eventually(lambda: back(client.ask("pids"), before, old), 30))
    # the engine has forgotten, and the client gets to know it
    eventually(lambda: forgotten(client.ask("marks"), "1"), 30)
    others = python("head", "print(json.dumps({number: rc[number].pull('mark', block=True) for number in (0, 2, 3)}))")
    assert others == {key: ALL[key] for key in ("0", "2", "3")}


def back(after: Any, before: dict[str, int], old: str) -> bool:
    """Whether slot 1 of node1 answers as another process, and all others as the same."""
    if not isinstance(after, dict) or after.keys() != before.keys():
        return False
    return after["1"] != int(old) and all(after[key] == before[key] for key in ("0", "2", "3"))


def test_children_of_a_killed_engine_die_with_it(client: OpenClient) -> None:
    spawn = """
        rc[3].execute("import subprocess; child = subprocess.Popen(['sleep', '4242'], start_new_session=True)", block=False).get(30)
        print(json.dumps(True))
    """
    python("head", textwrap.dedent(spawn))
    assert shell("node2", "pgrep -fc '^sleep 4242'") == "1"
    shell("node2", f"kill -9 {main_pid('node2', f'ipyfleet-{NAME}-engine@1.service')}")
    eventually(lambda: shell("node2", "pgrep -fc '^sleep 4242'", check=False) == "0", 15)
    eventually(lambda: isinstance(client.ask("pids"), dict) and len(client.ask("pids")) == 4, 30)


def test_a_host_that_lost_power_comes_back_under_its_ids(client: OpenClient) -> None:
    engine_run("kill", container("node2"))
    engine_run("start", container("node2"))
    begin = time.monotonic()
    old = client.ask("pids")
    eventually(lambda: isinstance(client.ask("pids"), dict) and sorted(client.ask("pids")) == ["0", "1", "2", "3"], 60)
    figure("host without power and back, until its slots answer again", time.monotonic() - begin)
    del old
    kept = python("head", "print(json.dumps({number: rc[number].pull('mark', block=True) for number in (0, 1)}))")
    assert kept == {"0": 0, "1": 11}


def test_engines_that_could_not_be_heard_are_back_with_their_memory(client: OpenClient) -> None:
    first = json.loads(shell("node1", f"cat {ENGINE_FILE}"))["registration"]
    shell("node1", "nft add table inet cut; nft add chain inet cut out '{ type filter hook output priority 0; }'")
    shell("node1", f"nft add rule inet cut out tcp dport {first}-{first + 99} drop")
    try:
        eventually(lambda: python("head", "print(json.dumps(rc.ids))") == [2, 3], 60)
    finally:
        shell("node1", "nft delete table inet cut")
    figure(
        "a host's network cut for longer than the hub waits and back, until the same", eventually(lambda: client.ask("marks") == ALL, 60)
    )
    assert python("head", "print(json.dumps(rc.ids))") == [0, 1, 2, 3]


def test_the_controller_s_host_that_lost_power_comes_back_and_engines_kept_their_memory() -> None:
    client = OpenClient()
    client.ask("mark")
    client.process.kill()
    engine_run("kill", container("head"))
    engine_run("start", container("head"))
    begin = time.monotonic()

    def whole() -> bool:
        fresh = OpenClient()
        try:
            return bool(fresh.ask("marks") == ALL)
        except (ValueError, AssertionError):
            return False
        finally:
            fresh.process.kill()

    eventually(whole, 60)
    figure("controller's host without power and back, until a new client reaches all engines with their memory", time.monotonic() - begin)
