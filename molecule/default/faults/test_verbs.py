"""The Python API and the command on real hosts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from fleet import EPHEMERAL, INVENTORY, NAME, PYTHON, ROOT, command, environ, eventually, main_pids, secrets, shell

from ipyfleet import Cluster, Progress, Result
from ipyfleet.client import is_reachable

PRESENT = "all:!gone"
ENGINES = [0, 1, 2, 3]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(INVENTORY)


def test_a_client_on_this_machine_reaches_every_engine(cluster: Cluster) -> None:
    result = cluster.verify(limit=PRESENT)
    assert result.ok, result.failures
    assert result.client
    assert (result.client.ok, result.client.answered) == (True, (0, 1, 2, 3))
    assert [slot.ok for slot in result.slots] == [True] * 4


def test_the_five_lines_of_the_readme() -> None:
    """The example of the README, with this fleet's file in place of its own."""
    block = re.search(r"```python\n(from ipyfleet import Cluster.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block
    assert len(block[1].splitlines()) <= 6
    code = block[1].replace('"lab.fleet.yml"', repr(str(INVENTORY)))
    code = code.replace(".up()", f".up(limit={PRESENT!r})")
    more = environ(PYTHONPATH=str(ROOT / "src"))
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=more)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == str(["Hello, World"] * 4)


def test_a_client_goes_through_ssh_where_there_is_no_other_way(cluster: Cluster) -> None:
    access = cluster.access()
    shell("head", "nft add table inet wall; nft add chain inet wall in '{ type filter hook input priority 0; }'")
    shell("head", f"nft add rule inet wall in ip saddr != 127.0.0.1 tcp dport {access.info['registration']} drop")
    try:
        assert not is_reachable(access.info)
        client = cluster.client()
        assert client.ids == ENGINES
        assert client[:].apply_sync(os.path.basename, "/a/b") == ["b"] * 4
        client.close()
    finally:
        shell("head", "nft delete table inet wall")


def test_a_stopped_host_is_told_and_started_again(cluster: Cluster) -> None:
    before = main_pids()
    assert cluster.stop(limit="node1", check=True).changed
    assert main_pids() == before
    assert cluster.stop(limit="node1").ok
    assert not [key for key in main_pids() if key.startswith("node1")]
    assert not cluster.stop(limit="node1").changed
    told = cluster.status(limit=PRESENT)
    assert (told.status, told.exit_code) == ("partial", 3)
    assert [slot.service for slot in told.slots if slot.host == "node1"] == ["inactive (dead)"] * 2
    started = cluster.start(limit=PRESENT)
    assert started.ok, started.failures
    assert started.changed
    after = main_pids()
    assert {key: pid for key, pid in after.items() if not key.startswith("node1")} == {
        key: pid for key, pid in before.items() if not key.startswith("node1")
    }
    assert not cluster.start(limit=PRESENT).changed
    assert main_pids() == after


def test_a_restart_of_one_host_touches_no_other_and_is_verified(cluster: Cluster) -> None:
    before = main_pids()
    result = cluster.restart(limit="node2")
    assert result.ok, result.failures
    after = main_pids()
    assert {key for key in after if after[key] != before.get(key)} == {key for key in before if key.startswith("node2")}
    # it is the new processes that answered
    assert {str(slot.pid) for slot in result.slots} == {after[key].split()[0] for key in after if key.startswith("node2")}


def test_a_restarted_controller_leaves_engines_their_memory(cluster: Cluster) -> None:
    client = cluster.client()
    client[:].push({"mark": 42}, block=True)
    client.close()
    result = cluster.restart(limit="head")
    assert result.ok, result.failures
    again = cluster.client()
    eventually(lambda: again.ids == ENGINES)
    assert again[:]["mark"] == [42] * 4
    again.close()


def test_logs_of_all_hosts(cluster: Cluster) -> None:
    result = cluster.logs(lines=3, limit=PRESENT)
    units = {(line.host, line.unit) for line in result.logs}
    assert {("head", "controller"), ("node1", "engine@0"), ("node2", "engine@1")} <= units
    assert max(sum((line.host, line.unit) == unit for line in result.logs) for unit in units) <= 3


def test_the_command_says_what_the_api_says() -> None:
    data = json.loads(command("status", "-i", str(INVENTORY), "-l", PRESENT, "--json").stdout)
    assert (data["status"], data["fleet"]["name"], [slot["state"] for slot in data["slots"]]) == ("ok", NAME, ["listed"] * 4)
    said = command("exec", "-i", str(INVENTORY), "-l", "node1:node2", "--", "hostname")
    assert said.returncode == 0, said.stdout
    assert {"node1: node1", "node2: node2"} <= set(said.stdout.splitlines())
    assert command("ssh", "node1", "-i", str(INVENTORY), "--", "hostname").stdout == "node1\n"
    partly = command("status", "-i", str(INVENTORY))
    assert partly.returncode == 3
    assert "gone: slot 0 (id 4)" in partly.stdout


def test_nothing_that_is_printed_or_kept_has_a_key() -> None:
    said = [command(*words, "-i", str(INVENTORY), "-l", PRESENT) for words in (["up", "--diff", "-vvv"], ["verify", "--json"], ["logs"])]
    for key in (secrets()["key"], secrets()["curve_secret"]):
        assert not [each.args for each in said if key in each.stdout + each.stderr]


def test_cancelling_leaves_nothing_running_on_the_hosts(cluster: Cluster) -> None:
    """The verification waits for an engine that is stopped; then nobody waits for the verification."""
    shell("node1", f"systemctl stop ipyfleet-{NAME}-engine@0")
    seen = threading.Event()

    def on_progress(progress: Progress) -> None:
        if progress.kind == "task" and progress.task == "Run code on every engine slot":
            seen.set()

    cluster.on_progress = on_progress
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(cluster.verify(limit=PRESENT)))
    try:
        thread.start()
        assert seen.wait(30)
        eventually(lambda: shell("head", f"pgrep -fx {PYTHON}", check=False))
        begin = time.monotonic()
        cluster.cancel()
        thread.join(30)
        assert not thread.is_alive()
        assert results[0].status == "cancelled"
        eventually(lambda: not shell("head", f"pgrep -fx {PYTHON}", check=False), 15)
        assert time.monotonic() - begin < 30
    finally:
        shell("node1", f"systemctl start ipyfleet-{NAME}-engine@0")
    eventually(lambda: len(main_pids()) == 5)
    here = subprocess.run(
        ["pgrep", "-af", f"ansible-playbook.*{EPHEMERAL}.*verify.yml"], capture_output=True, text=True, check=False
    ).stdout
    assert here == "", textwrap.shorten(here, 300)


def test_a_command_that_is_cancelled_ends_on_the_hosts() -> None:
    word = "86400.5"
    more = environ(PYTHONPATH=str(ROOT / "src"))
    words = [sys.executable, "-m", "ipyfleet", "exec", "-i", str(INVENTORY), "-l", "node1", "--", f"sleep {word}"]
    # a run in the background of a shell ignores Ctrl-C, and so would its children
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=more, **heard) as process:
        eventually(lambda: shell("node1", f"pgrep -f '[s]leep {word}'", check=False))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    eventually(lambda: not shell("node1", f"pgrep -f '[s]leep {word}'", check=False), 15)
