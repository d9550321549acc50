"""The fleet as ipyparallel's `Cluster`: it can be connected to, and cannot be started, stopped or signalled.

`ipp.Cluster.from_file(profile=NAME)` and the clusters tab of JupyterLab make a `ManagedCluster` of the file
`cluster-.json` that lies beside the fleet's connection file. The profile's `ipcluster_config.py` names the
launchers below, so that a cluster that anybody wants to start in the fleet's profile is refused, too:
it would be a rival of the controller that is there.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from ipyparallel import Client, Cluster
from ipyparallel.cluster.launcher import BaseLauncher
from tornado.web import HTTPError
from traitlets import Integer, Unicode


class FleetIsManagedError(HTTPError):
    """Something was asked for that only who deploys the fleet can do; the clusters tab shows its message.

    :param profile_dir: folder of the profile, which is called like the fleet.
    """

    def __init__(self, profile_dir: str) -> None:
        self.fleet = fleet_of(profile_dir)
        super().__init__(409, str(self))

    def __str__(self) -> str:
        return (
            f"fleet {self.fleet} is managed by ipyfleet, and nothing was changed: use"
            " `ipyfleet start`, `ipyfleet stop` or `ipyfleet restart` where it is deployed from"
        )


def fleet_of(profile_dir: str) -> str:
    """The fleet that a profile's folder belongs to, by its name."""
    return os.path.basename(profile_dir).removeprefix("profile_")


class ManagedLauncher(BaseLauncher):
    """A part of the fleet that runs already.

    :raises FleetIsManagedError: when the launcher is for another cluster than the fleet itself.
    """

    def __init__(self, **kwargs: Any) -> None:
        parent = kwargs.get("parent")
        if not isinstance(parent, ManagedCluster):
            raise FleetIsManagedError(str(kwargs.get("profile_dir", "")))
        super().__init__(**kwargs)
        self.profile_dir = parent.profile_dir
        self.state = "running"

    async def _refuse(self, *_args: object, **_kwargs: object) -> None:
        """Change nothing.

        :raises FleetIsManagedError: always.
        """
        raise FleetIsManagedError(self.profile_dir)

    start = stop = join = _refuse

    def signal(self, _sig: object) -> None:
        """Signal nothing.

        :raises FleetIsManagedError: always.
        """
        raise FleetIsManagedError(self.profile_dir)


class ManagedController(ManagedLauncher):
    """The fleet's controller."""

    name = Unicode("controller")

    async def get_connection_info(self, timeout: float | None = None) -> dict[str, Any]:  # noqa: ARG002  # the file is there
        """What clients connect with; there is no engines' file beside it."""
        with open(self.connection_files["client"]) as file:
            return {"client": json.load(file)}


class ManagedEngines(ManagedLauncher):
    """The fleet's engines on one host, which is what the set is called."""

    name = Unicode("engines")
    n = Integer(1, help="How many slots the host has.").tag(to_dict=True)
    engine_set_id = Unicode()


class ManagedCluster(Cluster):
    """A fleet: `connect_client_sync()` and `with cluster as client:` use it; what would change it is refused."""

    _context_client: Client | None = None

    def __del__(self) -> None:
        """Leave the fleet alone, whatever `shutdown_atexit` is."""

    def __repr__(self) -> str:
        count = sum(each.n for each in self.engines.values())
        return f"<{type(self).__name__}(profile={fleet_of(self.profile_dir)!r}, hosts={len(self.engines)}, engines={count})>"

    def write_cluster_file(self) -> None:
        """Leave the file as it was deployed."""

    remove_cluster_file = write_cluster_file

    async def _refuse(self, *_args: object, **_kwargs: object) -> None:
        """Change nothing.

        :raises FleetIsManagedError: always.
        """
        raise FleetIsManagedError(self.profile_dir)

    start_cluster = start_controller = start_engines = _refuse
    stop_cluster = stop_controller = stop_engines = stop_engine = _refuse
    restart_engines = restart_engine = signal_engines = signal_engine = _refuse

    async def start_and_connect(self, n: int | None = None, activate: bool = False) -> Client:
        """Connect a client; nothing has to be started.

        :param n: number of engines to wait for; without it, nobody waits for a host that may be down.
        :param activate: whether `%px` is to use all engines, and wait for them.
        :raises TimeoutError: when `n` engines are not there within `engine_timeout` seconds.
        """
        client = await self.connect_client()
        if n:
            await asyncio.wrap_future(client.wait_for_engines(n, block=False, timeout=self.engine_timeout))
        if activate:
            view = client[:]
            view.block = True
            view.activate()
        return client

    async def __aexit__(self, *_args: object) -> None:
        self.__exit__()

    def __exit__(self, *_args: object) -> None:
        if self._context_client is not None:
            self._context_client.close()
            self._context_client = None
