# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told of a fleet, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import lock_key


def table(rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> list[str]:
    """Rows as aligned columns, the first row being the headings.

    :param numbers: columns that are aligned at their right.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    lines = []
    for row in texts:
        cells = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def slots_of(fleet: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The slots that a run is about: those of the hosts within its limit."""
    return [
        {"host": host, **slot, "lock": fleet["locks"][lock_key(each)]}
        for host, each in fleet["hosts"].items()
        if host in fleet["asked"]
        for slot in each["slots"]
    ]


def states_of(fleet: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """States of units by host, of the hosts that were asked for them."""
    found = {}
    for host in fleet["hosts"]:
        said = hostvars[host].get("__ipp_node_status", {})
        if "units" in said:
            found[host] = said["units"]
    return found


def verify_text(result: Mapping[str, Any], fleet: Mapping[str, Any], units: Mapping[str, Any]) -> str:
    """The outcome of a verification: what answered, and why what did not may be missing.

    :param result: of the module fleet_verify.
    :param units: states of the units by host, of hosts with slots that are short.
    """
    slots = result["slots"]
    good = sum(slot["state"] == "ok" for slot in slots)
    lines = [f"fleet {fleet['name']}: {good} of {len(slots)} engine slots answered"]
    rows: list[list[object]] = [["id", "host", "slot", "state", "pid", "Python", "ms"]]
    for slot in sorted(slots, key=lambda each: int(each["id"])):
        said = [slot.get(key, "-") for key in ("pid", "python", "ms")]
        rows.append([slot["id"], slot["host"], slot["number"], slot["state"], *said])
    lines += table(rows, numbers=(0, 2, 4, 6))
    if result.get("problem"):
        lines.append(f"the controller on {fleet['controller']} gave no answer: {result['problem']}")
        lines += unit_lines(fleet["controller"], "controller", units)
    for slot in slots:
        if slot["state"] != "ok":
            lines.append(f"{slot['host']} slot {slot['number']} (id {slot['id']}): {reason(slot, units)}")
    return "\n".join(lines)


def reason(slot: Mapping[str, Any], units: Mapping[str, Any]) -> str:
    """Why a slot is short, as far as its state and its unit tell."""
    if slot["state"] == "drifted":
        return f"has environment {slot['lock'] or 'without a lock'} instead of {slot['wanted_lock']}"
    unit = units.get(slot["host"], {}).get(f"engine@{slot['number']}")
    if unit is None:
        return "the host did not answer, or something failed there before"
    if not unit["running"]:
        return f"its service is {unit['state']}" + (f"; it last said: {unit['last']}" if unit["last"] else "")
    what = "is not registered with the controller" if slot["state"] == "missing" else "did not run the code in time"
    return f"its service runs, but the engine {what}"


def unit_lines(host: str, name: str, units: Mapping[str, Any]) -> list[str]:
    """What the unit of a host says of itself."""
    unit = units.get(host, {}).get(name)
    if unit is None:
        return []
    return [f"{host}: its service is {unit['state']}" + (f"; it last said: {unit['last']}" if unit["last"] else "")]


def status_text(result: Mapping[str, Any], fleet: Mapping[str, Any], units: Mapping[str, Any]) -> str:
    """The state of every slot: its service, and whether the controller lists it."""
    slots = result["slots"]
    good = sum(slot["state"] == "listed" for slot in slots)
    first, last = fleet["ports"]["first"], fleet["ports"]["last"]
    lines = [f"fleet {fleet['name']}: {good} of {len(slots)} engine slots registered with {fleet['controller']}, ports {first} to {last}"]
    rows: list[list[object]] = [["id", "host", "slot", "service", "restarts", "registered"]]
    controller = units.get(fleet["controller"], {}).get("controller", {})
    rows.append(["-", fleet["controller"], "-", controller.get("state", "no answer"), controller.get("restarts", "-"), "-"])
    for slot in sorted(slots, key=lambda each: int(each["id"])):
        unit = units.get(slot["host"], {}).get(f"engine@{slot['number']}", {})
        listed = "yes" if slot["state"] == "listed" else "no"
        rows.append([slot["id"], slot["host"], slot["number"], unit.get("state", "no answer"), unit.get("restarts", "-"), listed])
    lines += table(rows, numbers=(0, 2, 4))
    if result.get("problem"):
        lines.append(f"the controller gave no answer: {result['problem']}")
    if result["guests"]:
        lines.append(f"guests, engines that no slot asks for: {', '.join(map(str, result['guests']))}")
    return "\n".join(lines)
