# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time changes a fleet.

A run claims the fleet before it changes anything, by a file beside the fleet's keys. A claim ends
when it is released, and when the process that made it is gone, however that came about; only of a
process on another machine that shares the folder nothing can be known.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import multiprocessing
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import StoreError

CLAIM = "run.lock"


@dataclass(frozen=True)
class Claim:
    """Who changes a fleet.

    :param user: name of the user.
    :param host: name of the machine.
    :param pid: the run's main process.
    :param started: when that process began, in its machine's own words; tells it from a later one of the same number.
    :param since: when the claim was made, as ISO 8601 with the machine's offset.
    """

    user: str
    host: str
    pid: int
    started: str
    since: str


class ClaimedError(Exception):
    """Another run changes the fleet; the message says which."""


def claim(folder: Path, fleet: str) -> None:
    """Claim a fleet for this run; a claim that it has already is kept.

    :param folder: the folder of the fleet's keys, made if there is none.
    :raises ClaimedError: when another run has claimed it.
    :raises StoreError: when the folder cannot be written.
    """
    mine = this_run()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(folder / CLAIM, os.O_RDWR | os.O_CREAT) as stream:
            other = _read(stream)
            if other and not _same(other, mine):
                if _lives(other):
                    raise ClaimedError(_told(other, fleet, folder / CLAIM))
                other = None
            if not other:
                _write(stream, json.dumps(asdict(mine)) + "\n")
    except OSError as error:
        raise StoreError(f"{folder / CLAIM}: cannot be written ({error.strerror}); set fleet_secrets_dir") from error


def release(folder: Path) -> None:
    """Give up this run's claim, if it has one; others' are left alone."""
    try:
        with _opened(folder / CLAIM, os.O_RDWR) as stream:
            other = _read(stream)
            if other and _same(other, this_run()):
                _write(stream, "")
    except OSError:
        return  # there is none, or none that this user could have made


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Have the folder of a fleet's keys for this process alone: of one run, many may make something at once.

    :raises StoreError: when the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened(folder / CLAIM, os.O_RDWR | os.O_CREAT):
            yield
    except OSError as error:
        raise StoreError(f"{folder / CLAIM}: cannot be written ({error.strerror}); set fleet_secrets_dir") from error


def this_run() -> Claim:
    """The run that this process belongs to: of Ansible's workers, that of their main process."""
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent and parent.pid else os.getpid()
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return Claim(getpass.getuser(), socket.gethostname(), pid, began(pid), since)


def began(pid: int) -> str:
    """When a process began, in the words of its machine; empty when there is none of that number."""
    try:
        # the name, in parentheses, may hold anything; 20 fields after it are clock ticks since the boot
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return ""
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return " ".join(done.stdout.split())


def _same(one: Claim, other: Claim) -> bool:
    return (one.host, one.pid, one.started) == (other.host, other.pid, other.started)


def _lives(other: Claim) -> bool:
    return other.host != socket.gethostname() or (bool(other.started) and began(other.pid) == other.started)


def _told(other: Claim, fleet: str, path: Path) -> str:
    begun = datetime.fromisoformat(other.since).astimezone()
    since = f"{begun:%H:%M}" if begun.date() == datetime.now().astimezone().date() else f"{begun:%Y-%m-%d %H:%M}"
    here = other.host == socket.gethostname()
    advice = "wait for it to end" if here else f"wait for it to end, or remove {path} if it has"
    return f"fleet {fleet}: expected no other run, got one of {other.user} on {other.host} (pid {other.pid}) since {since}; {advice}"


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[TextIO]:
    """A file that nobody else reads or writes meanwhile."""
    with os.fdopen(os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream


def _read(stream: TextIO) -> Claim | None:
    """The claim in a file; None when it is empty, or was cut short by the end of who wrote it."""
    try:
        other = Claim(**json.loads(stream.read()))
        datetime.fromisoformat(other.since)
    except (ValueError, TypeError):
        return None
    return other


def _write(stream: TextIO, text: str) -> None:
    stream.seek(0)
    stream.truncate()
    stream.write(text)
