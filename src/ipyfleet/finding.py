"""What `Cluster.doctor` finds out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Why something of a fleet is not as it should be.

    :param host: whose cause it is.
    :param cause: its name, such as ``port-refused``; see docs/doctor.md.
    :param what: what is wrong, in words.
    :param fix: what to do about it.
    :param slot: number of the slot that it is about, if it is about one.
    :param fixable: whether `Cluster.doctor` does that itself when it may.
    :param fixed: whether it has.
    """

    host: str
    cause: str
    what: str
    fix: str
    slot: int | None = None
    fixable: bool = False
    fixed: bool = False

    def __str__(self) -> str:
        where = self.host if self.slot is None else f"{self.host} slot {self.slot}"
        return f"fixed: {where}: {self.what}" if self.fixed else f"{where}: {self.what}; {self.fix}"
