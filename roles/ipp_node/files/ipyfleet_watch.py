"""Has started anew what is alive and deaf, and looks well to systemd and supervisord.

    ipyfleet_watch.py --etc DIR --run DIR --engine-file FILE [--engines SECONDS] [--controller SECONDS --client-file FILE]

`--engines`: an engine of this host that the controller has not known for so long, or that has been stopped
(SIGSTOP) for so long. Only a controller that answers knows: while there is none, or no way to it, nothing is
started anew. A task that keeps Python busy for hours is no reason: heartbeats are answered by a thread that
needs no Python. So is a task that waits for ever; nobody can tell that from one that works.

`--controller`: a controller on this host that has a process stopped or lost, or that takes requests and answers
none. One that works on something gets four times as long.

What is found is killed, as its own user, and its supervisor starts it anew. After each time it may be deaf for
twice as long, up to a factor of 64; after ten minutes without trouble, that is forgotten. Notes of what was done
are left in the run folder, for whoever asks how the fleet does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ipyfleet_hub
import ipyfleet_unit
import psutil
import zmq

# as commands name it, which links may lead to
LIBRARY = Path(__file__).absolute().parent
# looks in the time after which something is deaf
LOOKS = 5
ANSWER_SECONDS = 2.0
GREETING_SECONDS = 1.0
# what a ZeroMQ socket says first, whoever connects; the same is said to it
GREETING = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"
# for an engine that has to be known first, or a controller to answer
START_SECONDS = 60.0
# longer than a look takes unless the host stands still meanwhile
LONG_LOOK_SECONDS = 15.0
FORGIVEN_SECONDS = 600.0
MOST_DOUBLINGS = 6
# the share of a core from which on a process works on something
BUSY = 0.2
BUSY_FACTOR = 4


class Case:
    """How long something has been wrong with a process, and how often it was started anew for that.

    :param name: of its unit.
    :param seconds: for which it may be wrong, at first.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self.pid = 0
        # whether the process has ever been well
        self.proven = False
        self.since: float | None = None
        self.times = 0
        self.acted = 0.0

    def about(self, pid: int) -> None:
        """Begin again when it is another process than before."""
        if pid != self.pid:
            self.pid, self.proven, self.since = pid, False, None

    def pause(self) -> None:
        """Nothing can be known now."""
        self.since = None

    def well(self, now: float) -> None:
        """Note that it does well."""
        self.proven, self.since = True, None
        if self.times and now - self.acted > FORGIVEN_SECONDS:
            self.times = 0

    def due(self, now: float, factor: float = 1, more: float = 0) -> bool:
        """Whether it has done badly for too long.

        :param factor: by which it may do so longer this time.
        :param more: seconds that it may, too.
        """
        self.since = now if self.since is None else self.since
        return now - self.since >= self.patience() * factor + more

    def patience(self) -> float:
        """Seconds for which it may do badly."""
        return self.seconds * 2.0 ** min(self.times, MOST_DOUBLINGS)

    def act(self, now: float) -> None:
        """Note that it is started anew now."""
        self.times += 1
        self.acted, self.since, self.proven = now, None, False


def programs(script: Path) -> list[psutil.Process]:
    """Processes of this user that run a script of the fleet's, parents before their children."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, IndexError):
            if process.uids().real == os.getuid() and process.cmdline()[1] == str(script):
                found.append(process)
    return sorted(found, key=lambda each: (each.create_time(), each.pid))


def heads(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those of which none of the others is the parent."""
    found = list(processes)
    pids = {each.pid for each in found}
    return [each for each in found if each.ppid() not in pids]


def is_stopped(process: psutil.Process) -> bool:
    """Whether somebody has stopped a process without ending it."""
    with contextlib.suppress(psutil.Error):
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; what they leave is their supervisor's to clear."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def greets(host: str, port: int) -> str:
    """What is wrong with a port that a ZeroMQ socket should listen on; empty when nothing is, or when no connection gets there."""
    try:
        line = socket.create_connection((host, port), GREETING_SECONDS)
    except ConnectionRefusedError:
        return f"nothing listened on port {port}"
    except OSError:
        # who listens has no part in it; a firewall may
        return ""
    with line:
        try:
            line.sendall(GREETING)
            said = line.recv(len(GREETING))
        except TimeoutError:
            return f"port {port} took connections and said nothing"
        except OSError:
            said = b""
    return "" if said else f"port {port} hung up on whoever connected"


def known(info: dict[str, Any]) -> dict[int, str] | None:
    """Engines that the hub knows; None when it does not answer."""
    try:
        hub = ipyfleet_hub.Hub(info)
    except zmq.ZMQError:
        return None
    try:
        return hub.engines(ANSWER_SECONDS)
    except (ipyfleet_hub.NoAnswerError, zmq.ZMQError, ValueError, KeyError):
        return None
    finally:
        hub.close()


