# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a single host, and with the services that a fleet has one of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database_report import explained
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.doctor_words import Finding, chosen, halves, runs, slot_of, word
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.findings import listed

if TYPE_CHECKING:
    from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.doctor import Judge

Seen = Mapping[str, Any]
LEAST_MB = 100
LEAST_INODES = 500
LEAST_MEMORY_MB = 100
CLOCK_SECONDS = 30.0
# of a host, that account for engines which are not registered
EXPLAIN = frozenset(
    ("host-unreachable", "host-unfit", "not-deployed", "name", "port-refused", "port-filtered", "key", "connection", "tunnel", "python")
)
UP = "look with `ipyfleet up --check --diff`, then run `ipyfleet up`"
CONNECTION = ("ipcontroller-engine.json", "ipcontroller-client.json", "curve.json")
FILES = ("change file", "create file")


def resources(fleet: Seen, host: str, seen: Seen) -> Iterator[Finding]:
    """Disks, inodes and memory, and how many files services may open."""
    for disk in seen["disks"]:
        if disk["read_only"]:
            fix = "see `dmesg` for why, and mount it for writing"
            yield Finding(host, "disk", f"the file system at {disk['path']} can only be read", fix)
        elif disk["free_mb"] < LEAST_MB and disk["size_mb"] >= LEAST_MB:
            what = f"the disk at {disk['path']} is full: {disk['free_mb']} of {disk['size_mb']} MB are free"
            yield Finding(host, "disk", what, "remove what is not needed, such as old files in the fleet's work folder")
        if disk["all_inodes"] and disk["inodes"] < LEAST_INODES:
            what = f"the disk at {disk['path']} can hold {disk['inodes']} more files, whatever their size (inodes)"
            yield Finding(host, "inodes", what, "remove what is not needed; many small files fill it")
    memory = seen["memory"]
    if memory["total_mb"] and memory["available_mb"] < LEAST_MEMORY_MB:
        what = f"memory is short: {memory['available_mb']} of {memory['total_mb']} MB are available"
        yield Finding(host, "memory", what, "end what takes it, or give the host fewer slots; see `ipyfleet exec -- ps aux --sort=-rss`")
    slots = sum(len(each["slots"]) for each in fleet["hosts"].values())
    for name, unit in seen["units"].items():
        files = unit.get("files")
        # a controller has several connections with each engine and each client
        needed = 512 + 32 * slots if name == "controller" else 256
        if files and (files["limit"] < needed or files["used"] > 0.9 * files["limit"]):
            what = f"{word(name)} may open {files['limit']} files, of which it has {files['used']}; it should have {max(needed, 1024)}"
            fix = f"raise the limit (LimitNOFILE, ulimit -n), and run `ipyfleet restart {chosen(host, name)}`"
            yield Finding(host, "open-files", what.replace(";", ","), fix, slot_of(name))


def lacked_memory(seen: Seen) -> bool:
    """Whether processes of a host were killed for want of memory."""
    return bool(seen.get("oom"))


def network(judge: Judge, host: str, seen: Seen, look: Seen) -> Iterator[Finding]:
    """Whether the controller's name and ports lead to it, from a host of engines."""
    fleet = judge.fleet
    if not seen.get("connection") or "ports" not in seen:
        return
    place = look.get("facts", {}).get("location", {})
    if not seen["ports"]:
        why = place.get("error", "it has no address")
        fix = "add it to the host's DNS or /etc/hosts, or set controller: {host: ..., location: NAME} to one that does"
        yield Finding(host, "name", f"the controller's name {fleet['location']} does not resolve on it: {why}", fix)
        return
    for state in sorted(set(seen["ports"].values()) - {"open"}):
        # what nobody listens on, because the controller does not run, is no fault of the network
        if (state == "refused" and judge.controller_down) or judge.controller_away:
            continue
        ports = sorted(int(port) for port, each in seen["ports"].items() if each == state)
        where = f"port{'s' if len(ports) > 1 else ''} {runs(ports)} of {fleet['location']} ({fleet['controller']})"
        first, last = fleet["ports"]["first"], fleet["ports"]["last"]
        fix = f"open ports {first} to {last} in the firewalls of {fleet['controller']} and {host}, and between them"
        if state == "refused":
            yield Finding(host, "port-refused", f"{where} refused its connections", fix)
        else:
            how = "no answer" if state == "filtered" else state
            yield Finding(host, "port-filtered", f"{where} cannot be reached from it: {how}", fix)


