"""The fleet's ipcontroller: ipyparallel's own, with a hub whose memory survives any crash.

ipyparallel writes the list of engines in place, and writes it anew, engine by engine and with
`next_id` 0, while it reads it back after a restart. A kill at the wrong moment leaves half a list
(or no JSON at all, so that no later start succeeds), and a second restart hands id 0 to the next
engine that asks for none. Here the file is replaced in one step, and never while it is being read.

An engine that asks for no id is a guest: somebody has started it by hand. ipyparallel would give it the
next id, which a slot may ask for later. Here guests have ids of their own, beyond those of all slots.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ipyparallel.controller import app, hub

# slots have the lowest ids that are free, and are fewer
FIRST_GUEST = 10000


class FleetHub(hub.Hub):
    """A hub that keeps its list of engines whole."""

    _idcounter: int
    _loading = False

    def _save_engine_state(self) -> None:
        if not self.engine_state_file or self._loading:
            return
        engines = {str(number): engine.uuid for number, engine in self.engines.items()}
        write_state(Path(self.engine_state_file), {"engines": engines, "next_id": self._idcounter})

    def _load_engine_state(self) -> None:
        path = Path(self.engine_state_file)
        state = read_state(path)
        if state is None:
            if path.exists():
                self.log.error("%s is damaged: set aside, no engine is restored from it", path)
                os.replace(path, f"{path}.damaged")
            return
        write_state(path, state)
        self._loading = True
        try:
            super()._load_engine_state()
        finally:
            self._loading = False

    def new_engine_id(self, requested_id: int | None = None) -> int:
        """The id of an engine that registers: the one that it asks for if that is free, else one that is no slot's."""
        self._idcounter = max(self._idcounter, FIRST_GUEST)
        return int(super().new_engine_id(requested_id))


def read_state(path: Path) -> dict[str, Any] | None:
    """The list of engines in `path` with a `next_id` beyond all of them; None when it is no such list."""
    try:
        state = json.loads(path.read_text())
        numbers = [int(number) for number in state["engines"]]
        state["next_id"] = max([int(state["next_id"]), *(number + 1 for number in numbers)])
    except (OSError, ValueError, KeyError, TypeError):
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
    app.Hub = FleetHub
    app.main()
