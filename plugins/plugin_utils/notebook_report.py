# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told of a fleet's JupyterLab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def report_of(fleet: Mapping[str, Any], slots: Sequence[Mapping[str, Any]], cell: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the fleet's JupyterLab does; None when it has none.

    :param slots: with their states; a cell that looked for engines has to have seen those that are there.
    :param cell: of the module fleet_cell; empty when none was run.
    """
    lab = fleet["jupyterlab"]
    if not lab:
        return None
    reason = str(cell.get("reason", "not asked"))
    seen = cell.get("ids")
    if seen is not None and not reason:
        reason = _unseen(seen, slots)
    state = "failed" if reason and cell.get("state") == "ok" else str(cell.get("state", "unknown"))
    known = {
        "host": lab["host"],
        "port": lab["port"],
        "url": f"http://127.0.0.1:{lab['port']}/lab",
        "unit": cell.get("unit"),
        "state": state,
        "seconds": cell.get("seconds"),
        "engines": None if seen is None else len(seen),
        "version": str(cell.get("version", "")),
        "reason": reason,
    }
    return known | {"message": _message(known)}


def _unseen(seen: Sequence[int], slots: Sequence[Mapping[str, Any]]) -> str:
    there = {slot["id"] for slot in slots if slot["state"] in ("ok", "listed")}
    missing = sorted(there - set(seen))
    if not missing:
        return ""
    ids = ", ".join(map(str, missing))
    return f"its cell saw {len(there) - len(missing)} of the {len(there)} engines that are there, not those with id {ids}; verify again"


def _message(lab: Mapping[str, Any]) -> str:
    text = f"JupyterLab on {lab['host']}: "
    if lab["reason"]:
        return f"{text}{lab['reason']}"
    saw = "" if lab["engines"] is None else f" and saw {lab['engines']} engine{'' if lab['engines'] == 1 else 's'}"
    return text + f"a cell ran in {lab['seconds']:.1f} s{saw}; ipyfleet connect leads there"
