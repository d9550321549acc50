"""What lets ipyparallel's processes go on when the clock is set, or a connection dies without a word.

Timers of tornado's loops follow the wall clock: when it is set back by an hour, nothing that is done
regularly, as heartbeats are, is done for an hour. Here they follow the clock that nobody sets.

A ROUTER socket keeps the first connection of an identity, and refuses another one. A network that is cut
ends connections on one side alone: the engine comes again, and the controller goes on talking to what
is none any more. Here the newest connection has the identity.
"""

from __future__ import annotations

import functools
import time
from types import SimpleNamespace
from typing import Any


def follow_no_clock() -> None:
    """Have loops, and tasks with a timeout, count seconds that the clock does not change. Before any loop is made."""
    from tornado.ioloop import IOLoop

    def steady(self: IOLoop) -> float:  # noqa: ARG001  (a method's signature)
        return time.monotonic()

    IOLoop.time = steady  # type: ignore[method-assign]


def tasks_follow_no_clock() -> None:
    """The same for the scheduler of tasks, which adds the time of day to its loop's."""
    from ipyparallel.controller import task_scheduler

    task_scheduler.time = SimpleNamespace(time=time.monotonic)


def hand_identities_over() -> None:
    """Have every ROUTER socket that is made from now on let go of a connection when its identity comes again."""
    import zmq

    make = zmq.Context.socket

    @functools.wraps(make)
    def socket(self: Any, socket_type: int, *args: Any, **kwargs: Any) -> Any:
        made = make(self, socket_type, *args, **kwargs)
        if socket_type == zmq.ROUTER:
            made.setsockopt(zmq.ROUTER_HANDOVER, 1)
        return made

    zmq.Context.socket = socket
