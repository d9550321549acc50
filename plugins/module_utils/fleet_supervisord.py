# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet's programs under supervisord: the same verbs as for systemd, for a user without root."""

from __future__ import annotations

import http.client
import os
import socket
import time
import xmlrpc.client
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_boot import Boot
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_notes import digest_of, healed, read_note, started_with
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import SupervisorError

# those that have a process
ALIVE = ("STARTING", "RUNNING")
RUNNING = (*ALIVE, "BACKOFF")
START_SECONDS = 15
STOP_SECONDS = 60
# a little more than the longest delay between starts of a program that ends again and again
RESTLESS_SECONDS = 75
# the longest path that a unix socket can have on Linux, less its terminator
LONGEST_SOCKET_PATH = 107


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=STOP_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: Any) -> _Connection:  # noqa: ARG002  (the base class's signature)
        return _Connection(self.path)


class Supervisord:
    """The programs of one fleet of this user.

    :param root: the fleet's folder.
    :param run: folder of the socket, and of the notes that programs leave when they start.
    :param config: supervisord's configuration file.
    :param wanted: programs that shall run, each with `name` and `inputs`, the files that it is started with.
    :param boot: its start at boot; None for who only asks how it does.
    """

    def __init__(self, module: Any, root: str, run: str, config: str, wanted: List[Dict[str, Any]], boot: Optional[Boot] = None) -> None:
        self.module = module
        self.boot = boot
        self.run = run
        self.wanted = wanted
        self.command = command_of(root, config)
        # what supervisord itself runs on: when that changes, it has to be started anew
        self.inputs = [os.path.join(root, "env", "ipyfleet.json")]
        self.socket = os.path.join(run, "supervisor.sock")
        server = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self.socket))
        self.server: Any = server.supervisor

    def running(self) -> bool:
        """Whether supervisord answers."""
        try:
            self.server.getState()
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return False
        return True

    def programs(self) -> Dict[str, Dict[str, Any]]:
        """What supervisord says of its programs, by name; nothing when it does not run."""
        if not self.running():
            return {}
        return {each["name"]: each for each in self.server.getAllProcessInfo()}

    def retire(self) -> List[Dict[str, Any]]:
        """Stop the programs that are no longer wanted."""
        changes = []
        for name, values in self.programs().items():
            if name not in self.names():
                changes.append({"path": name, "what": "stop"})
                if not self.module.check_mode:
                    self.stop(name, values)
                    self.server.removeProcessGroup(name)
        return changes

    def converge(self, files_changed: bool, contents: Dict[str, str]) -> List[Dict[str, Any]]:
        """Run the wanted programs, restart those whose files or command changed; see `Systemd.converge`."""
        del files_changed  # supervisord itself compares its configuration
        changes: List[Dict[str, Any]] = self.boot.converge() if self.boot else []
        wanted = self.wanted
        fresh = digest_of(self.inputs, contents)
        renew = bool(wanted) and self.running() and started_with(self.run, "supervisord") != fresh
        if renew:
            changes.append({"path": "supervisord", "what": "restart"})
            self.shutdown()
        if wanted and not self.running():
            changes += [{"path": "supervisord", "what": "start"}] if not renew else []
            if not self.module.check_mode:
                self.start_daemon(fresh)
            return changes + [{"path": each["name"], "what": "start"} for each in wanted]
        added, changed = self.reread() if wanted and not self.module.check_mode else ([], [])
        state = self.programs()
        for each in wanted:
            name = each["name"]
            values = state.get(name, {})
            if name in added or values.get("statename") not in RUNNING:
                changes.append({"path": name, "what": "start"})
                self.start(name)
            elif name in changed or started_with(self.run, name) != digest_of(each["inputs"], contents):
                changes.append({"path": name, "what": "restart"})
                if not self.module.check_mode and name not in changed:
                    self.stop(name, values)
                    self.start(name)
        return changes

    def reread(self) -> Tuple[List[str], List[str]]:
        """Let supervisord read its configuration; returns the programs that are new, and those run anew."""
        added, changed, removed = self.server.reloadConfig()[0]
        for name in [*changed, *removed]:
            self.server.stopProcessGroup(name)
            self.server.removeProcessGroup(name)
        for name in [*added, *changed]:
            self.server.addProcessGroup(name)
        return list(added), list(changed)

    def start(self, name: str) -> None:
        """Start a program, and do not wait for it."""
        if not self.module.check_mode:
            try:
                self.server.startProcess(name, False)
            except xmlrpc.client.Fault as fault:
                if "ALREADY_STARTED" not in fault.faultString:
                    raise SupervisorError("starting %s: %s" % (name, fault.faultString)) from fault

    def stop(self, name: str, values: Dict[str, Any]) -> None:
        """Stop a program that runs, and wait until it has ended."""
        if values.get("statename") in RUNNING:
            self.server.stopProcess(name, True)

    def start_daemon(self, fresh: str) -> None:
        """Start supervisord, wait until it answers, and note what it was started with."""
        if not (self.boot and self.boot.begin()):
            code, out, err = self.module.run_command(self.command, cwd="/")
            if code:
                raise SupervisorError("supervisord did not start: %s" % (err or out).strip())
        deadline = time.monotonic() + START_SECONDS
        while not self.running():
            if time.monotonic() > deadline:
                raise SupervisorError("supervisord did not answer within %d s; see %s" % (START_SECONDS, self.run))
            time.sleep(0.05)
        path = os.path.join(self.run, "supervisord.json")
        with open(path, "w") as stream:
            stream.write('{"inputs": "%s"}' % fresh)

    def shutdown(self) -> None:
        """Stop supervisord with all of its programs, and wait until it has ended."""
        if self.module.check_mode:
            return
        pid = int(self.server.getPID())
        self.server.shutdown()
        deadline = time.monotonic() + STOP_SECONDS
        while alive(pid):
            if time.monotonic() > deadline:
                raise SupervisorError("supervisord (pid %d) did not end within %d s" % (pid, STOP_SECONDS))
            time.sleep(0.05)

    def sorted_out(self, only: Sequence[str]) -> Tuple[List[str], List[str]]:
        """Of the wanted programs, those that run and those that do not.

        :param only: names of programs that are meant; all when empty.
        """
        state = self.programs()
        meant = list(only) or self.names()
        running = [name for name in meant if state.get(name, {}).get("statename") in RUNNING]
        return running, [name for name in meant if name not in running]

    def start_all(self, only: Sequence[str] = ()) -> List[Dict[str, Any]]:
        """Start the wanted programs that do not run, and supervisord before them; see `Systemd.start_all`."""
        if self.wanted and not self.running():
            if not self.module.check_mode:
                self.start_daemon(digest_of(self.inputs, {}))
                self.end([name for name in self.names() if only and name not in only], begun=True)
            return [{"path": name, "what": "start"} for name in ["supervisord", *(only or self.names())]]
        stopped = self.sorted_out(only)[1]
        for name in stopped:
            self.start(name)
        return [{"path": name, "what": "start"} for name in stopped]

    def halt(self, only: Sequence[str] = ()) -> List[Dict[str, Any]]:
        """Stop everything until the next start or boot, or the programs that are meant; see `Systemd.halt`."""
        if not only:
            if not self.running():
                return []
            self.shutdown()
            return [{"path": "supervisord", "what": "stop"}]
        running = self.sorted_out(only)[0]
        if not self.module.check_mode:
            # while there is a controller, engines end at once
            for names in ([name for name in running if name != "controller"], ["controller"]):
                self.end([name for name in names if name in running])
        return [{"path": name, "what": "stop"} for name in running]

    def end(self, names: Sequence[str], begun: bool = False) -> None:
        """Stop programs at the same time, and wait until all have ended.

        :param begun: whether supervisord has just begun, and starts all programs by itself first.
        :raises SupervisorError: when one has not ended in time.
        """
        left = list(names)
        stopped = [] if begun else ["STOPPED"]
        deadline = time.monotonic() + STOP_SECONDS
        while left:
            for name, values in self.programs().items():
                if name in left and values["statename"] in RUNNING:
                    self.server.stopProcess(name, False)
                    stopped = ["STOPPED"]
                elif name in left and values["statename"] in ("EXITED", "FATAL", *stopped):
                    left.remove(name)
            if time.monotonic() > deadline:
                raise SupervisorError("%s did not end within %d s" % (", ".join(left), STOP_SECONDS))
            time.sleep(0.05 if left else 0)

    def restart_all(self, only: Sequence[str] = ()) -> List[Dict[str, Any]]:
        """Restart the wanted programs, start those that do not run; see `Systemd.restart_all`."""
        running = self.sorted_out(only)[0]
        if not self.module.check_mode:
            for name in running:
                self.server.stopProcess(name, True)
                self.start(name)
        return [{"path": name, "what": "restart"} for name in running] + self.start_all(only)

    def signal(self, name: str, only: Sequence[str]) -> List[Dict[str, Any]]:
        """Send a signal to those of the programs that run; what watches them passes it on."""
        state = self.programs()
        meant = [each for each in list(only) or self.names() if state.get(each, {}).get("statename") in ALIVE]
        return [{"path": each, "what": "signal " + name} for each in meant if self.module.check_mode or self.pass_on(name, each)]

    def pass_on(self, name: str, program: str) -> bool:
        """Send a signal to a program; returns whether it still ran."""
        try:
            self.server.signalProcess(program, name)
        except xmlrpc.client.Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise SupervisorError("signal %s to %s: %s" % (name, program, fault.faultString)) from fault
            return False
        return True

    def names(self) -> List[str]:
        """Names of the wanted programs."""
        return [each["name"] for each in self.wanted]

    def logs(self, lines: int, since: str, only: Sequence[str] = ()) -> Dict[str, List[str]]:
        """The last lines of each wanted program's log; they bear no time, so that `since` is no help here."""
        del since
        return {name: last_lines(os.path.join(self.run, name + ".log"), lines) for name in only or self.names()}

    def stop_all(self) -> List[Dict[str, Any]]:
        """Stop everything of the fleet, for good; returns what was done."""
        return self.halt() + (self.boot.remove() if self.boot else [])

    def status(self, words: bool) -> Dict[str, Dict[str, Any]]:
        """State of the wanted programs by name; see `Systemd.status`."""
        state = self.programs()
        found = {}
        for each in self.wanted:
            name = each["name"]
            values = state.get(name, {})
            ok = values.get("statename") == "RUNNING"
            silent = not (words and values) or (ok and self.settled(name))
            found[name] = {
                "state": str(values.get("statename", "not running")).lower(),
                "running": ok,
                "pid": int(values.get("pid", 0)),
                "restarts": 0,
                "last": "" if silent else last_words(values.get("logfile", ""), name),
                "healed": healed(self.run, name),
            }
        return found

    def settled(self, name: str) -> bool:
        """Whether a program that runs is none that ends again and again: supervisord sees only who waits to start it anew."""
        note = read_note(self.run, name)
        return not note.get("quick") or time.monotonic() - float(note.get("started", 0)) > RESTLESS_SECONDS


def command_of(root: str, config: str) -> List[str]:
    """What starts the supervisord of the fleet whose folder is `root`, in the background."""
    return [os.path.join(root, "env", "bin", "python"), "-m", "supervisor.supervisord", "-c", config]


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        with open("/proc/%d/stat" % pid) as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def last_words(path: str, name: str) -> str:
    """What a program last said, without what `ipyfleet_unit.py` says when it delays the next start."""
    said = [line for line in last_lines(path, 3) if not line.startswith("%s: ended quickly " % name)]
    return said[-1][-300:] if said else ""


def last_lines(path: str, count: int) -> List[str]:
    """The last lines of a log file."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.path.getsize(path) - 400 * count - 4096))
            return stream.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
