# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What speaks against a deployment, judged from what was seen on all hosts, before any is changed."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OLDEST_PYTHON = (3, 10)
# what fleet_facts says of a port on another host's address
NOT_HERE = "not an address of this host"
Facts = Mapping[str, Any]


def problems(fleet: Mapping[str, Any], facts: Mapping[str, Facts], deployed: bool, need_mb: Mapping[str, int]) -> list[str]:
    """One line for each thing that is wrong.

    :param fleet: the fleet as it is wanted.
    :param facts: what was seen, by host; hosts that could not be looked at are left out.
    :param deployed: whether the fleet was deployed before with the keys that are kept.
    :param need_mb: free space that a change of the host takes, in MiB, by host.
    """
    found: list[str] = []
    for host, seen in facts.items():
        found += [f"{host}: {text}" for text in _of_host(fleet, host, seen, deployed, need_mb.get(host, 0))]
    if not found:
        found += [*_across(facts), *_elsewhere(fleet, facts)]
    return found


def _of_host(fleet: Mapping[str, Any], host: str, seen: Facts, deployed: bool, need_mb: int) -> Iterator[str]:
    if seen["python"] is None:
        yield f"expected a Python at {seen['interpreter']}, got nothing that runs; check ipp_node_python"
    elif tuple(map(int, seen["python"].split("."))) < OLDEST_PYTHON:
        yield (
            f"expected Python {'.'.join(map(str, OLDEST_PYTHON))} or newer, got {seen['python']} at {seen['interpreter']};"
            " install one and name it in ipp_node_python"
        )
    if fleet["scope"] == "system" and not seen["root"]:
        yield "expected to be root, got another user; set ansible_become, or scope: user"
    if fleet["scope"] == "system" and not seen["systemd"]:
        yield "expected systemd, got a host without it; use scope: user"
    if seen["socket_too_long"]:
        yield "expected a shorter home folder: the path of supervisord's socket exceeds 107 characters"
    if seen.get("ends_with_login"):
        yield (
            "expected what is started to outlive the login, got KillUserProcesses=yes in logind.conf;"
            " ask root to let the user linger, by loginctl enable-linger"
        )
    yield from _disks(seen, need_mb)
    yield from _location(fleet, host, seen)
    yield from _database(fleet, host, seen)
    yield from _ports(fleet, seen)
    yield from seen["refused"]
    for user in seen["no_such_user"]:
        yield f"expected the user {user} of ipp_client_users, got no such user"
    for path in seen["foreign"]:
        yield f"{path} is not of this fleet; move it away, or give the fleet another name"
    if not deployed:
        for path in sorted(set(seen["other_secrets"]) - set(seen["foreign"])):
            yield (
                f"{path} has other keys than {fleet['secrets_dir']}: this fleet was deployed from elsewhere;"
                " copy that folder here, or take the fleet down first"
            )


def _disks(seen: Facts, need_mb: int) -> Iterator[str]:
    for path, limit in seen["mounted"].items():
        if limit:
            yield f"expected a file system at {path} that can be written and run from, got one that is mounted {limit}"
    for path, free in seen["free_mb"].items():
        if free < need_mb:
            yield f"expected {need_mb} MB free for the {path} folder, got {free} MB"


def _location(fleet: Mapping[str, Any], host: str, seen: Facts) -> Iterator[str]:
    if "location" not in seen:
        return
    how = "set controller: {host: ..., location: NAME} to one that does"
    addresses = seen["location"]["addresses"]
    if not addresses:
        yield f"expected the controller's location {fleet['location']} to resolve, got: {seen['location']['error']}; {how}"
    elif host != fleet["controller"] and all(_is_loopback(address) for address in addresses):
        yield f"expected the controller's location {fleet['location']} to lead to it, got {', '.join(addresses)}; {how}"
    elif host != fleet["controller"] and seen["location"].get("no_way"):
        yield (
            f"expected a way to the controller's location {fleet['location']}, got: {seen['location']['no_way']};"
            f" open ports {fleet['ports']['first']} to {fleet['ports']['last']} in firewalls between,"
            " or set controller: {host: ..., location: NAME} to one that leads there"
        )


