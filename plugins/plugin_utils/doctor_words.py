# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a doctor says: a cause, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A cause.

    :param host: whose it is.
    :param cause: its name, for programs.
    :param what: what is wrong, in words.
    :param fix: what to do about it.
    :param slot: number of the slot, where it is about one.
    :param treatment: what `--fix` does: ``start``, ``restart``, ``connection``, ``certificate``, or nothing.
    :param unit: the service that it is done to.
    """

    host: str
    cause: str
    what: str
    fix: str
    slot: int | None = None
    treatment: str = ""
    unit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As a report has it."""
        return asdict(self) | {"fixable": bool(self.treatment), "fixed": False}


def word(unit: str) -> str:
    """What people call a unit."""
    known = {"controller": "the controller", "jupyterlab": "JupyterLab", "mpi": "the MPI job", "tunnel": "its tunnel to the controller"}
    return "its engine" if unit.startswith("engine@") else known.get(unit, unit)


def halves(text: str, fix: str) -> tuple[str, str]:
    """What is wrong and what to do about it, of a text that has them with a semicolon between.

    :param fix: where the text has none.
    """
    what, _, rest = text.partition("; ")
    return what, rest or fix


def runs(ports: Sequence[int]) -> str:
    """Ports in ascending order, as ranges."""
    found: list[list[int]] = []
    for port in ports:
        if found and port == found[-1][1] + 1:
            found[-1][1] = port
        else:
            found.append([port, port])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in found)


def slot_of(unit: str) -> int | None:
    """Number of the slot of an engine's unit."""
    return int(unit.removeprefix("engine@")) if unit.startswith("engine@") else None


def chosen(host: str, unit: str) -> str:
    """How the command names a unit."""
    return f"--slot {host}/{slot_of(unit)}" if unit.startswith("engine@") else f"--service {unit}"
