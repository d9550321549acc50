"""The scheduler of load-balanced tasks: ipyparallel's own, which can be told to give an engine no more of them.

ipyparallel has no way to close an engine: it gets tasks as long as it is registered. Here the hub passes on
which engines are closed, and for how long: an engine is open again by itself when nobody asks for it any more,
however that came. What it has keeps running, and its results get through.
"""

from __future__ import annotations

import time
from typing import Any

from ipyparallel.controller.task_scheduler import TaskScheduler

# to the hub, once: who is to hear of closed engines; and from it
HERE = "fleet_scheduler_request"
CLOSED = "fleet_closed"


class FleetScheduler(TaskScheduler):
    """A scheduler that passes over engines that are closed."""

    def start(self) -> None:
        """Start, and tell the hub where this is."""
        # when each closed engine is open again, by identity, in seconds of the monotonic clock
        self.closed: dict[bytes, float] = {}
        super().start()
        self.session.send(self.query_stream, HERE, {})

    def dispatch_query_reply(self, msg: list[bytes]) -> None:
        """Hear which engines are closed; all else is for ipyparallel's own."""
        try:
            _, frames = self.session.feed_identities(msg, copy=True)
            known = self.session.deserialize(frames)
        except ValueError:
            self.log.warning("task::invalid message from the hub")
            return
        if known["header"]["msg_type"] == CLOSED:
            self.close_engines(known["content"]["engines"])
            return
        for uuid in known["content"].get("engines", {}).values():
            self._register_engine(uuid.encode())

    def close_engines(self, engines: dict[str, float]) -> None:
        """Close engines.

        :param engines: seconds for which each gets no task, by identity; 0 opens it.
        """
        now = time.monotonic()
        for uuid, seconds in engines.items():
            self.closed[uuid.encode()] = now + seconds
            self.loop.call_later(seconds + 0.01 if seconds else 0, self.reopen)

    def reopen(self) -> None:
        """Open the engines whose time is over, and give them what has waited."""
        now = time.monotonic()
        over = [uid for uid, until in self.closed.items() if until <= now]
        for uid in over:
            del self.closed[uid]
        if over:
            self.update_graph(None)

    def _unregister_engine(self, uid: bytes) -> None:
        self.closed.pop(uid, None)
        super()._unregister_engine(uid)

    def available_engines(self) -> list[int]:
        """Indices of the engines that may get a task."""
        found: list[int] = super().available_engines()
        now = time.monotonic()
        return [index for index in found if self.closed.get(self.targets[index], 0) <= now] if self.closed else found

    def submit_task(self, job: Any, indices: list[int] | None = None) -> None:
        """Submit a task; without `indices`, ipyparallel means all engines."""
        super().submit_task(job, indices or (self.available_engines() if self.closed else None))
