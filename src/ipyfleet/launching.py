"""What the launchers of `ipyfleet.launchers` have in common."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from ipyparallel.cluster.app import IPClusterEngines
from ipyparallel.cluster.launcher import BaseLauncher, LauncherError
from traitlets import Float, Integer, List, Unicode, Union

from ipyfleet.attached import Attached, attached, cancelled_by, is_ending, stop_by_command
from ipyfleet.errors import InputError, IpyfleetError
from ipyfleet.results import Result
from ipyfleet.sources import VARIABLE, chosen

# a service as a change of a host names it
STARTED = re.compile(r"(?:^|-)(controller|engine@(?P<number>\d+))(?:\.service)?$")
# stops that are asked for at the same time are one run
TOGETHER_SECONDS = 0.05
T = TypeVar("T")
P = ParamSpec("P")
L = TypeVar("L", bound="FleetLauncher")


class LaunchError(IpyfleetError, LauncherError):
    """A fleet's services could not be started, stopped or asked; the message is for people, and one line a problem."""


def refusing(
    method: Callable[Concatenate[L, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[L, P], Coroutine[Any, Any, T]]:
    """Have a method of a launcher that fails before it runs leave nothing running, and `ipcluster` end with it."""

    @functools.wraps(method)
    async def tried(launcher: L, /, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await method(launcher, *arguments, **named)
        except IpyfleetError as error:
            if launcher.state == "before":
                await launcher.undo()
            await launcher.refuse(error)
            raise

    return tried


class FleetLauncher(BaseLauncher):
    """What the fleet's controller and engines have in common."""

    fleet_file = Union(
        [Unicode(), List(Unicode())],
        help="""The fleet file, or another inventory; several, if more sources supply hosts or variables.
        Default: what the variable IPYFLEET_INVENTORY names, else the only *.fleet.yml of this folder.""",
    ).tag(config=True)
    arguments = List(
        Unicode(),
        help="""More words for ansible-playbook's command line, such as --vault-password-file=F or --become-password-file=F.
        They are shown in lists of processes, so never secrets.""",
    ).tag(config=True)
    log_lines = Integer(200, help="How many lines of each service get_output() gives at most.").tag(config=True)
    watch_seconds = Float(
        1.0, help="How often to look whether another process has stopped this cluster, as `ipcluster stop` does, in seconds."
    ).tag(config=True)

    sources = List(Unicode(), help="The inventory sources that are used.").tag(to_dict=True)
    words = List(Unicode(), help="The arguments that are used.").tag(to_dict=True)
    started = List(Unicode(), help="The services that did not run before this launcher started them.").tag(to_dict=True)

    _output = ""

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> FleetLauncher:
        """A launcher of another process, or of this one, as it was after its start."""
        found: FleetLauncher = super().from_dict(d, **kwargs)
        found._watch()
        return found

    def find_args(self) -> list[str]:
        """How its start is called in the log."""
        return ["ipyfleet", "start", *self.services]

    @property
    def services(self) -> list[str]:
        """The services that it is about."""
        raise NotImplementedError

    @property
    def ran_before(self) -> list[str]:
        """Those of its services that ran before it was started."""
        return [name for name in self.services if name not in self.started]

    @property
    def key(self) -> tuple[str, ...]:
        """Where a cluster file has it."""
        raise NotImplementedError

    # -- running verbs

    def choose(self) -> None:
        """Settle which fleet it is.

        :raises LaunchError: when that is not clear.
        """
        given = getattr(self.parent, "fleet_file", "") or self.fleet_file or os.environ.get(VARIABLE, "").split()
        try:
            found = chosen([given] if isinstance(given, str) else given, "c.FleetLauncher.fleet_file")
        except InputError as error:
            raise LaunchError(str(error)) from error
        self.sources = [os.path.abspath(os.path.expanduser(each)) for each in found]
        self.words = self.arguments

    @property
    def fleet(self) -> Attached:
        """The fleet, as all launchers of this process know it."""
        return attached(self.sources, self.words)

    async def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call something that takes long in a thread; what goes wrong is told as `LaunchError`.

        A call that is cancelled ends its own run, or never begins it; those of others go on.
        """
        cancel = threading.Event()
        try:
            return await asyncio.to_thread(cancelled_by, cancel, function, *arguments, **named)
        except asyncio.CancelledError:
            cancel.set()
            raise
        except IpyfleetError as error:
            raise LaunchError(str(error)) from error

    async def start_services(self, verb: str, services: Sequence[str], verify: bool = False) -> Result:
        """Start services, or restart them, and remember which ones did not run before.

        :param verify: whether to wait until they answer.
        """
        result = await self.call(self.fleet.run, verb, services=services, verify=verify)
        self.started = [name for name in services_of(result, ("start",)) if name in services]
        if verify and not result.ok:
            raise LaunchError("\n".join(map(str, result.failures)))
        self.check(result, services)
        return result

    def check(self, result: Result, services: Sequence[str]) -> None:
        """Warn of hosts that failed.

        :raises LaunchError: when all that have one of the services did.
        """
        failures = [str(each) for each in result.failures]
        meant = {name.rpartition("/")[0] for name in services if "/" in name}
        if failures and not any(host.outcome in ("ok", "changed") for host in result.hosts if not meant or host.name in meant):
            raise LaunchError("\n".join(failures))
        for line in failures:
            self.log.warning("%s", line)

    async def undo(self) -> None:
        """Stop what a start that failed has started."""
        services = self.started
        if not services:
            return
        try:
            self.check(await self.call(self.fleet.run, "stop", services=services), services)
        except LaunchError as error:
            self.log.warning("%s", error)
        else:
            self.started = []

    async def refuse(self, error: Exception) -> None:
        """Under `ipcluster`, log what failed, and end it, where it would wait for ever."""
        above = self.parent
        while above is not None and not isinstance(above, IPClusterEngines):
            above = above.parent
        if above is not None:
            for line in str(error).splitlines():
                self.log.critical("%s", line)
            try:
                if above.daemonize:
                    # in the foreground, it does so by itself
                    await self.parent.stop_cluster()
            except IpyfleetError as another:
                self.log.critical("%s", another)
            raise SystemExit(1) from None

    def begun(self) -> None:
        """Count as running."""
        self.notify_start({"services": self.services, "started": list(self.started)})
        self._watch()

    async def stop(self) -> None:
        """Stop what this launcher has started, and wait until it has ended."""
        if self.state == "after" or not (self.state == "running" or self.started):
            return
        if self.ran_before and self.state == "running":
            self.log.info("%s ran before, and is left running; `ipyfleet stop` stops it", ", ".join(self.ran_before))
        await Stops.of(self).stop(self)
        self.notify_stop({"exit_code": 0, "identifier": self.identifier})

    def get_output(self, remove: bool = False) -> str:
        """What the services said last, each line with its host and service; with hosts that do not answer, a warning.

        :param remove: what is asked for when output is to be cleaned up: nothing is kept here that could be.
        """
        if not remove and self.sources and not is_ending():
            result = self.fleet.run("logs", lines=self.log_lines, services=self.services)
            for failure in result.failures:
                self.log.warning("%s", failure)
            self._output = "\n".join(map(str, result.logs))
        return self._output

    async def join(self, timeout: float | None = None) -> None:
        """Wait until it is stopped.

        :raises TimeoutError: when it is not in time.
        """

        async def ended() -> None:
            while self.state == "running":
                await asyncio.sleep(0.1)

        await asyncio.wait_for(ended(), timeout)

    # -- noticing that another process has stopped it

    def _watch(self) -> None:
        if path := getattr(self.parent, "cluster_file", ""):
            # read here, where there is a loop, and before anybody can have stopped it
            threading.Thread(
                target=self._wait, args=(path, self.loop, is_listed(path, self.key)), name=f"watch {path}", daemon=True
            ).start()

    def _wait(self, path: str, loop: Any, listed: bool | None) -> None:
        pause, seen = threading.Event(), bool(listed)
        # it is in the file as soon as its start has returned
        while self.state == "running" and not pause.wait(self.watch_seconds if seen else min(self.watch_seconds, 0.05)):
            listed = is_listed(path, self.key)
            if seen and listed is False:
                loop.add_callback(self._vanished, path)
                return
            seen = seen or bool(listed)

    def _vanished(self, path: str) -> None:
        """Count as stopped by another process; all of the cluster does, if its file is gone."""
        parts = [self] if os.path.exists(path) else [self.parent.controller, *self.parent.engines.values()]
        gone = [each for each in parts if each and each.state == "running"]
        for each in gone:
            # all of them first: a cluster with something that runs would write its file anew
            each.state, each.stop_data = "after", {"exit_code": 0, "identifier": each.identifier}
        for each in gone:
            for callback in each.stop_callbacks:
                callback(each.stop_data)


class Stops:
    """Stops of one cluster: those that are asked for at the same time are one run; and what they have left.

    An engine set that is started under an id that was there is one that `Cluster.restart_engines` has stopped a
    moment ago. It gets the engines that it had, and where one was left running then, they have to be restarted now.
    """

    _known: ClassVar[WeakKeyDictionary[Any, Stops]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.run: asyncio.Task[None] | None = None
        self.left_running: set[tuple[str, ...]] = set()
        # the engines of a set, those first that were there
        self.had: dict[tuple[str, ...], list[int]] = {}

    @classmethod
    def of(cls, launcher: FleetLauncher) -> Stops:
        """Those of a launcher's cluster."""
        return cls._known.setdefault(launcher.parent, cls())

    @classmethod
    def left(cls, launcher: FleetLauncher) -> bool:
        """Whether some of what had its key was left running."""
        return launcher.key in cls.of(launcher).left_running

    async def stop(self, launcher: FleetLauncher) -> None:
        """Stop what a launcher has started.

        :raises LaunchError: when no host did so.
        """
        if launcher.ran_before:
            self.left_running.add(launcher.key)
        if not launcher.started:
            return
        if is_ending():
            stop_by_command(launcher.sources, launcher.words, launcher.started)
            return
        self.asked += launcher.started
        self.run = self.run or asyncio.create_task(self._together(launcher))
        await asyncio.shield(self.run)

    async def _together(self, launcher: FleetLauncher) -> None:
        await asyncio.sleep(TOGETHER_SECONDS)
        services, self.asked, self.run = self.asked, [], None
        launcher.check(await launcher.call(launcher.fleet.run, "stop", services=services), services)


def services_of(result: Result, verbs: Sequence[str]) -> list[str]:
    """The controller and the slots to which one of these was done."""
    done = [(host.name, STARTED.search(change.path)) for host in result.hosts for change in host.changes if change.what in verbs]
    return [f"{host}/{match['number']}" if match["number"] else "controller" for host, match in done if match]


def is_listed(path: str, key: Sequence[str]) -> bool | None:
    """Whether a cluster file has something; None when it cannot be read, because it is being written."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return None
    for each in key:
        found = found.get(each) if isinstance(found, dict) else None
    return found is not None
