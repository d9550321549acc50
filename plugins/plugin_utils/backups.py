# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told of the backups of a fleet's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import table

KINDS = ("backups", "restored")


def report(kind: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the program on the database's host printed, as part of a report.

    :param result: of its ``list``, or of its ``restore``.
    """
    if kind == "restored":
        return {"restored": {**result, "message": restored_text(result)}}
    return {"backups": list(result["backups"]), "backup_problems": list(result["problems"])}


def text(known: Mapping[str, Any]) -> str:
    """A report for people."""
    return str(known["restored"]["message"]) if "restored" in known else backups_text(known)


def backups_text(known: Mapping[str, Any]) -> str:
    """The backups, newest first, and what is wrong with them."""
    rows: list[list[object]] = [["backup", "age", "size", "rows", "databases", "proven"]]
    for each in known["backups"]:
        proven = each["proven"] or ("failed" if each["reason"] else "not yet")
        rows.append([each["name"], each["age_text"], each["size_text"], each["rows"], ", ".join(each["databases"]), proven])
    count = len(known["backups"])
    lines = [
        f"fleet {known['name']}: {count} backup{'' if count == 1 else 's'} of its database",
        *(table(rows, (1, 2, 3)) if count else []),
    ]
    return "\n".join([*lines, *(f"database: {problem}" for problem in known["backup_problems"])])


def restored_text(restored: Mapping[str, Any]) -> str:
    """What was brought back, or would be."""
    verb = "would be brought back" if restored["check"] else "is back"
    text = (
        f"database {restored['database']} {verb} from backup {restored['backup']}: {restored['rows']} rows in {restored['tables']} tables"
    )
    if restored["roles"]:
        text += f"; roles made for it: {', '.join(restored['roles'])}"
    if restored["kept"]:
        text += f"; what was there is kept as {restored['kept']}, to be dropped by hand"
    return text
