# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told of a fleet's database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import unreached


def state_of(fleet: Mapping[str, Any], hostvars: Mapping[str, Any], units: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the database's host said of it; None when it was not asked, or did not answer.

    :param units: states of the units by host: in scope ``user`` the database is one of them.
    """
    if not fleet["postgresql"]:
        return None
    host = fleet["postgresql"]["host"]
    if fleet["scope"] == "user":
        unit = units.get(host, {}).get("postgresql")
        return (
            {"running": unit["running"], "problems": [f"its service last said: {unit['last']}"] if unit["last"] else []} if unit else None
        )
    reached = hostvars[host].get("__postgresql_reached", {})
    if reached.get("unreachable"):
        return {"problems": [f"its host is unreachable: {unreached(str(reached['msg']))}"]}
    said = hostvars[host].get("__postgresql_status")
    return dict(said) if said else None


def report_of(fleet: Mapping[str, Any], slots: Sequence[Mapping[str, Any]], state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How the fleet's database does; None when it has none.

    :param slots: with what engines said of the database, if they were asked.
    :param state: what its host said of it, if it was asked.
    """
    database = fleet["postgresql"]
    if not database:
        return None
    said = [(slot, slot["database"]) for slot in slots if "database" in slot]
    problems = [f"{slot['host']} slot {slot['number']}: {explained(each['error'])}" for slot, each in said if "error" in each]
    good = [each for _, each in said if "error" not in each]
    state = state or {}
    known = {
        "host": database["host"],
        "port": database["port"],
        "user": database["user"],
        "databases": [each["name"] for each in database["databases"]],
        "tls": good[0]["tls"] if good else "",
        "version": good[0]["version"] if good else str(state.get("version", "")),
        "asked": len(said),
        "reached": len(good),
        "problems": [*problems, *state.get("problems", ()), *state.get("backups", {}).get("problems", ())],
        "running": state.get("running"),
        "certificate_days": days_until(state["not_after"]) if state.get("not_after") else None,
        "backed_up": bool(state.get("backups")),
        "backup": state.get("backups", {}).get("newest_proven"),
    }
    return known | {"message": _message(known)}


def lines(database: Mapping[str, Any] | None) -> list[str]:
    """What is told of the database, one line and one for each problem."""
    return [database["message"], *(f"database: {problem}" for problem in database["problems"])] if database else []


def _message(database: Mapping[str, Any]) -> str:
    text = f"database {', '.join(database['databases'])} on {database['host']}, port {database['port']}"
    if database["asked"]:
        how = f" over {database['tls']}, verified" if database["tls"] else ""
        text += f": reached by {database['reached']} of {database['asked']} engines{how}"
    elif database["running"] is not None:
        text += f": {'running' if database['running'] else 'not running'}"
    else:
        text += ": not asked"
    if database["version"]:
        text += f", PostgreSQL {database['version']}"
    if database["certificate_days"] is not None:
        text += f", certificate good for {database['certificate_days']} days"
    if database["backup"]:
        text += f", newest proven backup {database['backup']['age_text']} old"
    elif database["backed_up"]:
        text += ", no proven backup yet"
    return text


def explained(error: str) -> str:
    """What libpq says, and what to do about it where that is known."""
    hint = "; a run that has the database's host within its limit lets it in" if "no pg_hba.conf entry" in error else ""
    return error + hint


def days_until(moment: str) -> int:
    """Whole days until a moment.

    :param moment: as ISO 8601, with its zone.
    """
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).days