class Watchdog:
    """What is watched on one host.

    :param args: of the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.cases: dict[str, Case] = {}
        self.used: tuple[float, float] = (0.0, 0.0)

    def case(self, name: str, seconds: float) -> Case:
        """The case of a unit."""
        return self.cases.setdefault(name, Case(name, seconds))

    def look(self) -> None:
        """One look at everything; what is just coming or going is for the next one."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            info = json.loads(self.args.engine_file.read_text())
            if self.args.controller:
                self.look_at_controller(info, json.loads(self.args.client_file.read_text()))
            if self.args.engines:
                self.look_at_engines(known(info))

    def pause(self) -> None:
        """Forget what was wrong: this program, or the whole host, stood still meanwhile."""
        for case in self.cases.values():
            case.pause()

    # -- engines

    def slots(self) -> dict[int, int]:
        """Engine ids by slot, of the slots that the host has now."""
        found = {}
        for path in self.args.etc.glob("engine-*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                found[int(path.stem.partition("-")[2])] = int(json.loads(path.read_text())["id"])
        return found

    def look_at_engines(self, listed: dict[int, str] | None) -> None:
        """Restart engines that have been deaf for too long.

        :param listed: engines that the hub knows; None when it did not answer.
        """
        running = programs(LIBRARY / "ipengine.py")
        for number, engine in self.slots().items():
            mine = [each for each in running if slot_of(each) == str(self.args.etc / f"engine-{number}.json")]
            for process in heads(mine)[:1]:
                case = self.case(f"engine@{number}", self.args.engines)
                case.about(process.pid)
                stopped = is_stopped(process)
                if listed is None:
                    case.pause()
                elif engine in listed and not stopped:
                    case.well(time.monotonic())
                elif case.due(time.monotonic(), more=0 if case.proven or stopped else START_SECONDS):
                    what = "it was stopped" if stopped else "the controller did not know it"
                    self.restart(case, mine, f"{what} for {case.patience():.0f} s")
                self.look_at_nanny(number, process)

    def look_at_nanny(self, number: int, engine: psutil.Process) -> None:
        """Kill a nanny that has been stopped for too long: its engine starts another one."""
        with contextlib.suppress(psutil.Error):
            for child in engine.children():
                if "ipyparallel.engine.nanny" not in child.cmdline():
                    continue
                case = self.case(f"nanny@{number}", self.args.engines)
                case.about(child.pid)
                if not is_stopped(child):
                    case.well(time.monotonic())
                elif case.due(time.monotonic()):
                    case.act(time.monotonic())
                    say(f"engine@{number}: its nanny was stopped for {self.args.engines:.0f} s, and is killed")
                    kill([child])

    # -- the controller

    def look_at_controller(self, *infos: dict[str, Any]) -> None:
        """Restart a controller that has been deaf for too long.

        :param infos: what is in its connection files.
        """
        family = programs(LIBRARY / "ipcontroller.py")
        case = self.case("controller", self.args.controller)
        if not family:
            case.about(0)
            return
        # its schedulers are forks of it
        main = heads(family)[0]
        case.about(main.pid)
        wrong, busy = self.trouble(main, family, [at_home(info) for info in infos])
        if not wrong:
            case.well(time.monotonic())
        elif case.due(time.monotonic(), BUSY_FACTOR if busy else 1, 0 if case.proven else START_SECONDS):
            self.restart(case, family, f"{wrong} for {case.patience() * (BUSY_FACTOR if busy else 1):.0f} s")

    def trouble(self, main: psutil.Process, family: list[psutil.Process], infos: list[dict[str, Any]]) -> tuple[str, bool]:
        """What is wrong with the controller, if anything, and whether it works on something nevertheless."""
        if halted := [each.pid for each in family if is_stopped(each)]:
            return f"its process {halted[0]} was stopped", False
        for port in sorted({port for info in infos for port in ipyfleet_hub.ports_of(info)}):
            if wrong := greets(ipyfleet_hub.host_of(infos[0]), port):
                return wrong, False
        busy = self.is_busy(main)
        return ("" if known(infos[0]) is not None else "the hub answered no request"), busy

    def is_busy(self, process: psutil.Process) -> bool:
        """Whether a process has used much of a core since the last look."""
        before, now = self.used, time.monotonic()
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            self.used = (now, times.user + times.system)
        return self.used[1] - before[1] > BUSY * (now - before[0])

    # -- what is done

    def restart(self, case: Case, processes: list[psutil.Process], why: str) -> None:
        """Kill the processes of a unit, and leave a note that says why."""
        case.act(time.monotonic())
        say(f"{case.name}: {why}; it is killed, to be started anew")
        note = self.args.run / f"healed-{case.name}.json"
        times = 1
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(note.read_text())
            times += int(before["times"]) if before["boot"] == ipyfleet_unit.boot_id() else 0
        text = json.dumps({"boot": ipyfleet_unit.boot_id(), "times": times, "last": int(time.time()), "why": why})
        with contextlib.suppress(OSError):
            new = self.args.run / f".{note.name}.new"
            new.write_text(text)
            os.replace(new, note)
        kill(processes)


def slot_of(process: psutil.Process) -> str:
    """The slot file that an engine was started with."""
    with contextlib.suppress(psutil.Error, IndexError):
        return str(process.cmdline()[2])
    return ""


def at_home(info: dict[str, Any]) -> dict[str, Any]:
    """A connection file's content for who is on the controller's host, where no firewall is between."""
    return info | ({"location": "127.0.0.1"} if re.search(r"//(\*|0\.0\.0\.0)$", info["interface"]) else {})


def say(text: str) -> None:
    """Tell the journal, or the log."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--etc", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--engine-file", type=Path, required=True)
    parser.add_argument("--client-file", type=Path)
    parser.add_argument("--engines", type=float, default=0)
    parser.add_argument("--controller", type=float, default=0)
    args = parser.parse_args()
    os.umask(0o077)
    pause = max(1.0, min(each for each in (args.engines, args.controller) if each) / LOOKS)
    watchdog = Watchdog(args)
    while True:
        begun = time.monotonic()
        time.sleep(pause)
        watchdog.look()
        if time.monotonic() - begun > 2 * pause + LONG_LOOK_SECONDS:
            watchdog.pause()


if __name__ == "__main__":
    sys.exit(main())
