"""From this machine to a fleet's controller: straight, or through ssh where that is the only way."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from ipyfleet.errors import ClientError

TRY_SECONDS = 2.0
TUNNEL_SECONDS = 30.0
PORTS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")


@dataclass
class Tunnel:
    """An ssh process that forwards the controller's client ports to loopback here.

    :param info: the client's connection file, as it holds on this side.
    :param said: what ssh writes to its standard error.
    """

    info: dict[str, Any]
    process: subprocess.Popen[bytes]
    said: IO[str]

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
            return
        self.process.kill()
        self.process.wait()

    def last_line(self) -> str:
        """The last that ssh said."""
        self.said.seek(0)
        lines = self.said.read().strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.returncode}"


def ssh_command(host: str, reach: Mapping[str, Any], *options: str) -> list[str]:
    """The ssh command that Ansible would use for a host; host keys are checked as ssh is configured to.

    :param reach: the host's `ansible_` variables, without that prefix.
    """
    command = ["ssh"]
    for key in ("ssh_common_args", "ssh_extra_args"):
        command += shlex.split(str(reach.get(key) or ""))
    if reach.get("port"):
        command += ["-p", str(reach["port"])]
    if reach.get("user"):
        command += ["-l", str(reach["user"])]
    if reach.get("ssh_private_key_file"):
        command += ["-i", str(reach["ssh_private_key_file"])]
    return [*command, *options, str(reach.get("host") or host)]


def is_reachable(info: Mapping[str, Any]) -> bool:
    """Whether the hub's port takes a connection from here."""
    try:
        socket.create_connection((str(info["location"]), int(info["registration"])), TRY_SECONDS).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def open_tunnel(info: Mapping[str, Any], host: str, reach: Mapping[str, Any]) -> Tunnel:
    """Forward a controller's client ports through its host.

    :param info: the client's connection file.
    :raises ClientError: with ssh's own reason.
    """
    ports = {name: info[name] for name in PORTS if name in info}
    here = dict(zip(ports, free_ports(len(ports)), strict=True))
    address = str(info["interface"]).removeprefix("tcp://")
    address = "127.0.0.1" if address in ("0.0.0.0", "*", "::") else address
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "LogLevel=ERROR"]
    for name, port in ports.items():
        options += ["-L", f"127.0.0.1:{here[name]}:{address}:{port}"]
    program, *rest = ssh_command(host, reach, *options)
    # a connection of its own: one that is shared would not end with it
    command = [program, "-o", "ControlPath=none", *rest]
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (the process's; a pipe that nobody reads would fill)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
    tunnel = Tunnel({**info, **here, "interface": "tcp://127.0.0.1", "location": "127.0.0.1"}, process, said)
    deadline = time.monotonic() + TUNNEL_SECONDS
    while not is_reachable(tunnel.info):
        if process.poll() is not None:
            raise ClientError(f"{host}: expected to go to the controller through ssh, got: {tunnel.last_line()}")
        if time.monotonic() > deadline:
            tunnel.close()
            raise ClientError(f"{host}: expected to go to the controller through ssh, got no answer in {TUNNEL_SECONDS:.0f} s")
        time.sleep(0.1)
    return tunnel


def ask_engines(client: Any, ids: Sequence[int], timeout: float) -> dict[int, int]:
    """Process ids of engines by engine id, of those that answer.

    The question is a function of the standard library, which is sent by its name: it works between
    different versions of Python, where code of one's own does not.

    :param client: an ipyparallel client.
    :param timeout: seconds to wait in all.
    """
    import os

    deadline = time.monotonic() + timeout
    asked = {number: client[number].apply_async(os.getpid) for number in ids if number in client.ids}
    found = {}
    for number, answer in asked.items():
        with contextlib.suppress(Exception):
            found[number] = int(answer.get(timeout=max(0.0, deadline - time.monotonic())))
    return found
