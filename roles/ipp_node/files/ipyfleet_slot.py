"""What the engine of a slot may use: environment, cores and memory, set before any library asks for them.

The limit of memory is of what the process has allocated, or may write without asking (RLIMIT_DATA).
What it has only reserved does not count: address space, as GPU libraries take by the terabyte.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TRY_AGAIN = 75  # EX_TEMPFAIL
LOCAL_RANK = "OMPI_COMM_WORLD_LOCAL_RANK"
TOPOLOGY = Path("/sys/devices/system/cpu")
# bytes of a task's arguments from which on they are none of the small change
LARGE = 1 << 20
# a connection that is tried anew says so at once
RETRIED_SECONDS = 2.0


def read_slot(path: str) -> dict[str, Any]:
    """Read a slot file and set its environment variables."""
    slot = json.loads(Path(path.replace("@", os.environ.get(LOCAL_RANK, "@"))).read_text())
    os.environ.update({key: str(value) for key, value in slot["env"].items()})
    return dict(slot)


# -- cores


def share(cores: Sequence[int], number: int, slots: int) -> list[int]:
    """The cores of one of a host's slots: neighbours; with more slots than cores, slots take turns at one each."""
    if slots >= len(cores):
        return [cores[number % len(cores)]]
    return list(cores[number * len(cores) // slots : (number + 1) * len(cores) // slots])


def by_neighbours(cores: Sequence[int], topology: Path = TOPOLOGY) -> list[int]:
    """Logical cores in an order that has those of a physical core together, and those of a socket."""

    def place(core: int) -> tuple[int, int, int]:
        found = [0, 0]
        for index, name in enumerate(("physical_package_id", "core_id")):
            with contextlib.suppress(OSError, ValueError):
                found[index] = int((topology / f"cpu{core}" / "topology" / name).read_text())
        return found[0], found[1], core

    return sorted(cores, key=place)


def bind(cpus: dict[str, Any]) -> None:
    """Have this process and its children run on the slot's share of cores, and libraries start as many threads.

    :param cpus: `cores`, or none for all that this process may use; `number` of the slot, and `slots` of its host.
    :raises SystemExit: when the process may use none of them.
    """
    allowed = os.sched_getaffinity(0)
    mine = share(cpus["cores"] or by_neighbours(sorted(allowed)), cpus["number"], cpus["slots"])
    if not allowed.intersection(mine):
        sys.exit(f"cpus: expected cores that this process may use, got {mine}; they are {sorted(allowed)}")
    os.sched_setaffinity(0, mine)
    # OpenBLAS, MKL, OpenMP and numexpr follow it where they have no variable of their own
    os.environ.setdefault("OMP_NUM_THREADS", str(len(mine)))


# -- memory


class Memory:
    """How much this process may have while a task runs; at other times nothing fails for want of memory.

    The messages' own threads give up a connection, or the process, when they cannot have what they need.

    :param maximum: MiB for all of the slot, of which a little is left for page tables and the like.
    """

    def __init__(self, maximum: int) -> None:
        self.limit = (maximum << 20) * 63 // 64
        self.hard = resource.getrlimit(resource.RLIMIT_DATA)[1]

    def tighten(self) -> None:
        """For a task."""
        self._set(self.limit)

    def loosen(self) -> None:
        """For what is before and after one."""
        self._set(self.hard)

    def _set(self, soft: int) -> None:
        # a task that has lowered the limit for good has its way
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (soft, self.hard))

    def exceeded(self) -> bool:
        """Whether the process has more than a task may."""
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        return pages * resource.getpagesize() > self.limit


def release(error: BaseException | None) -> None:
    """Give back what the frames of a task hold that ran out of memory; its error would keep them."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    gc.collect()
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def limited_kernel(kernel: Any, memory: Memory) -> Any:
    """The class of an engine's kernel whose tasks get MemoryError in good time, and leave no memory taken."""

    class LimitedKernel(kernel):
        """A kernel that outlives tasks that take too much."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            show = self.shell.showtraceback

            def show_with_room(*args: Any, **options: Any) -> None:
                memory.loosen()
                error = sys.exc_info()[1]
                if isinstance(error, MemoryError):
                    release(error)
                show(*args, **options)

            self.shell.showtraceback = show_with_room

        def do_apply(self, content: Any, bufs: Any, *args: Any) -> Any:
            if sum(map(len, bufs)) >= LARGE and memory.exceeded():
                # the kernel keeps a message until it has another
                bufs.clear()
                return self.refusal(), []
            memory.tighten()
            try:
                return super().do_apply(content, bufs, *args)
            finally:
                memory.loosen()

        async def do_execute(self, *args: Any, **kwargs: Any) -> Any:
            memory.tighten()
            try:
                return await super().do_execute(*args, **kwargs)
            finally:
                memory.loosen()

        def refusal(self) -> dict[str, Any]:
            """The answer to a task that came with too much."""
            text = f"the task's arguments do not fit into the {memory.limit >> 20} MiB of its engine"
            info = self.get_engine_info(method="apply")
            return {"status": "error", "ename": "MemoryError", "evalue": text, "traceback": [], "engine_info": info}

    return LimitedKernel


def watch_connections(socket: Any, lost: Callable[[str], None]) -> Any:
    """Tell of connections of a socket that are given up for good; those that are tried anew are none.

    A message that arrives while a task has all the memory ends its connection so, and the engine would
    look alive, and never hear a task again.

    :param lost: is called with the connection's address.
    :return: what has to be kept as long as the socket.
    """
    import zmq
    from zmq.eventloop.zmqstream import ZMQStream
    from zmq.utils.monitor import parse_monitor_message

    ended: set[str] = set()
    stream = ZMQStream(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED))

    def judge(address: str) -> None:
        if address in ended:
            lost(address)

    def noted(frames: list[bytes]) -> None:
        event = parse_monitor_message(frames)
        address = event["endpoint"].decode()
        if event["event"] == zmq.EVENT_CONNECT_RETRIED:
            ended.discard(address)
        else:
            ended.add(address)
            stream.io_loop.call_later(RETRIED_SECONDS, judge, address)

    stream.on_recv(noted)
    return stream


def limited_engine(engine: Any, memory: Memory) -> Any:
    """The class of an engine whose tasks get MemoryError when they take too much."""
    from ipyparallel.engine import app

    app.Kernel = limited_kernel(app.Kernel, memory)

    class LimitedEngine(engine):
        """An engine that starts anew when no task can come from the controller any more."""

        async def complete_registration(self, *args: Any, **kwargs: Any) -> None:
            await super().complete_registration(*args, **kwargs)
            self.ears = watch_connections(self.shell_socket, self.deaf)

        def deaf(self, address: str) -> None:
            self.log.critical("lost the connection to %s: a message did not fit into the engine's memory", address)
            self.exit(TRY_AGAIN)

    return LimitedEngine
