"""One stream of what the services of all hosts say, as it comes, straight by ssh: Ansible gives nothing before it ends."""

from __future__ import annotations

import contextlib
import queue
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipyfleet import following, ssh
from ipyfleet.results import LogLine
from ipyfleet.tunnel import end_group

AGAIN_SECONDS = 3.0
END_SECONDS = 5.0
# what ssh itself ends with
SSH_FAILED = 255
STREAM = {key: value for key, value in ssh.TUNNEL.items() if key != "ExitOnForwardFailure"}


@dataclass(frozen=True)
class Source:
    """A host whose services are followed.

    :param reach: how it is reached, as Ansible's variables without their prefix.
    :param units: as the fleet calls them.
    """

    host: str
    reach: Mapping[str, Any]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """What is followed.

    :param lines: at most so many of before.
    :param since: in the words of journalctl.
    :param password: what sudo asks for.
    """

    fleet: str
    scope: str
    lines: int
    since: str = ""
    password: str = ""


class Following:
    """Lines of all hosts in the order in which they come: iterate over it, and `close` it, which a ``with`` block does by itself.

    A host that goes away is told as a line of the unit ``ssh``, and asked again until it is back; one to which no way leads
    from the beginning is in `failures`, and the iteration ends when that is so of all.
    """

    def __init__(self, wanted: Wanted, sources: Sequence[Source]) -> None:
        self.wanted = wanted
        self.failures: dict[str, str] = {}
        self._lines: queue.Queue[LogLine | None] = queue.Queue(maxsize=10_000)
        self._stop = threading.Event()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._threads = [threading.Thread(target=self._follow, args=(each,), name=f"logs of {each.host}", daemon=True) for each in sources]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[LogLine]:
        left = len(self._threads)
        while left:
            line = self._lines.get()
            if line is None:
                left -= 1
            else:
                yield line

    def close(self) -> None:
        """End it; what ran on the hosts for it ends with it."""
        self._stop.set()
        for process in list(self._processes.values()):
            end(process)
        for thread in self._threads:
            while thread.is_alive():
                with contextlib.suppress(queue.Empty):
                    self._lines.get(timeout=0.05)

    def _say(self, line: LogLine) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._lines.put(line, timeout=0.2)
                return

    def _follow(self, source: Source) -> None:
        cursor, heard, told = "", False, ""
        try:
            while not self._stop.is_set():
                cursor, some, reason = self._once(source, cursor, heard)
                heard = heard or some
                if self._stop.is_set():
                    return
                if not heard:
                    self.failures[source.host] = reason
                    return
                if reason != told:
                    self._say(LogLine(source.host, "ssh", f"the way there has ended: {reason}; connecting again"))
                told = "" if some else reason
                self._stop.wait(AGAIN_SECONDS)
        finally:
            with contextlib.suppress(queue.Full):
                self._lines.put(None, block=not self._stop.is_set())

    def _once(self, source: Source, cursor: str, again: bool) -> tuple[str, bool, str]:
        """Follow until it ends; returns the last cursor, whether anything was heard, and why it has ended."""
        wanted = self.wanted
        lines = 0 if again else wanted.lines
        if wanted.scope == "system":
            script = following.journal_script(wanted.fleet, source.units, lines, wanted.since, cursor, bool(wanted.password))
        else:
            script = following.files_script(wanted.fleet, source.units, lines)
        process = subprocess.Popen(
            command_of(source, script),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._processes[source.host] = process
        if self._stop.is_set():
            end(process)
        assert process.stdin and process.stdout and process.stderr
        said: list[str] = []
        listener = threading.Thread(target=lambda stream: said.extend(stream), args=(process.stderr,), daemon=True)
        listener.start()
        with contextlib.suppress(OSError):
            process.stdin.write(f"{wanted.password}\n" if wanted.scope == "system" and wanted.password else "")
            process.stdin.flush()
        heard = False
        for text in process.stdout:
            if wanted.scope == "system":
                line, mark = following.read_journal(source.host, wanted.fleet, text.rstrip("\n"))
                cursor = mark or cursor
            else:
                line = following.read_file(source.host, text.rstrip("\n"))
            heard = True
            if line:
                self._say(line)
        end(process)
        listener.join(END_SECONDS)
        lines_said = [each.strip() for each in said if each.strip()]
        return cursor, heard, reason_of(lines_said, process.returncode)


def command_of(source: Source, script: str) -> list[str]:
    """What runs a script on a host, by ssh unless it is this machine."""
    if str(source.reach.get("connection", "ssh")) != "ssh":
        return ["sh", "-c", script]
    settings = [word for name, value in STREAM.items() for word in ("-o", f"{name}={value}")]
    # a login shell that is not sh gets one word
    return [*ssh.ssh_command(source.host, source.reach, "-T", "-a", "-x", first=settings), f"exec sh -c {shlex.quote(script)}"]


def reason_of(said: Sequence[str], code: int | None) -> str:
    """Why it has ended, in one line."""
    if code == SSH_FAILED or (code is not None and code < 0):
        return ssh.meaning(said, code)
    if any("sudo" in line for line in said):
        return f"expected to read the journal as root, got: {said[-1]}; give -K"
    return f"expected the logs, got: {said[-1] if said else f'exit code {code}'}"


def end(process: subprocess.Popen[str]) -> None:
    """End ssh, and thereby what it runs there."""
    with contextlib.suppress(OSError):
        if process.stdin:
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
        return
    end_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    end_group(process.pid, signal.SIGKILL)
    process.wait()
