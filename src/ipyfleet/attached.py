"""One fleet as this process knows it: one run at a time, and one way to its controller, for all who ask."""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ipyfleet.access import Access
from ipyfleet.client import CLIENT_SECONDS, find_way, is_reachable, new_client
from ipyfleet.cluster import CANCEL, Cluster
from ipyfleet.errors import IpyfleetError
from ipyfleet.results import Result
from ipyfleet.tunnel import Tunnel

_KNOWN: dict[tuple[str, ...], Attached] = {}
T = TypeVar("T")


class Attached:
    """A fleet that several launchers of this process use.

    :param cluster: the fleet.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._lock = threading.RLock()
        self._access: Access | None = None
        self._stamp = 0
        self._way: tuple[dict[str, Any], Tunnel | None] | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Have the fleet for oneself.

        :raises IpyfleetError: when one was cancelled before it was one's turn.
        """
        with self._lock:
            cancel = CANCEL.get(None)
            if cancel and cancel.is_set():
                raise IpyfleetError("cancelled")
            yield

    def run(self, verb: str, **arguments: Any) -> Result:
        """Carry out a verb of `Cluster` when no other is under way in this process."""
        with self.turn():
            result: Result = getattr(self.cluster, verb)(**arguments)
            return result

    def access(self) -> Access:
        """What a client needs, read anew when something was deployed meanwhile.

        :raises ClientError: when the fleet was not deployed from here.
        """
        with self.turn():
            if self._access is None or self._stamp != self.stamp():
                self.close()
                self._access = self.cluster.access()
                self._stamp = self.stamp()
            return self._access

    def stamp(self) -> int:
        """When the fleet's file, its keys, or what is remembered of it was last changed."""
        keys = self._access.secrets_dir.glob("*.json") if self._access else ()
        return max((path.stat().st_mtime_ns for path in [*map(Path, self.cluster.sources), *keys] if path.exists()), default=0)

    def client_info(self) -> dict[str, Any]:
        """The client's connection file as it holds on this machine; a tunnel that it leads through is there until `close`.

        :raises ClientError: when no way leads to the controller.
        """
        with self.turn():
            access = self.access()
            if self._way is None or not is_reachable(self._way[0]):
                self.close()
                self._way = find_way(access)
            return self._way[0]

    def client(self) -> Any:
        """An ipyparallel client, for a moment.

        :raises ClientError: when the controller does not answer.
        """
        return new_client(self.client_info(), self.access().host, CLIENT_SECONDS)

    def close(self) -> None:
        """End the tunnel, if there is one."""
        way, self._way = self._way, None
        if way and way[1]:
            way[1].close()


def attached(sources: Sequence[str], arguments: Sequence[str] = ()) -> Attached:
    """The fleet of these inventory sources.

    :param arguments: more words for ansible-playbook's command line.
    :raises InputError: when a source does not exist.
    """
    key = (*sources, "--", *arguments)
    if key not in _KNOWN:
        _KNOWN[key] = Attached(Cluster(sources, arguments=arguments))
        atexit.register(_KNOWN[key].close)
    return _KNOWN[key]


def cancelled_by(cancel: threading.Event, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call something; what it asks of a fleet in this context is cancelled by an event, and nothing that others ask for."""
    CANCEL.set(cancel)
    return function(*arguments, **named)


def is_ending() -> bool:
    """Whether this process is about to end: then it cannot start threads any more, and so run no playbook by itself."""
    return not threading.main_thread().is_alive()


def stop_by_command(sources: Sequence[str], arguments: Sequence[str], services: Sequence[str]) -> None:
    """Stop services by the command, in a process of its own.

    :raises IpyfleetError: with its reasons, when it does not succeed.
    """
    words = [word for source in sources for word in ("-i", source)] + [word for name in services for word in ("--service", name)]
    command = [sys.executable, "-m", "ipyfleet", "stop", "--json", *words, *(["--", *arguments] if arguments else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2 or (done.returncode and not done.stdout):
        raise IpyfleetError(done.stderr.strip())
    if failures := json.loads(done.stdout)["failures"]:
        raise IpyfleetError("\n".join(f"{each['host']}: {each['message']}" if each["host"] else each["message"] for each in failures))
