# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Engines that are no services: those that a program holds for as long as a login by ssh lasts, and those of an MPI job."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import time
from typing import Any, Dict, List

END_SECONDS = 15.0
# the option of an engine that is a rank
RANK = "--mpi"


class Held:
    """The engines of one fleet on this host that are no services.

    :param module: for check mode.
    :param description: `by`, what starts the fleet's engines: ``service``, ``ssh`` or ``mpi``; `engine`, the program of an engine;
        `program`, the one that holds them for a login, and the option `mark` by which it is told from those of other fleets;
        `inputs`, how the paths begin of what it starts engines with.
    """

    def __init__(self, module: Any, description: Dict[str, Any]) -> None:
        self.module = module
        self.description = description

    def reads(self, changes: List[Dict[str, Any]]) -> bool:
        """Whether something was changed that held engines are started with."""
        begin = tuple(self.description["inputs"])
        return any(each["path"].startswith(begin) and each["what"] != "set" for each in changes) if begin else False

    def holders(self) -> List[int]:
        """Processes that hold engines for a login."""
        return processes(self.description["program"], self.description["mark"])

    def restart(self) -> List[Dict[str, Any]]:
        """End those who hold engines, and the engines with them; whoever has logged in does so again."""
        return self._end(self.holders(), "restart")

    def retire(self, everything: bool = False) -> List[Dict[str, Any]]:
        """End engines that were started in another way than the fleet's engines are by now.

        :param everything: all of them, as the fleet goes.
        """
        by = "" if everything else self.description["by"]
        found = [] if by == "ssh" else self.holders()
        return self._end(found + ([] if by == "mpi" else processes(self.description["engine"], RANK)), "stop")

    def signal(self, name: str) -> List[Dict[str, Any]]:
        """Send a signal to all engines."""
        running = processes(self.description["engine"])
        for pid in [] if self.module.check_mode else running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, "SIG" + name))
        return [{"path": "engines", "what": "signal " + name}] if running else []

    def _end(self, pids: List[int], what: str) -> List[Dict[str, Any]]:
        if not pids:
            return []
        if not self.module.check_mode:
            deadline = time.monotonic() + END_SECONDS
            for number in (signal.SIGTERM, signal.SIGKILL):
                for pid in filter(is_there, pids):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                while any(map(is_there, pids)) and time.monotonic() < deadline:
                    time.sleep(0.05)
        return [{"path": "engines", "what": what}]


def is_there(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        with open("/proc/%d/stat" % pid) as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes(program: str, mark: str = "") -> List[int]:
    """Ids of processes in which Python runs a program, of those with an option if it is given."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            with open(path, "rb") as stream:
                words = stream.read().decode("utf-8", "replace").split("\0")
            if words[1:2] == [program] and (not mark or mark in words):
                found.append(int(path.split("/")[2]))
    return found
