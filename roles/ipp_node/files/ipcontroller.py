"""The fleet's ipcontroller: ipyparallel's own, with a hub whose memory survives any crash.

ipyparallel writes the list of engines in place, and writes it anew, engine by engine and with
`next_id` 0, while it reads it back after a restart. A kill at the wrong moment leaves half a list
(or no JSON at all, so that no later start succeeds), and a second restart hands id 0 to the next
engine that asks for none. Here the file is replaced in one step, and never while it is being read.

An engine that cannot be heard for a while (a network that is cut, a host that stands still) is taken
off ipyparallel's list for good, though it lives on with all that it knows and believes that it is on
it. Here it is back on the list under its id as soon as its heart is heard again. The same goes for an
engine that was told its id by a hub that did not live to hear its heart.

An engine that asks for no id is a guest: somebody has started it by hand. ipyparallel would give it the
next id, which a slot may ask for later. Here guests have ids of their own, beyond those of all slots.

An engine can be closed: it gets no more load-balanced tasks until it is open again; see ipyfleet_scheduler.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ipyfleet_steady
from ipyfleet_scheduler import CLOSED, HERE, FleetScheduler
from ipyparallel.controller import app, hub

# more than a host that is cut off has engines
MOST_SILENT = 4096
# slots have the lowest ids that are free, and are fewer
FIRST_GUEST = 10000


class FleetHub(hub.Hub):
    """A hub that keeps its list of engines whole."""

    _idcounter: int
    _loading = False
    _coming: str | None = None

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        # engines that are not heard, or were not yet heard, by id; in the order in which they fell silent
        self.silent: dict[int, str] = {}
        # hearts of engines that are on the restored list, and were not heard since
        self.unheard: set[bytes] = set()
        # where the scheduler of load-balanced tasks is; none where it is not ours
        self.scheduler: bytes | None = None
        self.query_handlers |= {HERE: self.meet_scheduler, "fleet_close_request": self.close_engines}

    # -- engines that are closed

    def meet_scheduler(self, idents: list[bytes], _msg: dict[str, Any]) -> None:
        """Note where the scheduler is."""
        self.scheduler = idents[0]

    def close_engines(self, idents: list[bytes], msg: dict[str, Any]) -> None:
        """Pass on which engines shall get no load-balanced task, and for how many seconds; 0 opens one."""
        wanted = {int(number): float(seconds) for number, seconds in msg["content"]["engines"].items()}
        known = {number: seconds for number, seconds in wanted.items() if number in self.engines}
        if self.scheduler:
            engines = {self.engines[number].uuid: seconds for number, seconds in known.items()}
            self.session.send(self.query, CLOSED, content={"engines": engines}, ident=self.scheduler)
        content = {"status": "ok", "closed": sorted(known) if self.scheduler else []}
        self.session.send(self.query, "fleet_close_reply", content=content, ident=idents, parent=msg)

    def _save_engine_state(self) -> None:
        if not self.engine_state_file or self._loading:
            return
        engines = {str(number): engine.uuid for number, engine in self.engines.items()}
        silent = {str(number): uuid for number, uuid in self.silent.items()}
        write_state(Path(self.engine_state_file), {"engines": engines, "next_id": self._idcounter, "silent": silent})

    # -- engines that fall silent, and are heard again

    def handle_stopped_heart(self, heart: bytes) -> None:
        """Remember an engine that fell silent."""
        number = self.hearts.get(heart)
        super().handle_stopped_heart(heart)
        if number is not None:
            self._remember(number, heart)

    def _purge_stalled_registration(self, heart: bytes) -> None:
        late = self.incoming_registrations.get(heart)
        super()._purge_stalled_registration(heart)
        if late is not None and heart not in self.incoming_registrations:
            self._remember(late.id, heart)

    def _remember(self, number: int, heart: bytes) -> None:
        self.silent.pop(number, None)
        self.silent[number] = heart.decode()
        while len(self.silent) > MOST_SILENT:
            self.silent.pop(next(iter(self.silent)))
        self._save_engine_state()

    def handle_new_heart(self, heart: bytes) -> None:
        """List an engine again that is heard again."""
        self.unheard.discard(heart)
        number = next((number for number, uuid in self.silent.items() if uuid == heart.decode()), None)
        taken = {*self.engines, *(each.id for each in self.incoming_registrations.values())}
        if number is not None:
            del self.silent[number]
            if number not in taken:
                self.log.warning("engine %s is heard again", number)
                self.incoming_registrations[heart] = hub.EngineConnector(id=number, uuid=heart.decode(), ident=heart)
        super().handle_new_heart(heart)

    def unregister_engine(self, ident: Any, msg: dict[str, Any]) -> None:
        """Forget an engine that leaves."""
        self.silent.pop(msg["content"].get("id"), None)
        super().unregister_engine(ident, msg)

    def register_engine(self, reg: bytes, msg: dict[str, Any]) -> int | None:
        """Know an engine before it is told its id: from then on it never asks again."""
        self._coming = msg["content"].get("uuid")
        number: int | None = super().register_engine(reg, msg)
        if number is not None and str(self._coming).encode() not in self.incoming_registrations:
            # refused
            self.silent.pop(number, None)
            self._save_engine_state()
        return number

    def new_engine_id(self, requested_id: int | None = None) -> int:
        """Choose an id, the one asked for or else one that is no slot's; its former bearer is no more."""
        self._idcounter = max(self._idcounter, FIRST_GUEST)
        number: int = super().new_engine_id(requested_id)
        self._remember(number, str(self._coming).encode())
        return number

    # -- the list's file

    def _load_engine_state(self) -> None:
        path = Path(self.engine_state_file)
        state = read_state(path)
        if state is None:
            if path.exists():
                self.log.error("%s is damaged: set aside, no engine is restored from it", path)
                os.replace(path, f"{path}.damaged")
            return
        write_state(path, state)
        self.silent = {int(number): uuid for number, uuid in state["silent"].items()}
        self._loading = True
        try:
            super()._load_engine_state()
        finally:
            self._loading = False
        # nobody would miss the heartbeats of those that are no more
        self.unheard = set(self.hearts)
        self.loop.add_timeout(self.loop.time() + self.registration_timeout, self._miss_unheard)

    def _miss_unheard(self) -> None:
        for heart in self.unheard & set(self.hearts):
            self.handle_stopped_heart(heart)
        self.unheard.clear()


def read_state(path: Path) -> dict[str, Any] | None:
    """The list of engines in `path` with a `next_id` beyond all of them; None when it is no such list."""
    try:
        state = json.loads(path.read_text())
        state["silent"] = {str(int(number)): str(uuid) for number, uuid in state.get("silent", {}).items()}
        numbers = [int(number) for number in (*state["engines"], *state["silent"])]
        state["next_id"] = max([int(state["next_id"]), *(number + 1 for number in numbers)])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(state)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Put the list of engines in `path`, whole or not at all, power cuts included."""
    new = Path(f"{path}.new")
    with open(new, "w", encoding="utf-8") as stream:
        json.dump(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)


if __name__ == "__main__":
    # schedulers are forks of this process, and have it from here
    ipyfleet_steady.follow_no_clock()
    ipyfleet_steady.tasks_follow_no_clock()
    ipyfleet_steady.hand_identities_over()
    app.Hub = FleetHub
    app.TaskScheduler = FleetScheduler
    app.main()
