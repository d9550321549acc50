# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From what a run has seen on all hosts to what a doctor says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import database_report, doctor, notebook_report, report
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import builder
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.doctor_hosts import LEAST_MB
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import Locks, lock_key, pins

# a backup is late after two of its periods and an hour
PERIODS = {"minutely": 60, "hourly": 3600, "daily": 86400, "weekly": 7 * 86400, "monthly": 31 * 86400}
HOUR = 3600


def report_of(fleet: Mapping[str, Any], hostvars: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The slots, the services, and every cause that was found.

    :param given: `result` of the module fleet_verify, `cell` of fleet_cell, and `before`, the findings before a treatment.
    """
    seen = {host: seen_on(hostvars[host]) for host in fleet["hosts"] if host in fleet["asked"]}
    units = {host: each["doctor"]["units"] for host, each in seen.items() if each["doctor"].get("units")}
    verified = given["result"]
    known = report.slots_report(verified, fleet, units)
    state = database_report.state_of(fleet, hostvars, units)
    known["database"] = database_report.report_of(fleet, known["slots"], state)
    known["jupyterlab"] = notebook_report.report_of(fleet, known["slots"], given.get("cell") or {})
    if known["database"] and state:
        calendar = hostvars[fleet["postgresql"]["host"]].get("postgresql_backup_calendar", "daily")
        known["database"]["full"] = full(hostvars[fleet["postgresql"]["host"]].get("__postgresql_disks", {}).get("stdout", ""))
        known["database"]["problems"] += late(state.get("backups") or {}, str(calendar))
    locks = Locks(fleet["secrets_dir"], builder())
    wanted = {key: pins(locks.known_text(key)) for key in {lock_key(each) for each in fleet["hosts"].values()}}
    by_host = {host: wanted[lock_key(fleet["hosts"][host])] for host in seen}
    judge = doctor.Judge(fleet, seen, verified, known["database"], known["jupyterlab"], by_host, certificate_days(fleet, hostvars))
    found = judge.findings()
    listed = [each.to_dict() for each in found]
    findings = doctor.compared(given["before"], listed) if given.get("before") else listed
    return known | {"findings": findings, "treatments": doctor.treatments(found), "ok": not found}


def certificate_days(fleet: Mapping[str, Any], hostvars: Mapping[str, Any]) -> int:
    """Days that the database's certificate should be good for: not more than those before its end in which it is renewed."""
    there = hostvars[fleet["postgresql"]["host"]] if fleet["postgresql"] else {}
    return min(doctor.CERTIFICATE_DAYS, int(there.get("fleet_ca_renew_before_days", doctor.CERTIFICATE_DAYS)))


def seen_on(variables: Mapping[str, Any]) -> dict[str, Any]:
    """What a host said, and what was said of it."""
    look, said = variables.get("__ipp_node_look", {}), variables.get("__ipp_node_doctor", {})
    return {"look": dict(look), "doctor": {} if look.get("unreachable") else dict(said)}


def full(said: str) -> list[dict[str, Any]]:
    """File systems of the database that are full.

    :param said: what `df -Pm` printed.
    """
    rows = [line.split(None, 5) for line in said.splitlines()[1:]]
    disks = {row[5]: (int(row[1]), int(row[3])) for row in rows if len(row) == 6 and row[1].isdigit() and row[3].isdigit()}
    return [{"path": path, "size_mb": size, "free_mb": free} for path, (size, free) in disks.items() if free < LEAST_MB <= size]


def late(backups: Mapping[str, Any], calendar: str) -> list[str]:
    """What is wrong with the age of the newest backup.

    :param calendar: when backups are made, as systemd has it.
    """
    newest = backups.get("newest")
    most = 2 * PERIODS.get(calendar, PERIODS["weekly"]) + HOUR
    if not newest or newest["age"] < most:
        return []
    hours = newest["age"] // HOUR
    age = f"{hours} h" if hours < 96 else f"{hours // 24} days"
    return [f"the newest backup is {age} old, with one to be made {calendar}; see `systemctl list-timers` on its host"]