def files(judge: Judge, host: str, seen: Seen, look: Seen) -> Iterator[Finding]:
    """Keys and connection files that are not those of the fleet, and services that were started with others."""
    changes = look.get("changes", ())
    wrong = [each["path"] for each in changes if each["what"] in FILES and os.path.basename(each["path"]) in CONNECTION]
    alone = all(each["path"] in wrong or each["what"] in ("restart", "start") for each in changes)
    treatment, fix = ("connection", "run `ipyfleet doctor --fix`, or `ipyfleet up`") if alone else ("", UP)
    mine = seen.get("connection", {})
    if wrong:
        other = [name for word, name in (("key", "key"), ("curve", "CURVE key")) if judge.keys and mine.get(word) != judge.keys.get(word)]
        name = os.path.basename(wrong[0])
        if other and "error" not in mine:
            what = f"its {name} has another {' and another '.join(other)} than the controller's, which hears nothing that it sends"
            yield Finding(host, "key", what, fix, None, treatment)
        else:
            why = f"cannot be read: {mine['error']}" if "error" in mine else "is not as it was deployed"
            yield Finding(host, "connection", f"its connection file {wrong[0]} {why}", fix, None, treatment)
        return
    # where other files are to change as well, that is why
    stale = [each["path"] for each in changes if each["what"] == "restart"]
    if stale and alone:
        names = listed([each.removesuffix(".service").rpartition(f"ipyfleet-{judge.fleet['name']}-")[2] or each for each in stale])
        what = f"its services {names} were started with other files than those that are there now"
        yield Finding(host, "connection", what, fix, None, treatment)


def software(judge: Judge, host: str, seen: Seen, look: Seen) -> Iterator[Finding]:
    """Python and its packages, against the controller's and the lock; and all else that differs from the fleet file."""
    there = judge.hosts.get(judge.controller, {})
    mine, theirs = look.get("facts", {}).get("python"), there.get("look", {}).get("facts", {}).get("python")
    changes, installed = look.get("changes", ()), seen["software"]
    environment = [each for each in changes if each["what"] == "install Python environment"]
    if mine and theirs and mine != theirs:
        fix = "set ipp_node_python to the same minor version everywhere, and run `ipyfleet up`"
        yield Finding(host, "python", f"it has Python {mine}, the controller's host {theirs}: code does not travel between them", fix)
    elif "error" in installed:
        yield Finding(host, "python", f"the fleet's Python does not run on it: {installed['error']}", f"run `ipyfleet up --limit {host}`")
    elif drift := list(drifted(installed["packages"], judge.pins.get(host, {}))):
        how = (
            f"remove /opt/ipyfleet/{judge.fleet['name']}/env on it"
            if judge.fleet["scope"] == "system"
            else "remove the fleet's env folder on it"
        )
        what = f"its packages are not those of the lock: {listed(drift)}"
        yield Finding(host, "packages", what, f"{how}, and run `ipyfleet up --limit {host}`")
    elif environment:
        yield Finding(host, "packages", "its environment was built from another lock than the fleet's", f"run `ipyfleet up --limit {host}`")
    told = {each["path"] for each in environment}
    rest = [
        each
        for each in changes
        if each["path"] not in told and each["what"] not in ("start", "restart") and os.path.basename(each["path"]) not in CONNECTION
    ]
    if rest:
        what = f"it is not as the fleet file wants it: {listed([each['what'] + ' ' + each['path'] for each in rest[:3]])}"
        more = f" and {len(rest) - 3} more" if len(rest) > 3 else ""
        yield Finding(host, "drift", what + more, UP)


def drifted(mine: Mapping[str, str], pins: Mapping[str, str]) -> Iterator[str]:
    """Packages that are not as the lock wants them.

    :param pins: versions by name.
    """
    for name, version in sorted(pins.items()):
        if mine.get(name) != version:
            yield f"{name} {mine[name]} instead of {version}" if name in mine else f"{name} {version} is missing"


