"""ipcluster with a fleet's profile: ipyparallel's own, but for two things about `start`.

It ends with 1 when the controller was lost, so that a supervisor starts it anew, and with 0 when somebody has stopped
it. And `--daemonize` leaves a process behind, on which the engines' lives hang; ipyparallel's own would leave none.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from ipyparallel.cluster.app import IPCluster, IPClusterStart

DAEMONIZE = re.compile(r"--(IPCluster(Engines|Start)\.)?daemonize(=(True|1))?")
# the descriptor to tell that all was started
STARTED = "IPYFLEET_STARTED"
# where those say what they have to say who have left their terminal
LOG = "IPYFLEET_LOG"


class FleetClusterStart(IPClusterStart):
    """`ipcluster start` that says whether its end was wanted."""

    lost = False

    async def start_cluster(self) -> None:
        """Start all, and tell whoever waits for it."""
        await super().start_cluster()
        if told := os.environ.pop(STARTED, ""):
            with contextlib.suppress(OSError):
                os.write(int(told), str(self.cluster.cluster_file).encode())
                os.close(int(told))

    def controller_stopped(self, stop_data: dict[str, Any] | None) -> None:
        """Note whether somebody has stopped the controller, or it was lost."""
        code = (stop_data or {}).get("exit_code")
        self.lost = not self._stopping and code not in (0, -signal.SIGTERM)
        super().controller_stopped(stop_data)

    def start(self) -> None:
        """Run until it is stopped."""
        super().start()
        if self.lost:
            self.exit(1)


class FleetCluster(IPCluster):
    """`ipcluster` with that."""

    subcommands: ClassVar[dict[str, Any]] = {**IPCluster.subcommands, "start": (FleetClusterStart, IPCluster.subcommands["start"][1])}


def in_background(words: list[str]) -> int:
    """Start all in a process of its own; returns when it has, or could not."""
    log = Path(os.environ[LOG])
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = os.pipe()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, __file__, *words],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            pass_fds=[theirs],
            env={**os.environ, STARTED: str(theirs)},
        )
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        file = stream.read().decode()
    if file:
        print(f"Leaving cluster running: {file}", file=sys.stderr)
        return 0
    code = process.wait()
    print(log.read_text(errors="replace"), end="", file=sys.stderr)
    return code or 1


def main() -> int:
    words = sys.argv[1:]
    left = [word for word in words if not DAEMONIZE.fullmatch(word)]
    if words[:1] == ["start"] and left != words:
        return in_background(left)
    FleetCluster.launch_instance(words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
