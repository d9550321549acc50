"""Logs of all hosts, followed as somebody does who waits for something to happen."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fleet import INVENTORY, ROOT, environ, eventually, shell

HOSTS = ("head", "node1", "node2")


@contextmanager
def followed(*words: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`ipyfleet logs --follow` and the lines that it has printed so far."""
    lines: list[str] = []
    command = [sys.executable, "-m", "ipyfleet", "logs", "--follow", "-i", str(INVENTORY), *words]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environ(PYTHONPATH=str(ROOT / "src")),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout
    reader = threading.Thread(target=lambda stream: lines.extend(iter(stream.readline, "")), args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)


def say(host: str, text: str, unit: str = "engine@0") -> None:
    """Have something said about a unit of a host."""
    fields = shlex.join([f"MESSAGE={text}", f"OBJECT_SYSTEMD_UNIT=ipyfleet-lab-{unit}.service"])
    shell(host, f"printf '%s\\n' {fields} | logger --journald")


def left(host: str) -> str:
    """What still follows on a host."""
    return shell(host, "pgrep -af '[j]ournalctl.*-f' || true")


def test_lines_of_all_hosts_come_while_they_are_said_and_nothing_is_left() -> None:
    with followed("-n", "1") as (process, lines):
        eventually(lambda: all(any(line.startswith(f"{host} ") for line in lines) for host in HOSTS), 60)
        begin = time.monotonic()
        for host, word in (("node2", "first"), ("node1", "second"), ("node2", "third")):
            say(host, word)
            eventually(lambda word=word: any(line.endswith(f": {word}\n") for line in lines), 10)
        print(f"three lines of two hosts, one after another, in {time.monotonic() - begin:.1f} s")
        shell("node1", "systemctl restart ipyfleet-lab-engine@1")
        eventually(lambda: any(line.startswith("node1 engine@1: ") and "Started" in line for line in lines), 30)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    for host in HOSTS:
        eventually(lambda host=host: not left(host), 10)


def test_a_limit_and_services_and_objects() -> None:
    with followed("--limit", "node1", "--service", "node1/0", "--json", "-n", "1") as (process, lines):
        eventually(lambda: lines, 60)
        say("node1", "not meant", "engine@1")
        say("node2", "not meant")
        say("node1", "meant")
        eventually(lambda: any("meant" in line for line in lines), 10)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    found = [json.loads(line) for line in lines if line.startswith("{")]
    assert {(each["host"], each["unit"]) for each in found} == {("node1", "engine@0")}
    assert not any("not meant" in each["text"] for each in found)


def test_a_killed_one_leaves_nothing_either() -> None:
    with followed("-n", "1") as (process, lines):
        eventually(lambda: all(any(line.startswith(f"{host} ") for line in lines) for host in HOSTS), 60)
        os.kill(process.pid, signal.SIGKILL)
    for host in HOSTS:
        eventually(lambda host=host: not left(host), 20)
