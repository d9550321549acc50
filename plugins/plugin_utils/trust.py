# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which hosts of a fleet log in to which others by ssh: to start engines there, or to reach the controller at all."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Variables = Mapping[str, Any]
# a line of ssh_host_*_key.pub without its comment
KEY = re.compile(r"(ssh|ecdsa|sk)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+")


def launcher_of(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> str:
    """What starts the engines: ``service``, ``ssh`` or ``mpi``."""
    (controller,) = groups["ipp_controller"]
    if any(variables[host].get("ipp_engine_launcher") == "mpi" for host in groups["ipp_engine"]):
        return "mpi"
    return str(variables[controller].get("ipp_controller_launcher") or "service")


def _args(variables: Variables) -> list[str]:
    return [str(each) for each in variables.get("ipp_engine_args") or []]


def tunnelled(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> list[str]:
    """Engine hosts that reach the controller by ssh alone; its own host needs no way to it."""
    return [
        host for host in groups["ipp_engine"] if host not in groups["ipp_controller"] and variables[host].get("ipp_engine_tunnel") == "ssh"
    ]


def problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """What is wrong with what an inventory says of launchers and tunnels."""
    (controller,) = groups["ipp_controller"]
    everybody = dict.fromkeys((controller, *groups["ipp_engine"]))
    by_ssh = variables[controller].get("ipp_controller_launcher") == "ssh"
    by_mpi = [host for host in groups["ipp_engine"] if variables[host].get("ipp_engine_launcher") == "mpi"]
    if by_mpi and len(by_mpi) < len(groups["ipp_engine"]):
        other = next(host for host in groups["ipp_engine"] if host not in by_mpi)
        yield f"{other}: ipp_engine_launcher: expected mpi, which {by_mpi[0]} has, got service; MPI has all engines or none"
    if by_mpi and (odd := [host for host in by_mpi if _args(variables[host]) != _args(variables[by_mpi[0]])]):
        wrong = odd[0]
        yield f"{wrong}: ipp_engine_args: expected those of {by_mpi[0]}, as MPI starts all alike, got {_args(variables[wrong])}"
    if by_mpi and by_ssh:
        yield f"{controller}: ipp_controller_launcher: expected service with engines that MPI starts, got ssh"
    ways = {f"{controller}: ipp_controller_launcher: ssh": by_ssh}
    ways |= {f"{host}: ipp_engine_launcher: mpi": True for host in by_mpi[:1]}
    ways |= {f"{host}: ipp_engine_tunnel: ssh": True for host in tunnelled(groups, variables)[:1]}
    if variables[controller].get("fleet_scope") == "user":
        for way in (way for way, chosen in ways.items() if chosen):
            yield f"{way} is for scope system, got scope user, in which no account is the fleet's to log in to"
    if not by_ssh:
        yield from _profile_problems(groups, variables)
    if by_ssh or by_mpi:
        yield from _started_problems(groups, variables)
    for host in tunnelled(groups, variables):
        yield from _same(host, controller, variables, "ipp_controller_tunnel_user")
    for host in everybody:
        given = str(variables[host].get("ipp_node_ssh_from") or "")
        if strange := [each for each in given.split(",") if given and not is_network(each)]:
            yield f"{host}: ipp_node_ssh_from: expected addresses or networks, separated by commas, got {strange[0].strip()!r}"
    if (by_ssh or by_mpi) and (far := tunnelled(groups, variables)):
        yield f"{far[0]}: ipp_engine_tunnel: expected none with engines that {'MPI' if by_mpi else 'ipcluster'} starts, got ssh"


def _profile_problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """Engines with a profile that nobody has made."""
    for host in groups["ipp_engine"]:
        if own := [each for each in _args(variables[host]) if each.startswith(("--profile", "--ProfileDir"))]:
            yield f"{host}: ipp_engine_args: expected no other profile, unless ipcluster starts the engines, got {own[0]}"


def _started_problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """What speaks against engines that the controller's host starts by logging in."""
    (controller,) = groups["ipp_controller"]
    seen: dict[str, str] = {}
    for host in groups["ipp_engine"]:
        yield from _same(host, controller, variables, "ipp_node_user")
        gpus = variables[host].get("ipp_engine_gpus") or variables[host].get("ipp_engine_gpu_names")
        variable = str(variables[host].get("ipp_engine_gpu_variable") or "CUDA_VISIBLE_DEVICES")
        if gpus and variable != "CUDA_VISIBLE_DEVICES":
            yield f"{host}: ipp_engine_gpu_variable: expected CUDA_VISIBLE_DEVICES for engines that are no services, got {variable}"
        if host == controller:
            continue
        address = str(_address(host, variables[host], controller)["address"])
        if address in seen:
            yield f"{host}: ipp_engine_location: expected an address of its own, got {address}, which {seen[address]} has as well"
        seen.setdefault(address, host)


def _same(host: str, controller: str, variables: Mapping[str, Variables], name: str) -> Iterator[str]:
    """A variable that has to be the same on both sides of a login."""
    mine, there = variables[host].get(name), variables[controller].get(name)
    if mine != there:
        yield f"{host}: {name}: expected {there or 'the default'}, as on {controller}, got {mine or 'the default'}"


def packages(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> list[str]:
    """Python packages that the launcher of the fleet's engines needs."""
    return ["mpi4py"] if launcher_of(groups, variables) == "mpi" else []


def describe(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> dict[str, Any] | None:
    """Who logs in where; None when nobody does.

    :returns: ``targets``, address and port by host, as others know it; ``logins``, for each host that logs in, those
        to which it does.
    """
    (controller,) = groups["ipp_controller"]
    logins: dict[str, list[str]] = {}
    if launcher_of(groups, variables) != "service":
        logins[controller] = [host for host in groups["ipp_engine"] if host != controller]
    for host in tunnelled(groups, variables):
        logins[host] = [controller]
    if not any(logins.values()):
        return None
    targets = sorted({host for hosts in logins.values() for host in hosts})
    return {
        "logins": logins,
        "targets": {host: _address(host, variables[host], controller) for host in targets},
        "sources": {host: str(variables[host].get("ipp_node_ssh_from") or "") for host in logins},
    }


def _address(host: str, variables: Variables, controller: str) -> dict[str, Any]:
    named = variables.get("ipp_controller_location") if host == controller else variables.get("ipp_engine_location")
    port = variables.get("ipp_node_ssh_port") or variables.get("ansible_port") or 22
    return {"address": str(named or variables.get("ansible_host") or host), "port": int(port)}


def learned(facts: Mapping[str, Variables]) -> dict[str, dict[str, Any]]:
    """What hosts said that others have to know of them: their keys, and where their logins come from.

    What is neither is left out: it would be written on other hosts.
    """
    return {
        host: {
            "keys": sorted(each for each in seen["ssh"]["keys"] if KEY.fullmatch(each)),
            "from": sorted(each for each in seen["ssh"]["from"] if is_network(each)),
        }
        for host, seen in facts.items()
        if "ssh" in seen
    }


def unknown_sources(trust: Mapping[str, Any]) -> list[str]:
    """Hosts that log in to others, of which it is not known where their logins come from."""
    return [host for host in trust["logins"] if not (trust["sources"][host] or trust["known"].get(host, {}).get("from"))]


def kept(fleet: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """What is to be remembered of what hosts know of each other."""
    known = (fleet.get("trust") or {}).get("known", {})
    return {str(host): {key: list(map(str, each[key])) for key in ("keys", "from")} for host, each in known.items()}


def known_hosts(trust: Mapping[str, Any], host: str) -> list[str]:
    """Lines of the file by which a host knows the others that it logs in to."""
    lines = []
    for target in trust["logins"].get(host, ()):
        address, port = trust["targets"][target]["address"], trust["targets"][target]["port"]
        name = address if port == 22 else f"[{address}]:{port}"
        lines += [f"{name} {key}" for key in trust["known"].get(target, {}).get("keys", ()) if KEY.fullmatch(key)]
    return lines


def sources(trust: Mapping[str, Any], target: str) -> str:
    """Where logins to a host come from, as the option `from` of a key has it; empty when that is not known."""
    found: set[str] = set()
    for host, targets in trust["logins"].items():
        if target in targets:
            given = trust["sources"][host].split(",") if trust["sources"][host] else trust["known"].get(host, {}).get("from", ())
            found.update(text for each in given if is_network(text := each.strip()))
    return ",".join(sorted(found))


def is_network(text: str) -> bool:
    """Whether a text is an address or a network, as the option `from` of a key takes them."""
    try:
        ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        return False
    return True
