"""Make a backup: of each database one snapshot, in which its rows are counted and hashed while it is dumped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import ipyfleet_backup_store as store
from ipyfleet_backup_files import digest_or_none
from ipyfleet_backup_restore import PASSWORDS, is_own, sweep_databases
from ipyfleet_backup_roles import read_roles
from ipyfleet_backup_server import Server, complaint, connected, databases, plain_name, run
from ipyfleet_backup_store import MeanwhileError, Problem, Settings
from ipyfleet_backup_sums import counted, foreign_code, locked_tables, sequences

LOCK = ".lock"
# how long to wait for a table that somebody changes, and how long to try again
LOCK_SECONDS = 5
TRY_SECONDS = 600.0
# version of the server that has it
TRANSACTION_TIMEOUT = 170000
# for people, who have to rebuild a whole server; like the other file with hashes of passwords, a drill may not read it
GLOBALS = "globals.sql"


def backup(settings: Settings, server: Server) -> dict[str, Any]:
    """Back up every database; returns what is told of the backup.

    :raises Problem: when there is no backup for it. The reason is kept for `list`, too.
    """
    try:
        os.makedirs(settings.folder, mode=0o700, exist_ok=True)
        with store.locked(os.path.join(settings.folder, LOCK), "another backup"):
            return make(settings, server)
    except store.BusyError:
        raise
    except (Problem, OSError) as error:
        with contextlib.suppress(OSError):
            told = {"when": store.iso(time.time()), "reason": reason_of(error)}
            store.write_json(os.path.join(settings.folder, store.FAILED), told)
        raise Problem(reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError):
        return f"{error.filename or 'its folder'}: {error.strerror}"
    return str(error)


def make(settings: Settings, server: Server) -> dict[str, Any]:
    """Make the backup, put it in place, and let old ones go."""
    begin = time.time()
    store.sweep(settings.folder)
    sweep_databases(settings, server)
    known, about, passwords = survey(settings, server)
    before = store.backups(settings.folder)
    size = sum(each["bytes"] for each in known.values())
    store.check_space(settings.folder, store.needed_bytes(size, before[0] if before else None), "for a backup")
    name = store.name_of(begin)
    path = os.path.join(settings.folder, name)
    with made_beside(path) as new:
        run(server.program("pg_dumpall", "--globals-only", "--file=" + secret(os.path.join(new, GLOBALS))))
        store.write_json(os.path.join(new, PASSWORDS), passwords, 0o600)
        dumped = {each: dump(server, each, properties, new) for each, properties in known.items()}
        files = {each: measured(os.path.join(new, each)) for each in sorted(os.listdir(new))}
        manifest = {"schema": store.SCHEMA, "name": name, "when": store.iso(begin), "seconds": round(time.time() - begin, 3)}
        store.write_json(os.path.join(new, store.MANIFEST), {**manifest, "server": about, "databases": dumped, "files": files})
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(settings.folder, store.FAILED))
    removed = store.forget(settings.folder, store.expired(store.backups(settings.folder), settings.keep))
    return {**store.told(store.find(settings.folder, name), time.time()), "removed": removed}


def survey(settings: Settings, server: Server) -> tuple[dict[str, dict[str, Any]], dict[str, Any], dict[str, str]]:
    """The databases with their properties, the server with its roles, and the hashes of passwords."""
    with connected(server, "postgres") as connection:
        cursor = connection.cursor()
        known = {name: properties for name, properties in databases(cursor).items() if not is_own(name)}
        cursor.execute("SELECT current_setting('shared_preload_libraries'), pg_get_userbyid(10), current_setting('server_version')")
        preload, superuser, text = cursor.fetchone()
        roles, passwords = read_roles(cursor)
        about = {"version": connection.server_version, "text": text, "superuser": superuser, "preload": preload, "roles": roles}
    absent = store.missing(settings.databases, set(known))
    if absent:
        raise Problem(f"expected the database {', '.join(absent)}, got none of that name; deploy the fleet again, or restore it")
    return known, about, passwords


@contextlib.contextmanager
def made_beside(path: str) -> Iterator[str]:
    """A new folder that is at `path` in the end, whole and on the disk, or not at all."""
    folder, name = os.path.split(path)
    new = os.path.join(folder, store.UNFINISHED + name)
    os.mkdir(new)
    try:
        yield new
        for each in os.listdir(new):
            store.sync(os.path.join(new, each))
        store.sync(new)
        os.rename(new, path)
        store.sync(folder)
    except BaseException:
        store.sweep(folder)
        raise


def secret(path: str) -> str:
    """Make an empty file that nobody else can read."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def measured(path: str) -> dict[str, Any]:
    """Size and digest of a file."""
    return {"bytes": os.stat(path).st_size, "sha256": digest_or_none(path)}


def dump(server: Server, database: str, properties: dict[str, Any], folder: str) -> dict[str, Any]:
    """Dump a database, and say what is in it: of both, the same snapshot.

    :raises Problem: when that fails, and another try would be of no use.
    """
    deadline = time.monotonic() + TRY_SECONDS
    while True:
        try:
            return dump_once(server, database, properties, folder)
        except MeanwhileError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def dump_once(server: Server, database: str, properties: dict[str, Any], folder: str) -> dict[str, Any]:
    """One try of it: who wants a table for himself at the same time goes first.

    pg_dump would queue up behind him, and he behind this program, which waits for pg_dump.
    """
    # a name may hold anything, a slash too
    file = quote(database, safe="") + ".dump"
    with connected(server, database) as connection:
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        if connection.server_version >= TRANSACTION_TIMEOUT:
            cursor.execute("SET transaction_timeout = 0")
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        cursor.execute("SELECT pg_export_snapshot()")
        (snapshot,) = cursor.fetchone()
        before, tables = sequences(cursor), locked_tables(cursor)
        options = ["--format=custom", f"--snapshot={snapshot}", f"--lock-wait-timeout={LOCK_SECONDS}s", f"--dbname={plain_name(database)}"]
        with dumping(server.program("pg_dump", *options, "--file=" + os.path.join(folder, file)), database):
            found = counted(cursor, tables)
        after, code = sequences(cursor), foreign_code(cursor)
        cursor.execute("COMMIT")
    # sequences go on in a snapshot: a restored one is to have a value of that time
    found["sequences"] = {name: [before.get(name), value] for name, value in after.items()}
    roles = sorted({*(properties["roles"] or ()), properties["owner"], *(role for role, _ in properties["settings"] or () if role)})
    return {"file": file, "bytes": properties["bytes"], "properties": properties, "roles": roles, "contents": found, "code": code}


@contextlib.contextmanager
def dumping(command: Sequence[str], database: str) -> Iterator[None]:
    """Run pg_dump beside something else, to its end.

    :raises MeanwhileError: when it could not have a table to itself.
    """
    # what it says is read here
    environ = {**os.environ, "LC_ALL": "C", "PGOPTIONS": "-c lc_messages=C"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield
        except BaseException:
            process.kill()
            raise
        _, said = process.communicate()
    if process.returncode:
        kind = MeanwhileError if "lock timeout" in said else Problem
        raise kind(f"database {database}: pg_dump: {complaint(said, process.returncode)}")
