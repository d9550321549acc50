"""Prove a backup: everything in it is restored into a server of its own, and compared row by row.

The server is thrown away in the end. It runs as a user that can do nothing, never as the live
server's: what a database's owner wrote into it, such as a check with a function of theirs, is run
while it is restored, and by a superuser. Nobody is to become the live server's by waiting for a drill.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import ipyfleet_backup_store as store
from ipyfleet_backup_files import digest_or_none
from ipyfleet_backup_roles import literal, make_roles
from ipyfleet_backup_server import Server, bring_back, connected, run
from ipyfleet_backup_store import Backup, DamagedError, Problem, Settings
from ipyfleet_backup_sums import contents, differences

# nothing of it has to outlive a power cut
CONFIG = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "logging_collector": "off",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "128MB",
    "max_locks_per_transaction": "256",
}
SERVER_BYTES = 100_000_000


def drill(settings: Settings, name: str) -> dict[str, Any]:
    """Restore a backup and compare; returns what was compared. What came of it is kept beside the backup.

    :raises Problem: when it does not hold what was backed up, or there is no way to tell.
    """
    os.makedirs(settings.work, mode=0o700, exist_ok=True)
    with store.locked(settings.work, "another drill"):
        backup = store.find(settings.folder, name)
        begin = time.time()
        proof = {"manifest": digest_or_none(os.path.join(backup.path, store.MANIFEST)), "when": store.iso(begin)}
        path = os.path.join(settings.folder, store.PROOFS, backup.name + ".json")
        try:
            with store.locked(backup.path, "its removal", shared=True):
                found = compare(settings, backup)
        except Problem as error:
            # a lack of space says nothing about a backup that was proven before
            if isinstance(error, DamagedError) or not backup.proven:
                store.write_json(path, {**proof, "ok": False, "reason": str(error)})
            raise Problem(f"backup {backup.name}: {error}") from error
        result = {**found, "seconds": round(time.time() - begin, 3)}
        store.write_json(path, {**proof, "ok": True, "reason": "", **result})
        return {"backup": backup.name, **result}


def compare(settings: Settings, backup: Backup) -> dict[str, Any]:
    """Restore all databases of a backup, and count what is as it was.

    :raises DamagedError: when something is not.
    """
    known = backup.manifest["databases"]
    store.check_files(backup, [each["file"] for each in known.values()])
    needed = sum(each["bytes"] for each in known.values()) + SERVER_BYTES
    store.check_space(settings.work, needed, "for a drill")
    tables = rows = 0
    with thrown_away(settings, backup.manifest["server"]) as server:
        for number, (database, each) in enumerate(sorted(known.items())):
            lines = restored(server, f"ipyfleet_drill_{number}", each, os.path.join(backup.path, each["file"]))
            if lines:
                more = f"; and {len(lines) - 1} more" if len(lines) > 1 else ""
                raise DamagedError(f"database {database}: {lines[0]}{more}")
            tables += len(each["contents"]["tables"])
            rows += sum(table["rows"] for table in each["contents"]["tables"].values())
    return {"databases": len(known), "tables": tables, "rows": rows}


def restored(server: Server, scratch: str, known: dict[str, Any], dump: str) -> list[str]:
    """Restore one database and drop it again; returns where it is not as it was.

    :raises DamagedError: when it cannot be restored.
    """
    try:
        bring_back(server, scratch, known, dump, tablespaces=False)
        with connected(server, scratch) as connection:
            cursor = connection.cursor()
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            lines = differences(known["contents"], contents(cursor))
        with connected(server, "template1") as connection:
            connection.cursor().execute(f"DROP DATABASE {scratch}")
    except Problem as error:
        raise DamagedError(f"database {known['properties']['datname']}: {error}") from error
    return lines


@contextlib.contextmanager
def thrown_away(settings: Settings, about: dict[str, Any]) -> Iterator[Server]:
    """A server of this user's own, with the roles that were backed up, reached by a socket in a folder of this user's.

    :param about: the server that was backed up.
    :raises Problem: when it does not start.
    """
    data, log = os.path.join(settings.work, "data"), os.path.join(settings.work, "log")
    control = [os.path.join(settings.bin_dir, "pg_ctl"), "--pgdata=" + data, "--silent", "--wait"]
    remove(settings.work)
    try:
        superuser = "--username=" + about["superuser"]
        # trust: nobody else can enter the folder of its socket
        run(
            [
                os.path.join(settings.bin_dir, "initdb"),
                "--pgdata=" + data,
                superuser,
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
            ]
        )
        config = {**CONFIG, "unix_socket_directories": settings.work, "shared_preload_libraries": about["preload"]}
        with open(os.path.join(data, "postgresql.conf"), "a", encoding="utf-8") as stream:
            stream.writelines(f"{key} = {literal(value)}\n" for key, value in config.items())
        try:
            run([*control, "--log=" + log, "start"])
            server = Server(settings.bin_dir, settings.work, 5432, about["superuser"])
            with connected(server, "template1") as connection:
                make_roles(connection.cursor(), about["roles"], {}, about["roles"], connection.server_version)
            yield server
        finally:
            with contextlib.suppress(Problem):
                run([*control, "--mode=immediate", "stop"])
    finally:
        remove(settings.work)


def remove(folder: str) -> None:
    """Empty a folder."""
    for name in store.listed(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
