# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A folder for a process and what it starts: both end with it, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import shutil
import signal
import tempfile
import time
from typing import Iterator, List, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_facts import free_mb

FOLDERS = ("/tmp", "/var/tmp")  # noqa: S108  (the folder made there is a new one of its user's)
NEED_MB = 100
LONGEST_FILE = 1 << 20
POLL_SECONDS = 0.02
STOP_SECONDS = 1
# of postmaster.pid, with key and number of the segment
SHARED_MEMORY_LINE = 6
IPC_RMID = 0


class ScratchError(Exception):
    """There is no place for such a folder."""


@contextlib.contextmanager
def private_folder() -> Iterator[Tuple[str, int]]:
    """A folder of this process's own, and the process group for what works in it.

    A process of its own waits for the end of this one, killed or not, ends the group, and removes the folder.

    :raises ScratchError: when no file system has room for it.
    """
    base = next((each for each in FOLDERS if os.access(each, os.W_OK | os.X_OK) and free_mb(each) >= NEED_MB), "")
    if not base:
        raise ScratchError("expected %d MB free for a rehearsal in %s, got less" % (NEED_MB, " or ".join(FOLDERS)))
    folder = tempfile.mkdtemp(prefix="ipyfleet-rehearsal-", dir=base)
    reader, writer = os.pipe()
    janitor = os.fork()
    if janitor == 0:
        try:
            os.close(writer)
            clean_up_after(reader, folder)
        finally:
            os._exit(0)
    os.close(reader)
    with contextlib.suppress(OSError):
        os.setpgid(janitor, janitor)
    try:
        yield folder, janitor
    finally:
        os.close(writer)
        os.waitpid(janitor, 0)


def clean_up_after(reader: int, folder: str) -> None:
    """Wait until nobody holds the other end of a pipe; then end this process's group and remove the folder."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(each, signal.SIG_IGN)
    # nobody shall wait for the output of this process
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.read(reader, 1)
    # at once, with no checkpoint: all of it is thrown away
    end_group(signal.SIGQUIT)
    # initdb would try for a while to go on
    end_group(signal.SIGKILL)
    release_memory(os.path.join(folder, "data", "postmaster.pid"))
    shutil.rmtree(folder, ignore_errors=True)


def end_group(number: int) -> None:
    """Signal the other processes of this process's group, and wait a while for their end."""
    for pid in members():
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    deadline = time.monotonic() + STOP_SECONDS
    while members() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def release_memory(path: str) -> None:
    """Remove the System V shared memory of a server that was killed, which outlives it; others remove it, and their `path`."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(path) as stream:
        number = int(stream.read().splitlines()[SHARED_MEMORY_LINE].split()[1])
        ctypes.CDLL(None).shmctl(number, IPC_RMID, None)


def members() -> List[int]:
    """The other processes of the group that this process leads."""
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path) as stream:
            # the name before may have spaces in it
            state, _, group = stream.read().rpartition(")")[2].split()[:3]
            pid = int(path.split("/")[2])
            if int(group) == os.getpid() != pid and state != "Z":
                found.append(pid)
    return found


def copy_configuration(source: str, target: str, folder: str) -> None:
    """Copy what can be part of a configuration, as far as this user may read it.

    :param folder: the only one below `source` that is; any where it is empty.
    """
    for path, folders, names in os.walk(source):
        inside = os.path.relpath(path, source)
        if folder and inside == ".":
            folders[:] = [each for each in folders if each == folder]
        os.makedirs(os.path.join(target, inside), mode=0o700, exist_ok=True)
        for name in names:
            copy_file(os.path.join(path, name), os.path.join(target, inside, name))


def copy_file(source: str, target: str) -> None:
    """Copy a file, if it is one; where it cannot be read, the copy cannot be, either."""
    if not os.path.isfile(source) or os.path.getsize(source) > LONGEST_FILE:
        return
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        try:
            with open(source, "rb") as stream:
                shutil.copyfileobj(stream, copy)
        except OSError:
            os.fchmod(copy.fileno(), 0)
