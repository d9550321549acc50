"""From this machine to all that a fleet has: its controller, its JupyterLab, its database."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any

from ipyfleet import client_folder, local_ports, probe, ssh
from ipyfleet.access import CONNECTION, CONTROLLER, DATABASE, NOTEBOOK, Access, Target
from ipyfleet.client import CLIENT_SECONDS, LOOPBACK, client_info, new_client
from ipyfleet.client_folder import ClientFolder
from ipyfleet.errors import ClientError, InputError
from ipyfleet.ssh import Forward
from ipyfleet.tunnel import Keeper, Tunnel

ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Wish:
    """How somebody wants to be connected.

    :param port: of this machine, for JupyterLab; the one that it has there when None, any that is free when 0.
    :param user: who logs in; as the inventory says when empty.
    :param identity: path of the key that logs in; as the inventory and ssh say when empty.
    """

    port: int | None = None
    user: str = ""
    identity: str = ""


class Connection:
    """A fleet, reached from this machine until `close`.

    Made by `Cluster.connect`. What it is made of does not change: when ssh ends, it is started anew
    with the same ports, and a client or a browser goes on.

    :ivar fleet: the fleet's name.
    :ivar host: the host that leads there.
    :ivar over_ssh: whether it goes through ssh; else the fleet is on this machine.
    :ivar url: of JupyterLab, with its token; empty where the fleet has none.
    :ivar token: JupyterLab's; empty where the fleet has none.
    :ivar profile: of IPython, in which this machine's users have the connection file anyway; else empty.
    :ivar client_file: the connection file for `ipyparallel.Client`.
    :ivar dsn: the database as libpq takes it; empty where there is none.
    :ivar environment: variables with which `create_engine("postgresql+psycopg2://")` finds it; none where there is none.
    :ivar ports: where things are on this machine, by name.
    :ivar notes: what is there and does not answer, a line each.
    """

    def __init__(self, access: Access, forwards: Sequence[Forward], folder: ClientFolder, keeper: Keeper | None) -> None:
        self._closed = Event()
        self._keeper = keeper
        self._folder = folder
        # also when it is forgotten, or Python ends
        self._end = weakref.finalize(self, _end, folder, keeper, self._closed)
        there = {each.name: each for each in forwards}
        self.fleet = access.name
        self.host = access.way.host
        self.over_ssh = keeper is not None
        self.profile = access.name if access.way.client and keeper is None else ""
        self.token = access.token
        self.url = f"{_notebook_url(there[NOTEBOOK])}/lab?token={self.token}" if NOTEBOOK in there else ""
        self.ports = {each.name: each.here for each in forwards}
        self._info = client_info(access.info, forwards) if keeper else dict(access.info)
        database = there.get(DATABASE)
        place = (LOOPBACK if keeper else database.address, database.here) if database else None
        folder.write_files(access.files, self._info, place)
        self.client_file = folder.path / CONNECTION
        service = folder.path / client_folder.SERVICE
        self.dsn = client_folder.dsn_of(service.read_text(encoding="utf-8")) if database else ""
        self.environment = {"PGSERVICEFILE": str(service), "PGSERVICE": _first_service(service)} if database else {}
        self.notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Connection to fleet {self.fleet} through {self.host}: {'alive' if self.alive else 'not alive'}>"

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether it leads there right now; ssh may be on its way back."""
        return not self._closed.is_set() and (self._keeper is None or self._keeper.tunnel.alive)

    def client(self, *, timeout: float = CLIENT_SECONDS) -> Any:
        """An ipyparallel Client of the fleet.

        :param timeout: seconds to wait for the controller.
        :raises ClientError: when it does not answer.
        """
        return new_client(self._info, self.fleet, timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until somebody closes it; returns whether it is closed.

        :param timeout: seconds to wait at most.
        """
        return self._closed.wait(timeout)

    def redirect(self) -> Path:
        """A page for a browser to open, which leads to JupyterLab with its token."""
        return self._folder.write(client_folder.REDIRECT, client_folder.redirect_text(self.url))

    def close(self) -> None:
        """End ssh, and remove the files."""
        self._end()


def _end(folder: ClientFolder, keeper: Keeper | None, closed: Event) -> None:
    if keeper:
        keeper.close()
    folder.remove()
    closed.set()


def open_connection(access: Access, wish: Wish, say: Callable[[str], None], answer_seconds: float = ANSWER_SECONDS) -> Connection:
    """Connect this machine to a fleet.

    :param say: told when ssh ends, and when it is back; in a thread of its own.
    :param answer_seconds: how long JupyterLab may take to answer.
    :raises InputError: when what is wished for does not go together.
    :raises ClientError: with the reason for which it is not connected; nothing is left then.
    """
    forwards = plan(access, wish)
    folder = ClientFolder(access.name)
    keeper = None
    try:
        if access.way.over_ssh:
            command = ssh.tunnel_command(access.way.host, reach_of(access, wish), forwards)
            keeper = Keeper(access.way.host, command, forwards[0].here, say, folder.remember)
            keeper.open()
        connection = Connection(access, forwards, folder, keeper)
        connection.notes = check(access, forwards, keeper.tunnel if keeper else None, answer_seconds)
    except BaseException:
        _end(folder, keeper, Event())
        raise
    return connection


def reach_of(access: Access, wish: Wish) -> dict[str, Any]:
    """How the host that leads there is reached."""
    return ssh.as_somebody(access.way.reach, wish.user, wish.identity)


def plan(access: Access, wish: Wish) -> list[Forward]:
    """Which port here leads to which there.

    :raises InputError: when what is wished for does not go together, or is not allowed here.
    :raises ClientError: when the port for JupyterLab is taken.
    """
    way = access.way
    if wish.identity and not Path(wish.identity).is_file():
        raise InputError([f"--identity: expected a private key, got no file {wish.identity}"])
    if wish.port is not None and not way.target(NOTEBOOK):
        raise InputError([f"--port: expected a fleet with JupyterLab, got {access.name}, which has none"])
    if not way.over_ssh:
        if wish.port is not None or wish.user or wish.identity:
            raise InputError([f"{way.host}: expected no --port, --user or --identity for a fleet on this machine, got one"])
        return [Forward(each.name, each.port, each.address, each.port) for each in way.targets]
    found: list[Forward] = []
    for target in way.targets:
        taken = [each.here for each in found]
        here = notebook_port(target, wish) if target.name == NOTEBOOK else local_ports.same_or_free(target.port, taken)
        found.append(Forward(target.name, here, target.address, target.port))
    return found


def notebook_port(target: Target, wish: Wish) -> int:
    """The port for JupyterLab here: never another one than somebody expects."""
    if wish.port == 0:
        return local_ports.free_port()
    port = target.port if wish.port is None else wish.port
    if not local_ports.is_allowed(port):
        raise InputError([f"--port: expected a port that this user may listen on, such as one from 1024 on, got {port}"])
    if not local_ports.is_free(port):
        who = local_ports.holder(port) or "another program"
        raise ClientError(
            f"port {port}: expected it to be free on this machine, got {who} there; choose another with --port, or any with --port 0"
        )
    return port


def check(access: Access, forwards: Sequence[Forward], tunnel: Tunnel | None, seconds: float) -> tuple[str, ...]:
    """See what answers; returns a line for each of what does not, and can be done without.

    :raises ClientError: when the fleet's JupyterLab, or where it has none its controller, does not answer.
    """
    there = {each.name: each for each in forwards}
    host = access.way.host
    if NOTEBOOK in there:
        wait_for_notebook(host, there[NOTEBOOK], access.token, tunnel, seconds)
    address = {name: LOOPBACK if tunnel else each.address for name, each in there.items()}
    missing = []
    if not probe.controller_answers(there[CONTROLLER].here, address[CONTROLLER]):
        missing.append(f"{access.host}: expected its controller to answer, got nothing; {_why(tunnel)}")
        if NOTEBOOK not in there:
            raise ClientError(missing[0])
    if DATABASE in there and not probe.database_answers(there[DATABASE].here, address[DATABASE]):
        missing.append(f"{there[DATABASE].address}: expected the database to answer, got nothing; {_why(tunnel)}")
    return tuple(missing)


def _why(tunnel: Tunnel | None) -> str:
    if tunnel and tunnel.is_prohibited():
        return "sshd does not forward to it; see its AllowTcpForwarding and PermitOpen, and permitopen of the key"
    return "`ipyfleet status` says how it does"


def wait_for_notebook(host: str, forward: Forward, token: str, tunnel: Tunnel | None, seconds: float) -> None:
    """Wait until JupyterLab answers a request that has its token.

    :raises ClientError: when it does not.
    """
    url, deadline = _notebook_url(forward), time.monotonic() + seconds
    # the token is for nobody else who may listen here
    while (status := probe.notebook_status(url, token) if not tunnel or tunnel.is_open(forward.here) else None) is None:
        if tunnel and not tunnel.alive:
            raise ClientError(f"{host}: {tunnel.reason()}")
        if time.monotonic() > deadline or (tunnel and tunnel.is_prohibited()):
            where = f"at {forward.address}:{forward.port} of its host"
            raise ClientError(f"{host}: expected JupyterLab to answer {where}, got nothing; {_why(tunnel)}")
        time.sleep(0.2)
    if status in (401, 403):
        advice = "deploy it again with `ipyfleet up`"
        raise ClientError(f"{host}: expected JupyterLab to take the token that is kept here, got {status}; {advice}")
    if status != 200:
        raise ClientError(f"{host}: expected JupyterLab at port {forward.port}, got another program, which answered {status}")


def _notebook_url(forward: Forward) -> str:
    return f"http://{LOOPBACK}:{forward.here}"


def _first_service(path: Path) -> str:
    return client_folder.services_of(path.read_text(encoding="utf-8")).sections()[0]
