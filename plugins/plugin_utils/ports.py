# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The block of 100 TCP ports that a fleet uses on its controller host.

====================  ==========================================================
first + 0 ... 6       engines: registration (clients too), control, mux, task,
                      iopub, heartbeat ping, heartbeat pong
first + 7 ... 22      engines: the leaves of the broadcast tree (2 ** depth of them)
first + 40 ... 45     clients: control, mux, task, iopub, notification, broadcast
first + 50 ... 89     the controller's own, on loopback (monitor, broadcast tree)
first + 90            the database of scope ``user``, on loopback
first + 91            JupyterLab, on loopback
first + 92 ... 99     kept free
====================  ==========================================================

Pools are separate because a restarted controller takes the ports of its connection files as
given and hands out the rest of a pool from its beginning: one shared pool makes it collide
with itself.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

BLOCK = 100
FIRST, LAST = 1024, 65535 - BLOCK + 1
MAX_DEPTH = 4
_ENGINE = ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong")
_CLIENT = ("control", "mux", "task", "iopub", "notification", "broadcast")


def default_first(name: str) -> int:
    """First port of the block that belongs to a fleet's name: 10000 to 29900, in steps of 100.

    Fleets of different names mostly get different blocks, so that several can share a host;
    two names may still meet, which is found before anything is changed.
    """
    return 10000 + BLOCK * (zlib.crc32(name.encode()) % 200)


@dataclass(frozen=True)
class PortPlan:
    """Ports of one fleet.

    :param first: first port of the block.
    :param depth: depth of the controller's broadcast tree, 0 to 4.
    """

    first: int
    depth: int = 1

    @property
    def engine(self) -> dict[str, int | list[int]]:
        """Ports of the engines' connection file, by its keys."""
        ports: dict[str, int | list[int]] = {key: self.first + n for n, key in enumerate(_ENGINE)}
        ports["broadcast"] = [self.first + 7 + n for n in range(2**self.depth)]
        return ports

    @property
    def client(self) -> dict[str, int]:
        """Ports of the clients' connection file, by its keys."""
        ports = {key: self.first + 40 + n for n, key in enumerate(_CLIENT)}
        return {"registration": self.first, **ports}

    @property
    def internal(self) -> list[int]:
        """Pool for the controller's own sockets."""
        return list(range(self.first + 50, self.first + 90))

    @property
    def database(self) -> int:
        """Port of the database in scope ``user``."""
        return self.first + 90

    @property
    def notebook(self) -> int:
        """Port of JupyterLab, unless another is set."""
        return self.first + 91

    @property
    def listening(self) -> list[int]:
        """Every port that the controller opens to others."""
        leaves = [self.first + 7 + n for n in range(2**self.depth)]
        return sorted({self.first + n for n in range(7)} | set(leaves) | set(self.client.values()))

    @property
    def last(self) -> int:
        """Last port of the block."""
        return self.first + BLOCK - 1

    def to_dict(self) -> dict[str, object]:
        """The plan as templates see it."""
        return {
            "first": self.first,
            "last": self.last,
            "engine": self.engine,
            "client": self.client,
            "internal": self.internal,
            "listening": self.listening,
        }
