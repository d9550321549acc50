# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet's units under systemd: enabled, running, and running with the files that are there now."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_notes import digest_of, healed, started_with

UNIT_DIR = "/etc/systemd/system"
PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts,NeedDaemonReload,Result"
RUNNING = ("active", "activating", "reloading")


class SupervisorError(Exception):
    """The supervisor refused what it was asked."""


class Systemd:
    """The units of one fleet on this host.

    :param fleet: the fleet's name.
    :param run: folder of the notes that units leave when they start.
    :param wanted: units that shall run, each with `name`, `inputs`, the files that it is started with, and
        `run` where it leaves its notes elsewhere.
    """

    def __init__(self, module: Any, fleet: str, run: str, wanted: List[Dict[str, Any]]) -> None:
        self.module = module
        self.run = run
        self._shown: Optional[Dict[str, Dict[str, str]]] = None
        self.prefix = "ipyfleet-%s" % fleet
        self.target = "%s.target" % self.prefix
        self.own = re.compile(re.escape(self.prefix) + r"-(controller|engine@\d+|jupyterlab|mpi|tunnel|watchdog)\.service$")
        self.units = {self.unit(each["name"]): each for each in wanted}

    def unit(self, name: str) -> str:
        """What systemd calls a unit."""
        return "%s-%s.service" % (self.prefix, name)

    def call(self, *arguments: str) -> str:
        """Call systemctl; returns what it printed."""
        command = [self.module.get_bin_path("systemctl", required=True), *arguments]
        code, out, err = self.module.run_command(command)
        if code:
            raise SupervisorError("systemctl %s: %s" % (" ".join(arguments), (err or out).strip()))
        return str(out)

    def show(self) -> Dict[str, Dict[str, str]]:
        """Properties of the wanted units, and of every other unit of the fleet that systemd has loaded."""
        if self._shown is None:
            out = self.call("show", "--property=" + PROPERTIES, *self.units, self.target, "%s-*" % self.prefix)
            blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.split("\n\n")]
            self._shown = {values["Id"]: values for values in blocks if values}
        return self._shown

    def change(self, *arguments: str) -> None:
        """Call systemctl with a verb that changes what `show` says."""
        self.call(*arguments)
        self._shown = None

    def enabled_here(self) -> List[str]:
        """Units of the fleet that are enabled, loaded or not."""
        links = glob.glob(os.path.join(UNIT_DIR, "*.wants", "%s-*" % self.prefix))
        return sorted({os.path.basename(link) for link in links})

    def retire(self, everything: bool = False) -> List[Dict[str, Any]]:
        """Stop and disable the fleet's units that are no longer wanted."""
        names = [] if everything else [*self.units]
        state = self.show()
        enabled = self.enabled_here()
        stray = [
            each
            for each in sorted({*state, *enabled})
            if self.own.match(each) and each not in names and (each in enabled or state[each].get("ActiveState") in (*RUNNING, "failed"))
        ]
        if stray and not self.module.check_mode:
            self.change("disable", "--quiet", "--now", *stray)
        return [{"path": each, "what": "stop and disable"} for each in stray]

    def converge(self, files_changed: bool, contents: Dict[str, str]) -> List[Dict[str, Any]]:
        """Enable and run the wanted units, restart those whose files changed.

        :param files_changed: whether unit files were written in this run.
        :param contents: what files will hold, for those that are yet to be written.
        """
        names = [*self.units, self.target] if self.units else []
        state = self.show()
        todo: Dict[str, List[str]] = {"enable": [], "start": [], "restart": []}
        for name in names:
            values = state.get(name, {})
            if values.get("UnitFileState") != "enabled":
                todo["enable"].append(name)
            if values.get("ActiveState") not in RUNNING:
                todo["start"].append(name)
            elif name in self.units and not self.up_to_date(self.units[name], contents):
                todo["restart"].append(name)
        if not self.module.check_mode:
            stale = any(values.get("NeedDaemonReload") == "yes" for values in state.values())
            self.act(todo, reload=files_changed or stale)
        return [{"path": name, "what": verb} for verb, found in todo.items() for name in found]

    def up_to_date(self, unit: Dict[str, Any], contents: Dict[str, str]) -> bool:
        """Whether a unit was started with the files that are, or will be, there."""
        return started_with(unit.get("run") or self.run, unit["name"]) == digest_of(unit["inputs"], contents)

    def act(self, todo: Dict[str, List[str]], reload: bool) -> None:
        """Carry out what is to be done, by verb; nothing is waited for."""
        if reload:
            self.change("daemon-reload")
        if todo["enable"]:
            self.change("enable", "--quiet", *todo["enable"])
        if todo["start"]:
            self.change("start", "--no-block", *todo["start"])
        if todo["restart"]:
            self.renew(todo["restart"])

    def sorted_out(self, only: Sequence[str]) -> Tuple[List[str], List[str]]:
        """Of the wanted units, and the fleet's target, those that run and those that do not.

        :param only: names of units that are meant; all, and the target, when empty.
        """
        meant = [self.unit(name) for name in only] or ([*self.units, self.target] if self.units else [])
        state = self.show()
        running = [name for name in meant if state.get(name, {}).get("ActiveState") in RUNNING]
        return running, [name for name in meant if name not in running]

    def start_all(self, only: Sequence[str] = ()) -> List[Dict[str, Any]]:
        """Start the wanted units that do not run, and wait for none of them."""
        return self.do("start", self.sorted_out(only)[1], "--no-block")

    def halt(self, only: Sequence[str] = ()) -> List[Dict[str, Any]]:
        """Stop what runs of the wanted units, until the next start or boot, and wait until it has ended."""
        return self.do("stop", self.sorted_out(only)[0])

    def restart_all(self, only: Sequence[str] = ()) -> List[Dict[str, Any]]:
        """Restart the wanted units that run, start those that do not."""
        names = [name for name in self.sorted_out(only)[0] if name in self.units]
        if names and not self.module.check_mode:
            self.renew(names)
        return [{"path": name, "what": "restart"} for name in names] + self.start_all(only)

    def signal(self, name: str, only: Sequence[str]) -> List[Dict[str, Any]]:
        """Send a signal to the main process of those of the units that run."""
        running = self.sorted_out(only)[0]
        # the option's old name, which all versions know
        self.do("kill", running, "--kill-who=main", "--signal=" + name)
        return [{"path": each, "what": "signal " + name} for each in running]

    def renew(self, names: List[str]) -> None:
        """Restart units: wait until the old processes are gone, or a verification could still hear them."""
        self.change("stop", *names)
        self.change("start", "--no-block", *names)

    def do(self, verb: str, names: List[str], *options: str) -> List[Dict[str, Any]]:
        """Call systemctl on units, if there are any; returns what that changes."""
        if names and not self.module.check_mode:
            self.change(verb, *options, *names)
        return [{"path": name, "what": verb} for name in names]

    def logs(self, lines: int, since: str, only: Sequence[str] = ()) -> Dict[str, List[str]]:
        """The last lines that each wanted unit left in the journal.

        :param lines: at most so many of each unit.
        :param since: a time as journalctl understands it; empty for any.
        :param only: names of units that are meant; all when empty.
        """
        found = {}
        for name, each in self.units.items():
            if only and each["name"] not in only:
                continue
            command = [self.module.get_bin_path("journalctl", required=True), "-q", "--no-pager", "-o", "short-iso", "-n", str(lines)]
            code, out, err = self.module.run_command([*command, *(["--since", since] if since else []), "-u", name])
            if code:
                raise SupervisorError("journalctl: %s" % err.strip())
            found[each["name"]] = out.splitlines()
        return found

    def stop_all(self) -> List[Dict[str, Any]]:
        """Stop and disable everything of the fleet; returns what was done."""
        changes = self.retire(everything=True)
        if self.show()[self.target].get("LoadState") != "not-found":
            changes.append({"path": self.target, "what": "stop and disable"})
            if not self.module.check_mode:
                self.change("disable", "--quiet", "--now", self.target)
        return changes

    def status(self, words: bool) -> Dict[str, Dict[str, Any]]:
        """State of the wanted units by name.

        :param words: whether to add the last words of those that do not run well.
        """
        state = self.show()
        found = {}
        for name, each in self.units.items():
            values = state.get(name, {})
            ok = values.get("ActiveState") == "active"
            found[each["name"]] = {
                "state": "%s (%s)" % (values.get("ActiveState", "unknown"), values.get("SubState", "")),
                "running": ok,
                "pid": int(values.get("MainPID", 0)),
                "restarts": int(values.get("NRestarts") or 0),
                "last": self.last_words(name) if words and not ok else "",
                "healed": healed(self.run, each["name"]),
            }
        return found

    def last_words(self, unit: str) -> str:
        """The last line that processes of a unit said, not what systemd or `ipyfleet_unit.py` says when they are started again."""
        journalctl = self.module.get_bin_path("journalctl")
        if not journalctl:
            return ""
        _, out, _ = self.module.run_command([journalctl, "-q", "-o", "cat", "-n", "5", "_SYSTEMD_UNIT=" + unit])
        said = [line.strip() for line in str(out).splitlines() if ": ended quickly " not in line]
        return said[-1][-300:] if said else ""
