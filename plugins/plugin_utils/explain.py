# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A module's failure in one line that says what to do, and its success in a few words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

NO_PYTHON = "expected Python 3, got a host without it; install python3, or name it in ansible_python_interpreter"
# what a host says when something basic is missing, and what it means
KNOWN = (
    (r"(?i)missing sudo password|sudo: a password is required|sudo: no password was provided",
     "expected sudo without a password, got asked for one; give one with --ask-become-pass, or allow NOPASSWD"),
    (r"(?i)sorry, user (\S+) (may not|is not allowed)|is not in the sudoers file",
     "expected to become root by sudo, got refused; the user is not in sudoers"),
    (r"(?i)incorrect sudo password|sudo: .*incorrect password|Sorry, try again",
     "expected sudo's password, got another one"),
    (r"(?i)sudo: (command )?not found|sudo: No such file|sudo.*not found",
     "expected sudo, got a host without it; connect as root, set ansible_become_method, or use scope: user"),
    (r"(?i)the module interpreter '([^']+)' was not found|(\S*python\S*): (command )?not found|(\S*python\S*): No such file", NO_PYTHON),
    (r"(?i)ansible-core requires a minimum of Python|SyntaxError",
     "expected Python 3.10 or newer, got an older one; install one and name it in ansible_python_interpreter"),
    (r"(?i)No space left on device", "expected free space, got a full disk"),
    (r"(?i)Failed to create temporary directory|Read-only file system",
     "expected a folder for temporary files that can be written, got none; check the disk, or set ansible_remote_tmp"),
)  # fmt: skip

# What ssh says when a jump host does not lead on; the package explains it in the same words (ssh.py)
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
UNREACHED = (
    *JUMPS,
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
     "expected the host key that is known, got another one; if the host is a new one, forget the old key with ssh-keygen -R"),
    (r"Host key verification failed|host key is known for",
     "expected a host key that is known, got an unknown one; log in once by ssh to accept it"),
    (r"Permission denied \(",
     "expected to log in with a key, got refused; check ansible_user and the key, or give a password with --ask-pass"),
    (r"(?i)could not resolve hostname (\S+?):", "expected the name \\1 to resolve, got an unknown one; check ansible_host"),
    (r"Connection refused", "expected an SSH server, got refused; check ansible_host and ansible_port"),
    (r"(?i)timed out|timeout", "expected an answer, got none in time; check that the host is up, ansible_host, and firewalls between"),
    (r"No route to host|Network is unreachable", "expected a way to the host, got none; check ansible_host and the network"),
    (r"(?i)banner|kex_exchange_identification|connection (closed|reset)|broken pipe|closed by remote host|data could not be sent",
     "expected an SSH server, got a connection that was closed; check ansible_port, jump hosts, and the host itself"),
    (r"Failed to create temporary directory",
     "expected a folder for temporary files that can be written, got none; check the login shell and the disk, or set ansible_remote_tmp"),
)  # fmt: skip


def unreached(message: str) -> str:
    """Why a host was not reached, in one line.

    :param message: what Ansible says of it.
    """
    for pattern, meaning in UNREACHED:
        if found := re.search(pattern, message):
            return found.expand(meaning)
    return " ".join(message.removeprefix("Task failed: ").split())


def explain(result: Mapping[str, Any]) -> str:
    """Why a module did not do its work, in one line."""
    said = "\n".join([raised(result), *(str(result.get(key, "")) for key in ("msg", "module_stderr", "module_stdout", "stderr"))])
    for pattern, meaning in KNOWN:
        if re.search(pattern, said):
            return meaning
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "Traceback" in said:
        return next((line for line in reversed(lines) if re.match(r"\w*(Error|Exception)\b", line)), lines[-1])
    return lines[0] if lines else "the module failed without a message"


def raised(result: Mapping[str, Any]) -> str:
    """The message of an exception that ended a module, with those that led to it."""
    messages = []
    event = getattr(result.get("exception"), "event", None)
    while event is not None:
        messages.append(str(event.msg))
        event = getattr(event.chain, "event", None)
    return ": ".join(messages)


def summary(changes: Sequence[Mapping[str, Any]]) -> str:
    """Changes counted by what they were."""
    words = Counter(re.sub(r"^(link|set) .*|^(remove folder).*", r"\1\2", str(each["what"])) for each in changes)
    return ", ".join(f"{what} {count}" if count > 1 else what for what, count in words.items()) or "nothing to change"
