"""The engine of one slot: ipyparallel's own, with an id that is the slot's for ever.

    ipengine.py SLOT_FILE [ipengine options]

The slot file is JSON: `id`, and `env`, environment variables to set before anything is imported.
When a predecessor in the slot was lost without a word (power cut, out of memory), the hub still
lists it and would give its successor another id. So the successor says goodbye for it first, and
does not go on under an id that is not its own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TRY_AGAIN = 75  # EX_TEMPFAIL


def read_slot(path: str) -> dict[str, Any]:
    """Read a slot file and set its environment variables."""
    slot = json.loads(Path(path).read_text())
    os.environ.update({key: str(value) for key, value in slot["env"].items()})
    return dict(slot)


def main() -> None:
    slot = read_slot(sys.argv[1])

    # after the environment is set: libraries read it when they are imported
    import ipyfleet_hub as hub
    from ipyparallel.engine.app import IPEngine

    # what user code imports is none of this folder's business
    sys.path.pop(0)

    class SlotEngine(IPEngine):
        """An engine that takes its slot's id or none."""

        stopping = False

        def start(self) -> None:
            try:
                super().start()
            except RuntimeError:
                # tornado's word for a loop that was stopped from outside
                if not self.stopping:
                    raise

        def _signal_stop(self, *args: Any) -> None:
            self.stopping = True
            super()._signal_stop(*args)

        async def register(self) -> None:
            with open(self.url_file, encoding="utf-8") as stream:
                line = hub.Hub(json.load(stream))
            try:
                line.leave(self.id, self.timeout)
            except hub.NoAnswerError:
                self.log.critical("no answer from the controller in %.0f s", self.timeout)
                self.exit(TRY_AGAIN)
            finally:
                line.close()
            await super().register()

        async def complete_registration(self, *args: Any, **kwargs: Any) -> None:
            wanted = self.id
            await super().complete_registration(*args, **kwargs)
            if self.id != wanted:
                self.log.critical("the controller gave id %s instead of %s", self.id, wanted)
                self.exit(TRY_AGAIN)

    SlotEngine.launch_instance([*sys.argv[2:], f"--IPEngine.id={slot['id']}"])


if __name__ == "__main__":
    main()
