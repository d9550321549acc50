# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A controller whose ports lead nowhere from here, reached through ssh to its host for a moment."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import unreached

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("*", "0.0.0.0", "::", "[::]")
PORTS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")
POLL_SECONDS = 0.05
# they come before those of the inventory, because ssh takes the first that it sees of each
SETTINGS = {
    "ControlMaster": "no",
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "BatchMode": "yes",
}


class ForwardError(Exception):
    """ssh does not get there; the message is one line."""


@contextlib.contextmanager
def forwarded(info: Mapping[str, Any], host: str, reach: Mapping[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
    """The connection file as it holds on this side of ssh, for as long as the context lasts.

    :param info: content of a client's connection file.
    :param host: the controller's host.
    :param reach: how that is reached: its `ansible_` variables without that prefix.
    :param seconds: that ssh has to log in.
    :raises ForwardError: when it does not.
    """
    here = dict(zip([name for name in PORTS if name in info], free_ports(), strict=False))
    command = ssh_command(info, host, reach, here, seconds)
    with running(command) as (process, said):
        deadline = time.monotonic() + seconds
        while not takes_connections(here["registration"]):
            if process.poll() is not None or time.monotonic() > deadline:
                said.seek(0)
                raise ForwardError(unreached(said.read().strip() or "no answer in time"))
            time.sleep(POLL_SECONDS)
        yield {**info, **here, "interface": f"tcp://{LOOPBACK}", "location": LOOPBACK}


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """An ssh for as long as the context lasts, and a file with what it says.

    A pipe would hold ssh up if nobody read it, and whoever read it if a command that ssh has started kept it open.

    :raises OSError: when there is no such program.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)
        try:
            yield process, said
        finally:
            # with the commands that it goes through, such as one of ProxyCommand
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ssh_command(info: Mapping[str, Any], host: str, reach: Mapping[str, Any], here: Mapping[str, int], seconds: float) -> list[str]:
    """The ssh command that forwards a controller's ports, and does nothing else.

    :param here: the ports of this machine, by their names in the connection file.
    """
    bound = str(info["interface"]).rpartition("://")[2]
    there = LOOPBACK if bound in EVERYWHERE else bound
    settings = {**SETTINGS, "ConnectTimeout": str(max(1, int(seconds)))}
    command = ["ssh", "-N", "-a", "-x", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    for name, port in here.items():
        command += ["-L", f"{LOOPBACK}:{port}:{there}:{info[name]}"]
    for key in ("ssh_common_args", "ssh_extra_args"):
        command += shlex.split(str(reach.get(key) or ""))
    for option, key in (("-p", "port"), ("-l", "user"), ("-i", "ssh_private_key_file")):
        command += [option, str(reach[key])] if reach.get(key) else []
    return [*command, str(reach.get("host") or host)]


def free_ports() -> list[int]:
    """As many free ports of loopback as a connection file names."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in PORTS]
        return [each.getsockname()[1] for each in sockets]


def takes_connections(port: int) -> bool:
    """Whether something listens on a port of loopback."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
