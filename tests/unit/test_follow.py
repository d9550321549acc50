"""Logs that are followed: one stream of all hosts, as it comes, and nothing left when it ends."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from ipyfleet.follow import Following, Source, Wanted
from ipyfleet.following import read_journal
from ipyfleet.results import LogLine

SSH = '#!/bin/sh\necho "$@" | head -n 1 >>"$FAKE/calls"\n'
SSH += '[ -e "$FAKE/refused" ] && { echo "ops@n: Permission denied (publickey)." >&2; exit 255; }\n'
SSH += 'for last; do :; done\nexec sh -c "$last"\n'
JOURNALCTL = '#!/bin/sh\necho "$*" >>"$FAKE/journal"\ncat "$FAKE/entries"\n[ -e "$FAKE/ends" ] && exit 0\nexec sleep 600\n'
SUDO = '#!/bin/sh\n[ "$1" = -S ] && { read -r word; [ "$word" = secret ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }; }\n'
SUDO += 'while [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n'
ID = "#!/bin/sh\necho 1000\n"
FLEET = "lab"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with programs that stand in for those of a host, and its user's home; nothing may be left running with it."""
    for name, text in (("ssh", SSH), ("journalctl", JOURNALCTL), ("sudo", SUDO), ("id", ID)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "home/.local/share/ipyfleet/lab/run").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield tmp_path
    deadline = time.monotonic() + 5
    while (left := running(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for each in left:
        each.kill()
    assert not left, [each.cmdline() for each in left]


def running(folder: Path) -> list[psutil.Process]:
    """Processes that were started for a stream."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.pid != os.getpid() and each.environ().get("FAKE") == str(folder):
                found.append(each)
        except psutil.Error:
            continue
    return found


def entry(text: object, **more: str) -> str:
    known = {"__REALTIME_TIMESTAMP": "1767225600000000", "__CURSOR": "s=1", "SYSLOG_IDENTIFIER": "ipengine", "_PID": "7"}
    return json.dumps({**known, "_SYSTEMD_UNIT": "ipyfleet-lab-engine@0.service", "MESSAGE": text, **more}) + "\n"


def wanted(scope: str, password: str = "") -> Wanted:
    return Wanted(FLEET, scope, 20, "-1h", password)


def source(host: str = "n1", *units: str, connection: str = "ssh") -> Source:
    return Source(host, {"host": "192.0.2.1", "connection": connection}, units or ("engine@0",))


@pytest.mark.parametrize("connection", ["ssh", "local"])
def test_files_of_all_hosts_are_one_stream_in_the_order_of_arrival(fake: Path, connection: str) -> None:
    run = fake / "home/.local/share/ipyfleet/lab/run"
    for name in ("controller", "engine@0"):
        (run / f"{name}.log").write_text(f"{name} before\n")
    sources = [source("n1", "controller", connection=connection), source("n2", "engine@0", connection=connection)]
    with Following(wanted("user"), sources) as stream:
        lines = iter(stream)
        first = {next(lines), next(lines)}
        assert first == {LogLine("n1", "controller", "controller before"), LogLine("n2", "engine@0", "engine@0 before")}
        for name, host in (("engine@0", "n2"), ("controller", "n1"), ("engine@0", "n2")):
            with (run / f"{name}.log").open("a") as file:
                file.write("  now\tand \\ here\n")
            assert next(lines) == LogLine(host, name, "  now\tand \\ here")
        # a log that is turned over is followed on
        (run / "engine@0.log").rename(run / "engine@0.log.1")
        (run / "engine@0.log").write_text("new file\n")
        assert next(lines) == LogLine("n2", "engine@0", "new file")
    assert not list(run.glob(".follow*"))


@pytest.mark.parametrize("password", ["", "secret"])
def test_the_journal_is_read_as_root(fake: Path, password: str) -> None:
    (fake / "entries").write_text(entry("one") + entry([104, 105, 255], OBJECT_SYSTEMD_UNIT="ipyfleet-lab-controller.service"))
    with Following(wanted("system", password), [source("n1", "engine@0", "controller")]) as stream:
        lines = iter(stream)
        one, two = next(lines), next(lines)
    assert (one.unit, two.unit) == ("engine@0", "controller")
    assert one.text.endswith("ipengine[7]: one")
    assert two.text.endswith("ipengine[7]: hi\N{REPLACEMENT CHARACTER}")
    asked = (fake / "journal").read_text()
    assert "-n 20 --since -1h -u ipyfleet-lab-engine@0.service -u ipyfleet-lab-controller.service" in asked
    # a password is in no list of processes
    assert "secret" not in (fake / "calls").read_text()


@pytest.mark.usefixtures("fake")
def test_who_may_not_read_it_is_told_how() -> None:
    with Following(wanted("system", "wrong"), [source()]) as stream:
        assert list(stream) == []
    assert stream.failures == {"n1": "expected to read the journal as root, got: sudo: 1 incorrect password attempt; give -K"}


def test_a_host_without_a_way_does_not_stop_the_others(fake: Path) -> None:
    (fake / "home/.local/share/ipyfleet/lab/run/engine@0.log").write_text("here\n")
    (fake / "refused").touch()
    with Following(wanted("user"), [source("far"), source("near", connection="local")]) as stream:
        assert next(iter(stream)) == LogLine("near", "engine@0", "here")
        deadline = time.monotonic() + 10
        while not stream.failures and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "expected to log in with a key, got refused" in stream.failures["far"]


def test_a_host_that_went_away_is_asked_again_where_it_had_stopped(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipyfleet.follow.AGAIN_SECONDS", 0.1)
    (fake / "entries").write_text(entry("one"))
    (fake / "ends").touch()
    with Following(wanted("system"), [source()]) as stream:
        lines = iter(stream)
        assert next(lines).text.endswith("one")
        said = next(lines)
        assert said.unit == "ssh"
        assert said.text.startswith("the way there has ended: ")
        (fake / "ends").unlink()
        assert next(lines).text.endswith("one")
    assert "--after-cursor=s=1 -n all" in (fake / "journal").read_text().splitlines()[1]


def test_what_is_no_entry_is_no_line() -> None:
    assert read_journal("n1", FLEET, "") == (None, "")
    assert read_journal("n1", FLEET, "-- No entries --") == (None, "")


def test_a_killed_stream_leaves_nothing(fake: Path) -> None:
    (fake / "entries").write_text(entry("one"))
    program = (
        "from ipyfleet.follow import *\n"
        "for line in Following(Wanted('lab', 'system', 1), [Source('n1', {}, ('engine@0',))]): print(line, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
