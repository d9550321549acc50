# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which engine is on which host: from what a controller lists to what an inventory says of hosts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.names import HOST, is_loopback

# by group, the count that is not 0 on its hosts
GROUPS = {
    "engines": "all",
    "engines_idle": "idle",
    "engines_busy": "busy",
    "engines_silent": "silent",
    "engines_guests": "guests",
    "engines_missing": "missing",
    "engines_unplaced": "unplaced",
}
VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")
Slots = Mapping[int, tuple[str, int]]


def hosts_of(
    engines: Sequence[Mapping[str, Any]], slots: Slots, known: Collection[str], taken: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Hosts with their variables: `engines`, `engine_ids`, `engine_missing_ids` and `engine_counts`.

    :param engines: as a controller lists them, with what idle ones say of themselves.
    :param slots: host and number of each wanted slot, by engine id; none when there is no fleet to compare with.
    :param known: hosts that there are anyway.
    :param taken: names of groups, which are no names for hosts.
    """
    engines = [_named(engine) for engine in engines]
    aliases = _aliases(engines, slots)
    found: dict[str, dict[str, Any]] = {host: _nothing() for host, _ in slots.values()}
    for engine in engines:
        number = engine["id"]
        place = slots.get(number)
        host = place[0] if place else _host_by_name(engine["hostname"], aliases, [*known, *found], taken)
        mine = found.setdefault(host or f"engine-{number}", _nothing())
        mine["engines"].append({**engine, "slot": place[1] if place else None})
        mine["engine_ids"].append(number)
        counted = ["all", engine["state"], *(["guests"] if slots and not place else []), *([] if host else ["unplaced"])]
        for each in counted:
            mine["engine_counts"][each] += 1
    listed = {engine["id"] for engine in engines}
    for number in sorted(slots.keys() - listed):
        mine = found[slots[number][0]]
        mine["engine_missing_ids"].append(number)
        mine["engine_counts"]["missing"] += 1
    return found


def groups_of(variables: Mapping[str, Any]) -> list[str]:
    """Groups that a host with these variables belongs to."""
    return [group for group, count in GROUPS.items() if variables["engine_counts"][count]]


def _named(engine: Mapping[str, Any]) -> dict[str, Any]:
    """An engine with all that is known of it; it is no template, whatever the engine says of itself."""
    hostname, pid, python = (engine.get(key) for key in ("hostname", "pid", "python"))
    return {
        **{key: engine[key] for key in ("id", "state", "queue", "tasks", "completed")},
        "hostname": hostname if isinstance(hostname, str) and HOST.fullmatch(hostname) else None,
        "pid": pid if isinstance(pid, int) else None,
        "python": python if isinstance(python, str) and VERSION.fullmatch(python) else None,
    }


def _nothing() -> dict[str, Any]:
    return {"engines": [], "engine_ids": [], "engine_missing_ids": [], "engine_counts": dict.fromkeys(GROUPS.values(), 0)}


def _aliases(engines: Sequence[Mapping[str, Any]], slots: Slots) -> dict[str, str]:
    """What hosts with slots call themselves, as far as that is no other's name too."""
    found: dict[str, set[str]] = {}
    for engine in engines:
        if engine["hostname"] and engine["id"] in slots:
            found.setdefault(engine["hostname"], set()).add(slots[engine["id"]][0])
    return {name: next(iter(hosts)) for name, hosts in found.items() if len(hosts) == 1}


def _host_by_name(hostname: str | None, aliases: Mapping[str, str], known: Sequence[str], taken: Collection[str]) -> str:
    """The host that an engine means by its machine's name; empty when that is not known, or is no name for a host."""
    if not hostname or hostname in taken or hostname in GROUPS or is_loopback(hostname):
        return ""
    if hostname in aliases:
        return aliases[hostname]
    if hostname in known:
        return hostname
    short = hostname.split(".")[0]
    alike = {host for host in known if host.split(".")[0] == short}
    return alike.pop() if len(alike) == 1 else hostname
