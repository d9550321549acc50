"""Ports of loopback on this machine: which are free, and who has those that are not."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Container

import psutil


def is_free(port: int) -> bool:
    """Whether ssh could listen on a port."""
    with socket.socket() as tried:
        # as ssh does: connections that have ended do not count
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
            tried.listen()
        except OSError:
            return False
    return True


def is_allowed(port: int) -> bool:
    """Whether this user may listen on a port, free or not."""
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except PermissionError:
            return False
        except OSError:
            return True
    return True


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def same_or_free(wanted: int, taken: Container[int] = ()) -> int:
    """A port if it is free, else another one that is.

    :param taken: ports that are spoken for.
    """
    if wanted not in taken and is_free(wanted):
        return wanted
    while (found := free_port()) in taken:
        pass
    return found


def holder(port: int) -> str:
    """The program that listens on a port, as ``name (process 123)``; empty where that cannot be known."""
    with contextlib.suppress(psutil.Error, OSError):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                return f"{psutil.Process(each.pid).name()} (process {each.pid})"
    return ""


def listens(pid: int, port: int) -> bool | None:
    """Whether a process, or one that it has started, listens on a port; None where that cannot be known."""
    try:
        first = psutil.Process(pid)
        return _has(first, port) or any(_has(each, port) for each in first.children(recursive=True))
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, OSError):
        return None


def _has(process: psutil.Process, port: int) -> bool:
    found = process.net_connections("tcp")
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)
