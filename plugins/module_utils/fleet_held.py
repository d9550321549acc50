# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Engines that are no services: a program holds them for as long as a login by ssh lasts."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import time
from typing import Any, Dict, List

END_SECONDS = 15.0


class Held:
    """The programs of one fleet on this host that hold engines.

    :param module: for check mode.
    :param description: `engine`, the program of an engine; where a program holds them, `program`, and the option `mark` by
        which one is told from those of other fleets; `inputs`, how the paths begin of what engines are started with.
        Empty where engines are services.
    """

    def __init__(self, module: Any, description: Dict[str, Any]) -> None:
        self.module = module
        self.description = description

    def running(self) -> List[int]:
        """Ids of their processes."""
        return processes(self.description.get("program", ""), self.description.get("mark", ""))

    def reads(self, changes: List[Dict[str, Any]]) -> bool:
        """Whether something was changed that engines are started with."""
        begin = tuple(self.description.get("inputs", ()))
        return any(each["path"].startswith(begin) and each["what"] != "set" for each in changes) if begin else False

    def end(self, what: str) -> List[Dict[str, Any]]:
        """End them and their engines, and wait until they have; whoever has logged in does so again.

        :param what: the word for it.
        """
        running = self.running()
        if not running:
            return []
        if not self.module.check_mode:
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + END_SECONDS
            while set(self.running()) & set(running) and time.monotonic() < deadline:
                time.sleep(0.05)
        return [{"path": "engines", "what": what}]

    def signal(self, name: str) -> List[Dict[str, Any]]:
        """Send a signal to all engines."""
        running = processes(self.description["engine"])
        for pid in [] if self.module.check_mode else running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, getattr(signal, "SIG" + name))
        return [{"path": "engines", "what": "signal " + name}] if running else []


def processes(program: str, mark: str = "") -> List[int]:
    """Ids of processes in which Python runs a program, of those with an option if it is given."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline") if program else []:
        with contextlib.suppress(OSError):
            with open(path, "rb") as stream:
                words = stream.read().decode("utf-8", "replace").split("\0")
            if words[1:2] == [program] and (not mark or mark in words):
                found.append(int(path.split("/")[2]))
    return found
