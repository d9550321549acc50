"""Engines that ipcluster starts by ssh: ipyparallel's launcher for sets of engines, made for hosts that come and go.

It reads the same `SSHEngineSetLauncher.engines`, and tuples of older days as well, and differs in how it starts them:
all hosts at once, by one login for each, which the engines' lives hang on. When ipcluster stops or is killed, or its
host loses power, no engine stays behind. A host that cannot be reached does not keep the others from starting; it is
tried again until it can be. Engines that end are started anew, on their host, under their ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
from ipyparallel.cluster.launcher import LocalProcessLauncher, NotRunning, SSHEngineSetLauncher
from traitlets import Dict, List, Unicode

STAY_SECONDS = 5.0
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 1.0, 30.0
# a login that lasted that long was one
LASTING_SECONDS = 30.0
STOP_SECONDS = 10.0
# bytes; a longer log is put aside before the next login
LONGEST_LINE, LONGEST_LOG = 1000, 10_000_000


def wanted(engines: dict[str, Any], most: int) -> dict[str, tuple[int, list[str]]]:
    """Number of engines and their options by host: of a number, a tuple `(n, [options])`, or a mapping.

    :param most: engines in all, at most.
    """
    found = {}
    for host, value in engines.items():
        if isinstance(value, dict):
            number, options = int(value.get("n", 1)), value.get("engine_args") or value.get("args") or []
        elif isinstance(value, tuple | list):
            number, options = int(value[0]), value[1] if len(value) > 1 else []
        else:
            number, options = int(value), []
        number = min(number, most)
        most -= number
        if number:
            found[host] = (number, [str(each) for each in options])
    return found


def environment() -> dict[str, str]:
    """What engines of this host inherit: where this file is, is no business of theirs."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


class Login:
    """The engines of one host, by one process of ssh that is started anew when it ends."""

    def __init__(self, launcher: FleetSSHEngineSetLauncher, host: str, number: int, options: list[str]) -> None:
        self.launcher, self.host, self.number, self.options = launcher, host, number, options
        self.process: asyncio.subprocess.Process | None = None
        self.task = asyncio.ensure_future(self.run())

    @property
    def command(self) -> list[str]:
        """How the host is asked; the controller's own takes no login."""
        request = json.dumps({"n": self.number, "args": [*self.launcher.engine_args, *self.options]})
        if self.host in self.launcher.here:
            return [*self.launcher.engine_cmd, request]
        user, _, rest = self.host.rpartition("@")
        name, _, port = rest.partition(":") if rest.count(":") == 1 else (rest, "", "")
        to = [*(["-p", port] if port else []), *(["-l", user] if user else []), name]
        return [*self.launcher.ssh_cmd, *self.launcher.ssh_args, *to, request]

    @property
    def log_file(self) -> Path:
        """What ssh and the engines say."""
        return Path(self.launcher.profile_dir) / "log" / f"engines-{self.host.rpartition('@')[2].replace('/', '_')}.log"

    def last_words(self) -> str:
        """The last line that was said."""
        with self.log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LONGEST_LINE))
            lines = log.read().decode(errors="replace").splitlines()
        return lines[-1].strip() if lines else ""

    async def run(self) -> None:
        """Log in, and again whenever the login ends, until it is ended from here."""
        delay = FIRST_DELAY_SECONDS
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                code = await self.once()
            except OSError as error:
                self.launcher.log.warning("%s: %s", self.host, error)
                code = 1
            if code == -signal.SIGTERM:
                # another ipcluster was told to stop the engines
                return
            delay = FIRST_DELAY_SECONDS if asyncio.get_running_loop().time() - begun > LASTING_SECONDS else delay
            why = self.last_words() or code
            self.launcher.log.warning("%s: its engines' login ended (%s); the next try is in %.0f s", self.host, why, delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)

    async def once(self) -> int:
        """Log in once; returns the exit code when that ends."""
        with contextlib.suppress(FileNotFoundError):
            if self.log_file.stat().st_size > LONGEST_LOG:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env=environment()
            )
        waiting = asyncio.ensure_future(self.process.wait())
        while not waiting.done():
            self.say("stay")
            await asyncio.wait([waiting], timeout=STAY_SECONDS)
        return waiting.result()

    def say(self, line: str) -> None:
        """Send the host a line, if there is a login."""
        if self.process is not None and self.process.returncode is None and self.process.stdin is not None:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self.process.stdin.write(f"{line}\n".encode())

    async def stop(self) -> None:
        """End the login, which ends the engines, and wait until it has."""
        self.task.cancel()
        process = self.process
        if process is None or process.returncode is not None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.terminate()


class FleetSSHEngineSetLauncher(SSHEngineSetLauncher):
    """Starts, holds and ends the engines of all hosts."""

    # by which the cluster's file names it
    entrypoint_name = "ipyfleet_ssh.FleetSSHEngineSetLauncher"
    here = List(Unicode(), config=True, help="hosts of `engines` that are this one, and take no login")
    held = Dict()

    def start(self, n: int) -> list[str]:
        """Log in to all hosts at once, for at most so many engines; returns the hosts."""
        found = wanted(dict(self.engines), n)
        Path(self.profile_dir, "log").mkdir(exist_ok=True)
        self.held = {host: Login(self, host, *each) for host, each in found.items()}
        self.n = sum(number for number, _ in found.values())
        self.notify_start(list(found))
        return list(found)

    def signal(self, sig: int) -> None:
        """Send all engines a signal."""
        for login in self.held.values():
            login.say(f"signal {int(sig)}")

    async def stop(self) -> None:
        """End all logins, and so all engines."""
        await asyncio.gather(*(login.stop() for login in self.held.values()))
        for process in self.logins():
            process.terminate()
        self.held = {}
        self.notify_stop({"exit_code": 0})

    def get_output(self, remove: bool = False) -> str:  # noqa: ARG002 - of the interface
        """The last that was said on each host; it is kept."""
        logs = sorted(Path(self.profile_dir, "log").glob("engines-*.log"))
        return "\n".join(f"{path.stem}:\n{path.read_text(errors='replace')[-4000:]}" for path in logs)

    # -- what another ipcluster needs to stop them

    process = Dict(help="who holds the logins: `pid`, and `begun`, in seconds since the epoch")

    def to_dict(self) -> dict[str, Any]:
        """What another ipcluster has to know."""
        mine = psutil.Process()
        found: dict[str, Any] = super().to_dict()
        return found | {"process": {"pid": mine.pid, "begun": mine.create_time()}}

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> FleetSSHEngineSetLauncher:
        """The engines of another ipcluster."""
        # the processes that ipyparallel's own would look for are not what is remembered here
        self: FleetSSHEngineSetLauncher = super(LocalProcessLauncher, cls).from_dict(d, **kwargs)
        self.process = d.get("process", {})
        if not self.logins():
            raise NotRunning("no login of the engines' is left")
        return self

    def logins(self) -> list[psutil.Process]:
        """Logins that another ipcluster holds."""
        begin = (*self.ssh_cmd, *self.ssh_args), tuple(self.engine_cmd)
        with contextlib.suppress(psutil.NoSuchProcess, KeyError):
            holder = psutil.Process(int(self.process["pid"]))
            if abs(holder.create_time() - self.process["begun"]) < 1:
                return [each for each in holder.children() if any(tuple(each.cmdline()[: len(words)]) == words for words in begin)]
        return []
