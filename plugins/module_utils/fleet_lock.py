# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One change of a fleet on a host at a time.

A run that was killed on the control node leaves its module working on the host for a while; one
from another control node may come at any time. Whoever comes second waits for the first to end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_abandoned import abandoned

WAIT_SECONDS = 90.0


class BusyError(Exception):
    """Another run did not end in time."""


@contextlib.contextmanager
def held(path: str, seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock file at `path`; it is removed in the end.

    :param seconds: how long to wait for it.
    :raises BusyError: when somebody else holds it for longer.
    """
    handle = acquire(path, time.monotonic() + seconds)
    try:
        yield
    finally:
        os.unlink(path)
        os.close(handle)


def acquire(path: str, deadline: float) -> int:
    """Take the lock file, which must still be the one at its path once it is locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(path, handle):
                return handle
        except BlockingIOError as error:
            if time.monotonic() > deadline or abandoned():
                os.close(handle)
                raise BusyError("another run is changing this host, and did not end; try again later") from error
            time.sleep(0.1)
        os.close(handle)


def is_at(path: str, handle: int) -> bool:
    """Whether an open file is the one at a path: its last holder may have removed it."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))
