# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet as its inventory wants it: hosts, slots, ports and packages, from groups and variables."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import database, database_embedded, limits, notebook, trust
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import MEMBERS, NAME
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import FIRST, LAST, PortPlan, default_first
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.slots import allocate, auto_slots

ROLES = MEMBERS
Variables = Mapping[str, Any]
# seconds; a watchdog looks several times before it does something
SHORTEST_WATCH = 5


def members(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Hosts of the fleet, each once, in the order of the groups."""
    return list(dict.fromkeys(host for role in ROLES for host in groups.get(role, ())))


def everybody(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Hosts whose variables count: those of the fleet, and the database's."""
    return list(dict.fromkeys([*members(groups), *groups.get("postgresql", ())]))


def group_problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """What is wrong with the inventory's shape, whatever made it."""
    controllers = groups.get("ipp_controller", ())
    if len(controllers) != 1:
        yield f"ipp_controller: expected one host in the group, got {', '.join(controllers) or 'none'}"
    if not groups.get("ipp_engine"):
        yield "ipp_engine: expected at least one host in the group, got none"
    for key in ("fleet_name", "fleet_scope", "fleet_ports", "fleet_secrets_dir", "fleet_python_packages"):
        values = {str(variables[host].get(key)) for host in everybody(groups)}
        if len(values) > 1:
            yield f"{key}: expected one value for all hosts, got {', '.join(sorted(values))}"


def value_problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """What is wrong with single values that a type does not tell."""
    for host in members(groups):
        mine = variables[host]
        name = mine.get("fleet_name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            yield f"fleet_name: expected lower-case letters, digits and dashes, at most 20, a letter first, got {name!r}"
            return
        first = mine.get("fleet_ports")
        if first is not None and not FIRST <= int(first) <= LAST:
            yield f"fleet_ports: expected {FIRST} to {LAST}, got {first}"
            return
        for key in ("ipp_engine_watchdog", "ipp_controller_watchdog"):
            seconds = str(mine.get(key, 0))
            if seconds.isdigit() and 0 < int(seconds) < SHORTEST_WATCH:
                yield f"{host}: {key}: expected seconds from {SHORTEST_WATCH} on, or 0 for none, got {seconds}"
    for host in groups.get("ipp_engine", ()):
        count = variables[host].get("ipp_engine_slots", "auto")
        if count != "auto" and not (str(count).isdigit() and int(count) > 0):
            yield f"{host}: ipp_engine_slots: expected a number from 1 on, or auto, got {count!r}"
        yield from (f"{host}: {text}" for text in limits.problems(variables[host]))
    yield from database.problems(groups, variables)
    yield from notebook.problems(groups, variables)
    yield from trust.problems(groups, variables)


def location_of(controller: str, variables: Variables) -> str:
    """The name or address by which engines and clients reach the controller."""
    return str(variables.get("ipp_controller_location") or variables.get("ansible_host") or controller)


def bind_of(groups: Mapping[str, Sequence[str]], variables: Variables) -> str:
    """The address that the controller listens on: loopback when all of the fleet is on its host."""
    given = str(variables.get("ipp_controller_ip") or "")
    if given:
        return "0.0.0.0" if given == "*" else given
    return "127.0.0.1" if members(groups) == list(groups["ipp_controller"]) else "0.0.0.0"


def location_problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """A location that only the controller's own host can use."""
    (controller,) = groups["ipp_controller"]
    location = location_of(controller, variables[controller])
    alone = members(groups) == [controller]
    try:
        loopback = ipaddress.ip_address(location).is_loopback
    except ValueError:
        loopback = location in ("localhost", "localhost.localdomain")
    if loopback and not alone:
        yield (
            f"{controller}: expected a location of the controller that other hosts reach, got {location};"
            " set controller: {host: ..., location: NAME}"
        )


def describe(
    groups: Mapping[str, Sequence[str]],
    variables: Mapping[str, Variables],
    defaults: Variables,
    secrets_dir: str,
    kept: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """The fleet as roles and templates see it.

    Slots of hosts with `auto` are as many as they had, or one, until `measure` knows better.

    :param defaults: the roles' defaults.
    :param kept: engine ids by host, as allocated before.
    """
    (controller,) = groups["ipp_controller"]
    mine = variables[controller]
    name = str(mine["fleet_name"])
    depth = int(mine.get("ipp_controller_broadcast_depth", defaults["ipp_controller_broadcast_depth"]))
    plan = PortPlan(int(mine.get("fleet_ports") or default_first(name)), depth)
    scope = str(mine.get("fleet_scope", "system"))
    found = database.describe(groups, variables, name, scope, plan)
    # in scope user the database is brought about like the fleet's other services
    roles = (*ROLES, "postgresql") if scope == "user" else ROLES
    extra = database_embedded.packages(found, defaults["postgresql_python_packages"])
    auto = {host: auto_rule(variables[host], defaults) for host in groups["ipp_engine"]}
    counts = {host: len(kept.get(host, ())) or 1 if auto[host] else int(variables[host]["ipp_engine_slots"]) for host in auto}
    fleet = {
        "name": name,
        "scope": scope,
        "controller": controller,
        "location": location_of(controller, mine),
        "bind": bind_of(groups, mine),
        "ports": plan.to_dict(),
        "secrets_dir": secrets_dir,
        "postgresql": found,
        "jupyterlab": None,
        "launcher": trust.launcher_of(groups, variables),
        "tunnelled": trust.tunnelled(groups, variables),
        "trust": trust.describe(groups, variables),
        "hosts": {
            host: {
                "roles": [role for role in roles if host in groups.get(role, ())],
                "slots": [],
                "auto": auto.get(host),
                "packages": packages_of(
                    variables[host], [*extra, *trust.packages(groups, variables), *notebook.packages(groups, host, variables, defaults)]
                ),
            }
            for host in members(groups)
        },
    }
    fleet["jupyterlab"] = notebook.describe(groups, variables, fleet, plan)
    set_slots(fleet, counts, kept)
    fleet["surplus"] = surplus(counts, kept)
    return fleet


def surplus(counts: Mapping[str, int], kept: Mapping[str, Sequence[int]]) -> dict[str, list[dict[str, int]]]:
    """Slots that hosts had and shall have no more."""
    over = {
        host: [{"number": number, "id": each} for number, each in enumerate(kept.get(host, ()))][count:] for host, count in counts.items()
    }
    return {host: slots for host, slots in over.items() if slots}


def auto_rule(variables: Variables, defaults: Variables) -> dict[str, int] | None:
    """How the slots of a host with `auto` are counted; None when their number is given."""
    if variables.get("ipp_engine_slots", "auto") != "auto":
        return None
    # engines that may take so much should find it
    usual = variables.get("ipp_engine_memory_max_mb") or defaults["ipp_engine_memory_mb"]
    memory = variables.get("ipp_engine_memory_mb", usual)
    reserve = variables.get("ipp_engine_reserve_cores", defaults["ipp_engine_reserve_cores"])
    return {"reserve_cores": int(reserve), "memory_per_engine_mb": int(memory)}


def set_slots(fleet: dict[str, Any], counts: Mapping[str, int], kept: Mapping[str, Sequence[int]]) -> None:
    """Give each engine host its slots, with the engine ids that are theirs."""
    for host, ids in allocate(counts, kept).items():
        fleet["hosts"][host]["slots"] = [{"number": number, "id": each} for number, each in enumerate(ids)]


def measure(fleet: dict[str, Any], facts: Mapping[str, Variables], kept: Mapping[str, Sequence[int]]) -> None:
    """Set slots again, now that cores and memory of hosts with `auto` are known."""
    hosts = {host: each for host, each in fleet["hosts"].items() if each["slots"]}
    counts = {host: len(each["slots"]) for host, each in hosts.items()}
    for host in facts:
        if host in hosts and hosts[host]["auto"]:
            counts[host] = auto_slots(facts[host]["cores"], facts[host]["memory_mb"], **hosts[host]["auto"])
    set_slots(fleet, counts, kept)


def packages_of(variables: Variables, extra: Sequence[str] = ()) -> list[str]:
    """Python requirements of a host, beside those that every fleet has.

    :param extra: what it gets for the fleet's database, and for JupyterLab.
    """
    own = [*extra, *(variables.get("fleet_python_packages") or []), *(variables.get("ipp_node_python_packages") or [])]
    return sorted({str(each) for each in own})