def clocks(seen: Mapping[str, Sequence[float]], controller: str) -> Iterator[tuple[str, str, str, str]]:
    """Clocks that are wrong, against the controller's host, or against this machine where all hosts agree.

    :param seen: by how many seconds each host is ahead of this machine, at least and at most.
    """
    fix = "set it, and have chrony or systemd-timesyncd keep it"
    off = {host: _beyond(low, high) for host, (low, high) in seen.items()}
    if len(off) > 1 and all(off.values()) and max(off.values()) - min(off.values()) < CLOCK_SECONDS:
        yield (
            controller,
            "clock",
            f"the clocks of all hosts are {_ahead(min(off.values()))} this machine's",
            f"if this machine's is wrong, {fix}",
        )
        return
    for host, (low, high) in seen.items():
        base = seen.get(controller, (0.0, 0.0))
        against = "the controller's" if controller in seen and host != controller else "this machine's"
        difference = off[host] if host == controller else _beyond(low - base[1], high - base[0])
        if difference and (host == controller or not off.get(controller) or off[host]):
            yield host, "clock", f"its clock is {_ahead(difference)} {against}", fix


def _beyond(low: float, high: float) -> float:
    """A difference that is surely more than it may be; 0 when it need not be."""
    return low if low > CLOCK_SECONDS else high if high < -CLOCK_SECONDS else 0.0


def _ahead(seconds: float) -> str:
    size = abs(seconds)
    amount = f"{size:.0f} s" if size < 120 else f"{size / 60:.0f} min" if size < 7200 else f"{size / 3600:.0f} h"
    return f"{amount} {'ahead of' if seconds > 0 else 'behind'}"


def database(judge: Judge, host: str, error: str) -> Iterator[Finding]:
    """Why a host of engines does not get into the database."""
    there = judge.fleet["postgresql"]["host"]
    if (judge.database and judge.database.get("running") is False) or judge.hosts.get(there, {}).get("look", {}).get("unreachable"):
        return
    said = explained(error)
    if "pg_hba.conf" in error:
        fix = f"run `ipyfleet up`; a run that has {there} within its limit lets it in"
        yield Finding(host, "database-refused", f"the database on {there} does not let it in: {error}", fix)
    elif "password authentication failed" in error:
        yield Finding(host, "database-refused", f"the database on {there} does not take its password: {error}", UP)
    elif "certificate" in error:
        yield Finding(host, "certificate", f"it does not trust the certificate of the database on {there}: {error}", UP)
    else:
        fix = f"see that port {judge.fleet['postgresql']['port']} of {there} is open to it, and `ipyfleet status`"
        yield Finding(host, "database", f"it does not get into the database on {there}: {said}", fix)


def services(base: Seen | None, lab: Seen | None, found: Sequence[Finding], days: int) -> Iterator[Finding]:
    """The database by its host's word, and JupyterLab by that of a cell."""
    if base:
        left = base["certificate_days"]
        if left is not None and left < days:
            what = (
                f"the database's certificate ends in {left} days" if left >= 0 else f"the database's certificate has ended {-left} days ago"
            )
            fix = f"run `ipyfleet doctor --fix`, or `ipyfleet up --limit {base['host']}`"
            yield Finding(base["host"], "certificate", what, fix, None, "certificate")
        for disk in base.get("full", ()):
            what = (
                f"the disk at {disk['path']}, of the database or its backups, is full: {disk['free_mb']} of {disk['size_mb']} MB are free"
            )
            # the fleet's own folders may be on the same one
            if not any(each.host == base["host"] and each.cause == "disk" and f" at {disk['path']} " in each.what for each in found):
                yield Finding(base["host"], "disk", what, "make room there, or set postgresql_backup_dir, or keep fewer backups")
        for problem in base["problems"]:
            if base["running"] is False and problem == "its server does not run":
                fix = f"see `journalctl -u postgresql` on {base['host']}, and run `ipyfleet up --limit {base['host']}`"
                yield Finding(base["host"], "database-down", "the database's server does not run", fix)
            elif problem.startswith("its host is unreachable: "):
                if not any(each.host == base["host"] and each.cause == "host-unreachable" for each in found):
                    yield Finding(
                        base["host"], "host-unreachable", *halves(problem.replace("its host is unreachable", "it is not reached"), "")
                    )
            elif "backup" in problem or "drill" in problem:
                yield Finding(base["host"], "backup", *halves(problem, "run `ipyfleet backup`, and `ipyfleet drill`"))
            else:
                yield Finding(base["host"], "database", *halves(problem, "run `ipyfleet up`"))
    told = lab and any(each.host == lab["host"] and (each.unit == "jupyterlab" or each.cause == "host-unreachable") for each in found)
    if lab and lab["state"] == "failed" and not told:
        yield Finding(lab["host"], "jupyterlab", f"JupyterLab: {lab['reason']}", "see `ipyfleet logs --service jupyterlab`")
