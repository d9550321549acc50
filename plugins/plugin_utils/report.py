# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told of a fleet, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import lock_key
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.services import STARTERS, is_chosen


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
    """The slots that a run is about: those of the hosts within its limit, and of the services that it names."""
    return [
        {"host": host, **slot, "lock": fleet["locks"][lock_key(each)]}
        for host, each in fleet["hosts"].items()
        if host in fleet["asked"]
        for slot in each["slots"]
        if is_chosen(fleet, host, f"engine@{slot['number']}")
    ]


def nothing_answered(slots: Sequence[Mapping[str, Any]], problem: str) -> dict[str, Any]:
    """What a verification says when the controller could not be asked at all.

    :param problem: why it could not.
    """
    found = [{**slot, "state": "missing"} for slot in slots]
    return {"slots": found, "short": len(found), "ask": sorted({slot["host"] for slot in slots}), "guests": [], "problem": problem}


def states_of(fleet: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """What hosts said of their units, of those that were asked."""
    return {host: hostvars[host]["__ipp_node_status"] for host in fleet["hosts"] if "__ipp_node_status" in hostvars[host]}


def fleet_of(fleet: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a fleet before a host is asked."""
    known = {key: fleet[key] for key in ("name", "scope", "controller", "location", "secrets_dir")}
    clients = [host for host, each in fleet["hosts"].items() if "ipp_client" in each["roles"]]
    first, last = fleet["ports"]["first"], fleet["ports"]["last"]
    return {**known, "first_port": first, "last_port": last, "clients": clients}


# how a host is reached, without what proves who one is; of several names, the first that is set
REACH = {
    "connection": ("ansible_connection",),
    "host": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "ssh_private_key_file": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
    "ssh_common_args": ("ansible_ssh_common_args",),
    "ssh_extra_args": ("ansible_ssh_extra_args",),
}


def reach_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """How a host is reached."""
    found = {key: next((variables[name] for name in names if name in variables), None) for key, names in REACH.items()}
    known = {key: value for key, value in found.items() if value is not None}
    return known | ({"connection": str(known["connection"]).rsplit(".", 1)[-1]} if "connection" in known else {})


def hosts_of(fleet: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The hosts of a fleet as its inventory has them."""
    found = []
    for host, each in fleet["hosts"].items():
        slots = "auto" if each["auto"] else len(each["slots"])
        reach = reach_of(hostvars[host])
        ids = [slot["id"] for slot in each["slots"]]
        found.append({"name": host, "roles": each["roles"], "slots": slots, "ids": ids, "packages": each["packages"], "reach": reach})
    return found


def inventory_text(known: Mapping[str, Any]) -> str:
    """What was understood of an inventory."""
    lines = [
        f"fleet {known['name']}, scope {known['scope']}, controller {known['controller']} at {known['location']}, "
        f"ports {known['first_port']} to {known['last_port']}"
    ]
    rows: list[list[object]] = [["host", "roles", "slots", "address", "user", "packages"]]
    for each in known["hosts"]:
        reach = each["reach"]
        address = reach.get("host", each["name"]) if reach.get("connection", "ssh") == "ssh" else reach["connection"]
        roles = " ".join(role.removeprefix("ipp_") for role in each["roles"])
        slots = each["slots"] if "ipp_engine" in each["roles"] else "-"
        rows.append([each["name"], roles, slots, address, reach.get("user", "-"), " ".join(each["packages"]) or "-"])
    return "\n".join([*lines, *table(rows, numbers=(2,))])


def logs_text(logs: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Lines of all units, each with its host and unit before it."""
    return "\n".join(f"{host} {unit}: {line}" for host, units in logs.items() for unit, lines in units.items() for line in lines)


def slots_report(result: Mapping[str, Any], fleet: Mapping[str, Any], units: Mapping[str, Any]) -> dict[str, Any]:
    """How the slots of a fleet do, each with the reason when it is short.

    :param result: of the module fleet_verify.
    :param units: states of the units by host, of hosts that were asked for them.
    """
    slots, by_one = [], fleet["launcher"] in STARTERS
    for slot in sorted(result["slots"], key=lambda each: int(each["id"])):
        # engines that are no services of their own are those of what starts them
        where, name = (fleet["controller"], STARTERS[fleet["launcher"]][1]) if by_one else (slot["host"], f"engine@{slot['number']}")
        unit = units.get(where, {}).get(name)
        good = slot["state"] in ("ok", "listed")
        slots.append({**slot, "unit": unit, "reason": "" if good else reason(slot, unit, fleet, units.get(slot["host"], {}).get("tunnel"))})
    controller = units.get(fleet["controller"], {}).get("controller")
    return {
        "slots": slots,
        "controller_unit": controller,
        "guests": [{**guest, "message": guest_text(guest)} for guest in result["guests"]],
        "short": result["short"],
        "problem": result.get("problem", ""),
        "hello": result.get("hello", []),
    }


def is_good(known: Mapping[str, Any]) -> bool:
    """Whether all that was asked for is there: slots, database and JupyterLab."""
    database, lab = known["database"] or {}, known["jupyterlab"] or {}
    return not (known["short"] or database.get("problems") or lab.get("state") == "failed")


def reason(
    slot: Mapping[str, Any], unit: Mapping[str, Any] | None, fleet: Mapping[str, Any], tunnel: Mapping[str, Any] | None = None
) -> str:
    """Why a slot is short, as far as its state, its unit, and the tunnel that its host may have, tell."""
    location = fleet["location"]
    if slot["state"] == "drifted":
        return f"has environment {slot['lock'] or 'without a lock'} instead of {slot['wanted_lock']}"
    if unit is None:
        return "the host did not answer, or something failed there before"
    if not unit["running"]:
        return f"its service is {unit['state']}" + (f"; it last said: {unit['last']}" if unit["last"] else "")
    if slot["state"] == "missing" and (starter := STARTERS.get(fleet["launcher"])):
        return f"{starter[0]} on {fleet['controller']} has not started it, or it did not reach the controller; see the fleet's logs"
    if slot["state"] == "missing" and tunnel:
        said = f"; it last said: {tunnel['last']}" if tunnel["last"] else ""
        return f"its service runs, but the engine is not registered with the controller; its tunnel there is {tunnel['state']}{said}"
    if slot["state"] == "missing":
        how = f"from its host, {location} has to lead to the controller, and the fleet's ports to be open"
        return f"its service runs, but the engine is not registered with the controller; {how}"
    return "its service runs, but the engine did not run the code in time"


def verify_text(known: Mapping[str, Any]) -> str:
    """The outcome of a verification: what answered, and why what did not may be missing."""
    slots = known["slots"]
    good = sum(slot["state"] == "ok" for slot in slots)
    lines = [f"fleet {known['name']}: {good} of {len(slots)} engine slots answered"]
    rows: list[list[object]] = [["id", "host", "slot", "state", "pid", "Python", "ms"]]
    for slot in slots:
        said = [slot.get(key, "-") for key in ("pid", "python", "ms")]
        rows.append([slot["id"], slot["host"], slot["number"], slot["state"], *said])
    lines += table(rows, numbers=(0, 2, 4, 6))
    if known["problem"]:
        lines.append(f"the controller on {known['controller']} gave no answer: {known['problem']}")
        if unit := known["controller_unit"]:
            last = f"; it last said: {unit['last']}" if unit["last"] else ""
            lines.append(f"{known['controller']}: its service is {unit['state']}{last}")
    lines += [f"{slot['host']} slot {slot['number']} (id {slot['id']}): {slot['reason']}" for slot in slots if slot["state"] != "ok"]
    return "\n".join([*lines, *(guest["message"] for guest in known["guests"])])


def healed_lines(known: Mapping[str, Any]) -> list[str]:
    """What the hosts' watchdogs had to do, a line for each service."""
    units = [(f"{known['controller']}: controller", known["controller_unit"])]
    units += [(f"{slot['host']}: slot {slot['number']} (id {slot['id']})", slot["unit"]) for slot in known["slots"]]
    return [f"{where} was restarted by its watchdog {unit['healed']}" for where, unit in units if unit and unit.get("healed")]


def guest_text(guest: Mapping[str, Any]) -> str:
    """An engine that no slot asks for, and what is known of it."""
    who = f"on {guest['hostname']}, pid {guest['pid']}, Python {guest['python']}" if guest["hostname"] else guest["state"]
    return f"guest {guest['id']}, an engine that no slot asks for: {who}"


def status_text(known: Mapping[str, Any]) -> str:
    """The state of every slot: its service, and whether the controller lists it."""
    slots, controller = known["slots"], known["controller_unit"] or {}
    good = sum(slot["state"] == "listed" for slot in slots)
    where = f"{known['controller']}, ports {known['first_port']} to {known['last_port']}"
    lines = [f"fleet {known['name']}: {good} of {len(slots)} engine slots registered with {where}"]
    rows: list[list[object]] = [["id", "host", "slot", "service", "restarts", "registered"]]
    rows.append(["-", known["controller"], "-", controller.get("state", "no answer"), controller.get("restarts", "-"), "-"])
    for slot in slots:
        unit = slot["unit"] or {}
        listed = "yes" if slot["state"] == "listed" else "no"
        rows.append([slot["id"], slot["host"], slot["number"], unit.get("state", "no answer"), unit.get("restarts", "-"), listed])
    lines += table(rows, numbers=(0, 2, 4))
    if known["problem"]:
        lines.append(f"the controller gave no answer: {known['problem']}")
    return "\n".join([*lines, *(guest["message"] for guest in known["guests"])])
