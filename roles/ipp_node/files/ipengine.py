"""The engine of one slot: ipyparallel's own, with an id that is the slot's for ever.

    ipengine.py SLOT_FILE [ipengine options]

The slot file is JSON: `id`, and what ipyfleet_slot.py sets before anything is imported: `env`,
environment variables; `cpus`, the slot's share of cores; `memory_max`, a limit in MiB. An @ in its
name stands for the rank that MPI gave this process among those of its host.
When a predecessor in the slot was lost without a word (power cut, out of memory), the hub still
lists it and would give its successor another id. So the successor says goodbye for it first, and
does not go on under an id that is not its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from typing import Any

import ipyfleet_slot
import ipyfleet_steady
from ipyfleet_slot import TRY_AGAIN

# A controller's host that loses power closes no connection, and its engines, who mostly listen, would
# wait for it on connections that are none: seconds until the first question, between questions, and
# unanswered ones until a connection is given up. A new one that is not answered at once is tried anew
# (milliseconds); left alone, TCP would ask ever more rarely, a minute apart in the end. So it would with
# what it sends and nobody takes: a connection is given up after so many milliseconds of that.
SOCKET_OPTIONS = {
    "TCP_KEEPALIVE": 1,
    "TCP_KEEPALIVE_IDLE": 5,
    "TCP_KEEPALIVE_INTVL": 2,
    "TCP_KEEPALIVE_CNT": 5,
    "TCP_MAXRT": 15000,
    "CONNECT_TIMEOUT": 2000,
}
# between starts of nannies that end at once
LONGEST_DELAY_SECONDS = 60.0
QUICK_SECONDS = 10.0


def kept_heart(heart: Any, options: dict[int, int]) -> Any:
    """The class of an engine's heart with socket options; its connections are of a context of its own."""

    class KeptHeart(heart):
        """A heart that notices when its connections are dead."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for option, value in options.items():
                self.device.setsockopt_in(option, value)
                self.device.setsockopt_out(option, value)

    return KeptHeart


def nursed_engine(engine: Any) -> Any:
    """The class of an engine that never is without a nanny for long."""
    import zmq

    class NursedEngine(engine):
        """An engine that starts its nanny anew."""

        stopping = False
        nanny_pipe: Any

        async def complete_registration(self, *args: Any, **kwargs: Any) -> None:
            await super().complete_registration(*args, **kwargs)
            if self.enable_nanny:
                threading.Thread(target=self.keep_nanny, name="KeepNanny", daemon=True).start()

        def keep_nanny(self) -> None:
            """Start the nanny anew that is lost: signals and all of the control channel come through it."""
            begun, delay = time.monotonic(), 0.0
            while True:
                self.nanny_pipe.wait()
                if self.stopping:
                    return
                delay = min(2 * delay + 1, LONGEST_DELAY_SECONDS) if time.monotonic() - begun < QUICK_SECONDS + delay else 0.0
                self.log.warning("the nanny ended with status %s, and is started anew", self.nanny_pipe.returncode)
                time.sleep(delay)
                begun = time.monotonic()
                with contextlib.suppress(OSError, RuntimeError, MemoryError):
                    info = self.connection_info
                    url, self.nanny_pipe = self.start_nanny(control_url=f"{info['interface']}:{info['control']}")
                    self.kernel.control_stream.io_loop.add_callback(self.listen_to, url)

        def listen_to(self, url: str) -> None:
            """Take what comes over the control channel from another nanny; in the thread whose socket that is."""
            with contextlib.suppress(zmq.ZMQError):
                self.control_socket.disconnect(self.control_socket.LAST_ENDPOINT)
            self.init_connector()[0](self.control_socket, url, curve_serverkey=self.curve_publickey)

    return NursedEngine


def slot_engine() -> Any:
    """The class of a slot's engine; made after the environment is set, which libraries read when they are imported."""
    import ipyfleet_hub as hub
    import zmq
    from ipyparallel.engine import app
    from traitlets import default

    options = {getattr(zmq, name): value for name, value in SOCKET_OPTIONS.items()}
    app.Heart = kept_heart(app.Heart, options)

    class SlotEngine(nursed_engine(app.IPEngine)):  # type: ignore[misc]
        """An engine that takes its slot's id or none."""

        @default("context")
        def _default_context(self) -> zmq.Context:
            context = zmq.Context.instance()
            for option, value in options.items():
                context.setsockopt(option, value)
            return context

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

    return SlotEngine


def main() -> None:
    # whatever has started it
    os.umask(0o077)
    slot = ipyfleet_slot.read_slot(sys.argv[1])
    if "cpus" in slot:
        ipyfleet_slot.bind(slot["cpus"])
    engine = slot_engine()
    ipyfleet_steady.follow_no_clock()
    if "memory_max" in slot:
        engine = ipyfleet_slot.limited_engine(engine, ipyfleet_slot.Memory(slot["memory_max"]))
    # what user code imports is none of this folder's business
    sys.path.pop(0)
    engine.launch_instance([*sys.argv[2:], f"--IPEngine.id={slot['id']}"])


if __name__ == "__main__":
    main()
