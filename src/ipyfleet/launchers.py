"""A fleet under ipyparallel's own `Cluster` and `ipcluster`, by the launchers that are called ``fleet`` there.

    ipp.Cluster(controller="fleet", engines="fleet")
    ipcluster start --controller=fleet --engines=fleet

The fleet has to be deployed; its services are started where they do not run, and what was started is
stopped again. What ran before is left running: others may be at work there.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import ipyparallel as ipp
from traitlets import Integer, List, Unicode

from ipyfleet.access import Engine
from ipyfleet.client import ask_engines, signal_engines
from ipyfleet.launching import FleetLauncher, LaunchError, Stops, refusing, services_of
from ipyfleet.results import Result

__all__ = ["FleetCluster", "FleetControllerLauncher", "FleetEngineSetLauncher", "FleetLauncher", "LaunchError"]


class FleetControllerLauncher(FleetLauncher):
    """The fleet's controller."""

    name = Unicode("controller")
    # whether it may list engines that were there before it was stopped, and are not any more
    remembers = False

    @property
    def services(self) -> list[str]:
        """The services that it is about."""
        return ["controller"]

    @property
    def key(self) -> tuple[str, ...]:
        """Where a cluster file has it."""
        return ("controller", "state")

    @refusing
    async def start(self) -> None:
        """Start the controller's service, if it does not run.

        :raises LaunchError: when the fleet is not deployed, or its controller's host does not answer.
        """
        if not issubclass(self.parent.engine_launcher_class, FleetEngineSetLauncher):
            raise LaunchError(f"engines: expected 'fleet' with controller='fleet', got {self.parent.engine_launcher_class.__name__}")
        self.choose()
        access = await self.call(self.fleet.access)
        if self.parent.n is None:
            # ipyparallel's own default is one for each core of this machine
            self.parent.n = len(access.engines)
        # engines that are busy are not asked, but clients need a controller that answers
        await self.start_services("start", self.services, verify=True)
        self.remembers = bool(self.started)
        self.begun()

    @refusing
    async def get_connection_info(self, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002  # `Cluster` has its own
        """What clients connect with; engines have a file of their own on their hosts.

        :raises LaunchError: when no way leads to the controller, not even through ssh.
        """
        return {"client": await self.call(self.fleet.client_info), "engine": {}}


class FleetEngineSetLauncher(FleetLauncher):
    """Some or all of the fleet's engines."""

    name = Unicode("engines")
    n = Integer(0, help="How many engines there are, as far as their hosts answered.").tag(to_dict=True)
    engine_set_id = Unicode()
    ids = List(Integer(), help="Their ids.").tag(to_dict=True)
    slots = List(Unicode(), help="Their slots.").tag(to_dict=True)
    there = List(Integer(), help="The ids of those that are there, as far as their hosts answered.").tag(to_dict=True)

    @property
    def services(self) -> list[str]:
        """The services that it is about."""
        return list(self.slots)

    @property
    def ran_before(self) -> list[str]:
        """Those of its services that ran before it was started; nobody knows of hosts that did not answer."""
        there = {slot for number, slot in zip(self.ids, self.slots, strict=True) if number in self.there}
        return [name for name in super().ran_before if name in there]

    @property
    def key(self) -> tuple[str, ...]:
        """Where a cluster file has it."""
        return ("engines", "sets", self.engine_set_id)

    @refusing
    async def start(self, n: int) -> None:
        """Start the first `n` engines that no other set of this cluster has, on all hosts at once.

        A set that is started anew has those first that it had before.

        :raises LaunchError: when the fleet has not so many, or none of their hosts answers, or the controller does not.
        """
        controller = self.parent.controller
        if not isinstance(controller, FleetControllerLauncher):
            got = type(controller).__name__ if controller else "none"
            raise LaunchError(f"controller: expected 'fleet' with engines='fleet', since its engines belong to it; got {got}")
        self.sources, self.words = controller.sources, controller.words
        access = await self.call(self.fleet.access)
        taken = {each for other in self.parent.engines.values() if other is not self for each in other.ids}
        free = [each for each in access.engines if each.id not in taken]
        if n > len(free):
            raise LaunchError(f"n: expected at most {len(free)} engines, as many as fleet {access.name} has slots for, got {n}")
        had = Stops.of(self).had.get(self.key, [])
        free.sort(key=lambda each: had.index(each.id) if each.id in had else len(had))
        meant = sorted(free[:n], key=lambda each: each.id)
        self.ids, self.slots = [each.id for each in meant], [each.slot for each in meant]
        result = await self.start_services("restart" if Stops.left(self) else "start", self.slots) if n else None
        hosts = {host.name for host in result.hosts if host.outcome in ("ok", "changed")} if result else set()
        there = [each for each in meant if each.host in hosts]
        silent = await self.greet(result, there) if result and controller.remembers else []
        controller.remembers = False
        for each in silent:
            self.log.warning("%s: engine %s was started, and does not answer", each.slot, each.id)
        self.there = [each.id for each in there if each not in silent]
        self.n = len(self.there)
        self.begun()

    async def stop(self) -> None:
        """Stop what this launcher has started, and wait until it has ended."""
        if self.ids:
            Stops.of(self).had[self.key] = [*self.there, *(each for each in self.ids if each not in self.there)]
        await super().stop()

    async def greet(self, result: Result, engines: Sequence[Engine]) -> list[Engine]:
        """Wait until engines that have just been started answer; returns those that do not.

        That they are listed says nothing yet where the controller was started as well. Those that ran before may
        be busy, and are not asked.
        """
        renewed = set(services_of(result, ("start", "restart")))
        asked = [each for each in engines if each.slot in renewed]

        def ask() -> dict[int, int]:
            if not asked:
                return {}
            with self.fleet.client() as client:
                return ask_engines(client, [each.id for each in asked], self.parent.engine_timeout)

        answered = await self.call(ask)
        return [each for each in asked if each.id not in answered]

    async def signal(self, sig: int | str) -> None:
        """Send a signal to all of its engines."""
        await self.signal_engines(sig, self.ids)

    async def signal_engines(self, sig: int | str, ids: Sequence[int]) -> None:
        """Send a signal to engines: through the controller, at once, or by their hosts where that does not work.

        :param sig: number on this machine, or name.
        """
        name = sig if isinstance(sig, str) else signal.Signals(sig).name
        name = "SIG" + name.removeprefix("SIG")

        def send() -> dict[int, str]:
            with self.fleet.client() as client:
                return signal_engines(client, name, ids)

        try:
            silent = await self.call(send)
        except LaunchError as error:
            silent = dict.fromkeys(ids, str(error))
        if not silent:
            return
        reasons = "; ".join(sorted(set(silent.values())))
        self.log.warning("the controller did not pass on %s (%s); asking the engines' hosts", name, reasons)
        slots = [slot for number, slot in zip(self.ids, self.slots, strict=True) if number in silent]
        self.check(await self.call(self.fleet.run, "signal", name=name, services=slots), slots)

    async def restart_engine(self, engine_id: int) -> None:
        """Restart one engine and wait until it answers; it loses its memory.

        :raises LaunchError: when it is none of this set, or does not answer.
        """
        self.expect(engine_id)
        result = await self.call(self.fleet.run, "restart", services=[self.slots[self.ids.index(engine_id)]])
        if not result.ok:
            raise LaunchError("\n".join(map(str, result.failures)))

    async def stop_engine(self, engine_id: int) -> None:
        """Stop one engine, whoever started it; it is none of this set any more.

        :raises LaunchError: when it is none of this set, or its host does not answer.
        """
        self.expect(engine_id)
        slot = self.slots[self.ids.index(engine_id)]
        self.check(await self.call(self.fleet.run, "stop", services=[slot]), [slot])
        self.ids = [each for each in self.ids if each != engine_id]
        self.slots = [each for each in self.slots if each != slot]
        self.started = [each for each in self.started if each != slot]
        self.there = [each for each in self.there if each != engine_id]
        self.n = len(self.there)

    def expect(self, engine_id: int) -> None:
        """Refuse an engine that is none of this set.

        :raises LaunchError: naming those that are.
        """
        if engine_id not in self.ids:
            raise LaunchError(f"engine: expected one of {', '.join(map(str, self.ids))}, got {engine_id}")


class FleetCluster(ipp.Cluster):
    """A fleet as ipyparallel's `Cluster`, with what that leaves to others: a single engine can be restarted, stopped, signalled.

    ``FleetCluster(fleet_file="lab.fleet.yml")``
    """

    fleet_file = Unicode(help="The fleet file; see `FleetLauncher.fleet_file`.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        if "controller" not in kwargs:
            kwargs.setdefault("controller_launcher_class", FleetControllerLauncher)
        if "engines" not in kwargs:
            kwargs.setdefault("engine_launcher_class", FleetEngineSetLauncher)
        super().__init__(**kwargs)

    def engine_set_of(self, engine_id: int) -> FleetEngineSetLauncher:
        """The set that an engine belongs to.

        :raises LaunchError: when it belongs to none.
        """
        by_id: dict[int, FleetEngineSetLauncher] = {number: each for each in self.engines.values() for number in each.ids}
        if engine_id not in by_id:
            raise LaunchError(f"engine: expected one of {', '.join(map(str, sorted(by_id))) or 'none'}, got {engine_id}")
        return by_id[engine_id]

    async def restart_engine(self, engine_id: int) -> None:
        """Restart one engine and wait until it answers; it loses its memory."""
        await self.engine_set_of(engine_id).restart_engine(engine_id)

    async def stop_engine(self, engine_id: int) -> None:
        """Stop one engine."""
        await self.engine_set_of(engine_id).stop_engine(engine_id)
        self.update_cluster_file()

    async def signal_engine(self, signum: int | str, engine_id: int) -> None:
        """Send a signal to one engine."""
        await self.engine_set_of(engine_id).signal_engines(signum, [engine_id])
