# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a client on the control node needs: which files, and how they get into a private folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import DATABASE_CLIENTS
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import write_private

CONNECTION, TOKEN = "client.json", "token"
# of whoever starts engines: on its own, never in a folder for a client
ENGINE = ("ipp_controller", "ipcontroller-engine.json.j2")
# says whose a folder is
MARK = ".ipyfleet-client"
# by name, the role that a template belongs to, and its name there
_TEMPLATES = {
    CONNECTION: ("ipp_controller", "ipcontroller-client.json.j2"),
    "pg_service.conf": ("postgresql", "pg_service.conf.j2"),
    "pgpass": ("postgresql", "pgpass.j2"),
    "ca.crt": ("postgresql", "ca.crt.j2"),
    "postgresql.crt": ("postgresql", "client.crt.j2"),
    "postgresql.key": ("postgresql", "client.key.j2"),
}


def templates(fleet: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The files that a client of a fleet needs, by name, each with its role and its template there."""
    database = fleet["postgresql"] or {}
    needed = {CONNECTION}
    needed |= {"pg_service.conf", "pgpass"} if database else set()
    needed |= {"ca.crt"} if database.get("tls") else set()
    needed |= {"postgresql.crt", "postgresql.key"} if database.get("client_certificates") else set()
    return {name: template for name, template in _TEMPLATES.items() if name in needed}


def prover(fleet: Mapping[str, Any]) -> str:
    """The host whose certificate a client shows to the database; it says which account one is, not from where."""
    return next(str(host) for host, each in fleet["hosts"].items() if set(DATABASE_CLIENTS) & set(each["roles"]))


def write_files(texts: Mapping[Path, str], dry: bool) -> bool:
    """Write files that nobody else can read, where they differ; returns whether any does.

    :param dry: only say so.
    :raises OSError: when one cannot be written.
    """
    differing = {path: text for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    if not dry:
        for path, text in differing.items():
            write_private(path, text)
    return bool(differing)


def strangers(folder: Path, fleet: str) -> str:
    """What is in a folder that is not for a client of this fleet; empty when there is nothing else.

    :raises OSError: when it cannot be read.
    """
    if not folder.exists():
        return ""
    mark = folder / MARK
    if mark.exists():
        whose = mark.read_text(encoding="utf-8", errors="replace")
        return "" if whose == _mark(fleet) else " ".join(whose.split())[:100]
    return ", ".join(sorted(path.name for path in folder.iterdir())[:3])


def make_folder(folder: Path, fleet: str, keep: Mapping[str, str]) -> None:
    """Make a private folder, or take what is not wanted any more out of the one that is there.

    :param keep: the files that are to be there.
    :raises OSError: when it cannot be made.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    write_files({folder / MARK: _mark(fleet)}, dry=False)
    for name in {*_TEMPLATES, TOKEN} - set(keep):
        (folder / name).unlink(missing_ok=True)


def _mark(fleet: str) -> str:
    return f"files for a client of fleet {fleet}\n"
