"""The ssh command that leads to a host, and what it means when it does not get there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# they come before those of the inventory, because ssh takes the first that it sees of each
TUNNEL = {
    # a connection of its own: one that is shared would not end with it
    "ControlMaster": "no",
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "BatchMode": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "3",
    "LogLevel": "INFO",
}
# what ssh says of a forwarding that the host does not allow, though the login is good
PROHIBITED = r"administratively prohibited"

# What ssh says when a jump host does not lead on; the hosts explain it in the same words (explain.py)
JUMPS = (
    (r"open failed: administratively prohibited[^\n]*\nstdio forwarding failed",
     "expected the jump host to lead on, got refused; see AllowTcpForwarding and PermitOpen of its sshd"),
    (r"open failed: connect failed: ([^\n]+?)\r?\nstdio forwarding failed",
     "expected the jump host to reach it, got: \\1; check ansible_host and ansible_port, which have to hold from there"),
    (r"(?s)(REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed).*UNKNOWN port 65535",
     "expected the host key of the jump host that is known, got another one; if it is a new one, forget the old key with ssh-keygen -R"),
    (r"(?s)Host key verification failed.*UNKNOWN port 65535",
     "expected a host key of the jump host that is known, got an unknown one; log in to it once by ssh to accept it"),
    (r"(?s)Permission denied.*UNKNOWN port 65535",
     "expected the jump host to let us in with a key, got refused; check its user and key, in ~/.ssh/config"),
    (r"(?is)could not resolve hostname (\S+?):.*UNKNOWN port 65535",
     "expected the name \\1 of the jump host to resolve, got an unknown one; check ansible_ssh_common_args"),
    (r"(?s)connect to host (\S+) port (\d+): ([^\r\n]+).*UNKNOWN port 65535",
     "expected an SSH server on the jump host \\1, port \\2, got: \\3; check that it is up, and ansible_ssh_common_args"),
)  # fmt: skip
# what ssh says when it does not get there, and what it means; the first that fits
MEANINGS = (
    *JUMPS,
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
     "expected the host key that is known, got another one; if the host is a new one, forget the old key with ssh-keygen -R"),
    (r"Host key verification failed|host key is known for",
     "expected a host key that is known, got an unknown one; log in once by ssh to accept it"),
    (r"Permission denied|Too many authentication failures",
     "expected to log in with a key, got refused; check ansible_user and the key, or name others with --user and --identity"),
    (r"(?i)could not resolve hostname (\S+?):", "expected the name \\1 to resolve, got an unknown one; check ansible_host"),
    (r"cannot listen to port: (\d+)|bind \[127\.0\.0\.1\]:(\d+): Address already in use",
     "expected port \\1\\2 of this machine to be free, got it taken just now; try again"),
    (r"Connection refused", "expected an SSH server, got refused; check ansible_host and ansible_port"),
    (r"(?i)timed out|timeout, server \S+ not responding",
     "expected an answer, got none in time; check that the host is up, and firewalls between"),
    (r"No route to host|Network is unreachable", "expected a way to the host, got none; check ansible_host and the network"),
    (r"(?i)banner|kex_exchange_identification|connection (closed|reset)|broken pipe|closed by remote host",
     "expected an SSH server, got a connection that was closed; check the host itself, and jump hosts"),
)  # fmt: skip


@dataclass(frozen=True)
class Forward:
    """A port of loopback here, and where it leads to.

    :param name: what is there: ``jupyterlab``, ``postgresql``, or a port of the client's connection file.
    :param here: the port of this machine.
    :param address: as seen from the host that ssh logs in to.
    """

    name: str
    here: int
    address: str
    port: int

    def __str__(self) -> str:
        """As ssh's option -L takes it."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"127.0.0.1:{self.here}:{address}:{self.port}"


def ssh_command(host: str, reach: Mapping[str, Any], *options: str, first: Sequence[str] = ()) -> list[str]:
    """The ssh command that Ansible would use for a host; host keys are checked as ssh is configured to.

    :param reach: the host's `ansible_` variables, without that prefix.
    :param first: options that those of the inventory do not override.
    """
    command = ["ssh", *first]
    for key in ("ssh_common_args", "ssh_extra_args"):
        command += shlex.split(str(reach.get(key) or ""))
    if reach.get("port"):
        command += ["-p", str(reach["port"])]
    if reach.get("user"):
        command += ["-l", str(reach["user"])]
    if reach.get("ssh_private_key_file"):
        command += ["-i", str(reach["ssh_private_key_file"])]
    return [*command, *options, str(reach.get("host") or host)]


def tunnel_command(host: str, reach: Mapping[str, Any], forwards: Sequence[Forward]) -> list[str]:
    """The ssh command that does nothing but forward, and ends when it cannot."""
    settings = [word for name, value in TUNNEL.items() for word in ("-o", f"{name}={value}")]
    ports = [word for forward in forwards for word in ("-L", str(forward))]
    return ssh_command(host, reach, "-N", "-a", "-x", *ports, first=settings)


def plain_command(host: str, reach: Mapping[str, Any], forwards: Sequence[Forward]) -> list[str]:
    """The same for people to type: with what it cannot do without."""
    ports = [word for forward in forwards for word in ("-L", str(forward))]
    return ssh_command(host, reach, "-N", *ports, first=["-o", "ExitOnForwardFailure=yes"])


def as_somebody(reach: Mapping[str, Any], user: str, identity: str) -> dict[str, Any]:
    """How a host is reached by another user, with that user's key; as before where neither is given.

    :param identity: path of the private key; no other is offered then.
    """
    found = dict(reach) | ({"user": user} if user else {})
    if identity:
        only = f"-o IdentitiesOnly=yes {reach.get('ssh_common_args') or ''}".rstrip()
        found |= {"ssh_private_key_file": identity, "ssh_common_args": only}
    return found


def meaning(said: Sequence[str], code: int | None) -> str:
    """Why ssh ended, in one line that says what to do.

    :param said: lines of its standard error.
    :param code: its exit code.
    """
    text = "\n".join(said)
    for pattern, found in MEANINGS:
        if match := re.search(pattern, text):
            return re.sub(r"\\(\d)", lambda number: match[int(number[1])] or "", found)
    ended = f"it ended by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    last = said[-1] if said else ended
    return f"expected ssh to stay connected, got: {last}"