def _database(fleet: Mapping[str, Any], host: str, seen: Facts) -> Iterator[str]:
    if "database" not in seen or host == fleet["postgresql"]["host"]:
        return
    location = fleet["postgresql"]["location"]
    if not seen["database"]["address"]:
        why = seen["database"]["error"]
        yield (
            f"expected a way to the database's host {location}, got: {why};"
            " set postgresql: {host: ..., location: NAME} to a name that resolves here"
        )


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.split("%", maxsplit=1)[0]).is_loopback


def _ports(fleet: Mapping[str, Any], seen: Facts) -> Iterator[str]:
    first, last = fleet["ports"]["first"], fleet["ports"]["last"]
    for other in seen.get("others", []):
        if other["first"] <= last and first <= other["last"]:
            yield (
                f"expected ports {first} to {last} for this fleet alone, got fleet {other['name']} with"
                f" {other['first']} to {other['last']}; set ports: to another block"
            )
    taken = seen.get("taken", [])
    if any(each["reason"] == NOT_HERE for each in taken) or _is_another_s(fleet["bind"], seen.get("addresses", ())):
        yield f"expected the controller's address {fleet['bind']} to be one of this host, got one that is not; correct ip"
        return
    by_holder: dict[str, list[int]] = defaultdict(list)
    notebook = (fleet.get("jupyterlab") or {}).get("port", first)
    if not first <= notebook <= last and (found := [each for each in taken if each["port"] == notebook]):
        how = "set jupyterlab: {host: ..., port: ...} to another"
        yield f"expected port {notebook} to be free for JupyterLab, got it taken: {_holder(found[0])}; {how}"
    for each in taken:
        if not first <= each["port"] <= last:
            continue
        by_holder[_holder(each)].append(each["port"])
    for holder, ports in by_holder.items():
        text = ", ".join(map(str, ports[:3])) + (", ..." if len(ports) > 3 else "")
        yield f"expected ports {first} to {last} to be free, got {text} taken: {holder}; set ports: to another block"


def _is_another_s(bind: str, own: Sequence[str]) -> bool:
    """Whether a controller is to listen on an address that its host does not have, as far as that is known."""
    try:
        address = ipaddress.IPv4Address(bind)
    except ValueError:
        return False
    return bool(own) and not (address.is_unspecified or address.is_loopback) and bind not in own


def _holder(taken: Facts) -> str:
    return f"{taken['command']} (pid {taken['pid']})" if taken["pid"] else str(taken["reason"])


def _across(facts: Mapping[str, Facts]) -> Iterator[str]:
    homes: dict[str, list[str]] = defaultdict(list)
    for host, seen in facts.items():
        homes[seen.get("server", "")].append(host)
    for server, hosts in homes.items():
        if server and len(hosts) > 1:
            yield (
                f"expected a home folder of each host's own, got one from {server} on {listed(hosts)};"
                " log in as a user whose home is local, or use scope: system"
            )
    versions: dict[str, list[str]] = defaultdict(list)
    for host, seen in facts.items():
        versions[seen["python"]].append(host)
    if len(versions) > 1:
        by_count = sorted(versions.items(), key=lambda item: (-len(item[1]), item[0]))
        text = "; ".join(f"{version} on {listed(hosts)}" for version, hosts in by_count)
        yield (
            f"expected one version of Python on all hosts, because code travels between them, got {text};"
            " set ipp_node_python on the odd ones, or leave them out"
        )


def _elsewhere(fleet: Mapping[str, Any], facts: Mapping[str, Facts]) -> Iterator[str]:
    """Locations that lead to an address of the controller's host on which the controller does not listen."""
    own = set(facts.get(fleet["controller"], {}).get("addresses", ()))
    # an address that is not the host's own may be translated on the way
    if fleet["bind"] not in own:
        return
    for host, seen in facts.items():
        there = set(seen.get("location", {}).get("addresses", ()))
        if host != fleet["controller"] and fleet["bind"] not in there and there & own:
            yield (
                f"{host}: expected the controller's location {fleet['location']} to lead to {fleet['bind']}, on which alone it listens,"
                f" got {', '.join(sorted(there))}; correct location or ip of the controller"
            )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of many."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
