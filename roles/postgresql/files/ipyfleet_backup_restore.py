"""Bring a database back: beside, compared, and then swapped by renaming, so that its name always leads to a whole one."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ipyfleet_backup_store as store
from ipyfleet_backup_files import read_json
from ipyfleet_backup_roles import literal, make_roles, quoted
from ipyfleet_backup_server import Server, bring_back, connected, databases, other_database
from ipyfleet_backup_store import Backup, Problem, Settings
from ipyfleet_backup_sums import contents, differences

LOCK = ".restore.lock"
PASSWORDS = "passwords.json"
SCRATCH = re.compile(r"ipyfleet_restore_\d{8}T\d{6}Z")
BEFORE = "_before_"
OLD = re.compile(rf".*{BEFORE}\d{{8}}T\d{{6}}Z", re.DOTALL)
NAME_BYTES = 63
MAJOR = 10000


class Request(NamedTuple):
    """What is to be brought back.

    :param database: its name.
    :param backup: name of a backup, or ``latest``.
    :param overwrite: the database's name once more, when there is one to be replaced.
    :param drop_old: whether the one that was there goes in the end.
    :param trust: whether to run what users wrote into the database as a superuser.
    :param check: whether to say only what would be done.
    """

    database: str
    backup: str = "latest"
    overwrite: str = ""
    drop_old: bool = False
    trust: bool = False
    check: bool = False


def restore(settings: Settings, server: Server, request: Request) -> dict[str, Any]:
    """Bring a database back, and say what was done.

    :raises Problem: when it cannot be; what was there is as it was then.
    """
    if request.overwrite not in ("", request.database):
        raise Problem(f"overwrite: expected {request.database}, the name of the database once more, got {request.overwrite}")
    with store.locked(os.path.join(settings.folder, LOCK), "another restore"):
        backup = store.find(settings.folder, request.backup)
        with store.locked(backup.path, "its removal", shared=True):
            return bring(server, backup, request)


def bring(server: Server, backup: Backup, request: Request) -> dict[str, Any]:
    """The restore of a backup that nobody removes meanwhile."""
    begin = time.time()
    known = wanted_of(backup, request.database)
    dump = os.path.join(backup.path, known["file"])
    store.check_files(backup, [known["file"], PASSWORDS])
    live = request.database
    with connected(server, other_database(live)) as connection:
        cursor = connection.cursor()
        if not request.check:
            drop_scratch(cursor)
        there = live in databases(cursor)
        absent = look(cursor, backup, known, request, there)
        if not request.check:
            passwords = read_json(os.path.join(backup.path, PASSWORDS)) or {}
            make_roles(cursor, backup.manifest["server"]["roles"], passwords, absent, connection.server_version)
    stamp = store.name_of(begin)
    old = old_name(live, stamp) if there and not request.drop_old else ""
    result = {"database": live, "backup": backup.name, "roles": absent, "kept": old, "replaced": there}
    if not request.check:
        put_in_place(server, known, dump, request, stamp, there)
    tables = known["contents"]["tables"].values()
    counts = {"tables": len(tables), "rows": sum(table["rows"] for table in tables)}
    return {**result, **counts, "check": request.check, "seconds": round(time.time() - begin, 3)}


def wanted_of(backup: Backup, database: str) -> dict[str, Any]:
    """What a backup has of a database.

    :raises Problem: when it has none of that name.
    """
    known: dict[str, dict[str, Any]] = backup.manifest["databases"]
    if database not in known:
        raise Problem(f"backup {backup.name}: expected one of its databases ({', '.join(sorted(known))}), got {database}")
    return known[database]


def look(cursor: Any, backup: Backup, known: dict[str, Any], request: Request, there: bool) -> list[str]:
    """See that a restore can work; returns the roles that it has to make.

    :raises Problem: when it cannot.
    """
    live = request.database
    if there and request.overwrite != live:
        raise Problem(
            f"database {live}: expected none of that name, got one that is there;"
            f" to replace it: --overwrite {live}, or restore_overwrite={live}"
        )
    if known["code"] and not request.trust:
        more = f", and {len(known['code']) - 1} more like it" if len(known["code"]) > 1 else ""
        raise Problem(
            f"database {live}: expected no code of its users that a restore runs as a superuser, got {known['code'][0]}{more};"
            " if they are to be trusted with the server: --trust, or restore_trust=true"
        )
    cursor.execute("SELECT count(*) FROM pg_prepared_xacts WHERE database = %s", (live,))
    if cursor.fetchone()[0]:
        raise Problem(f"database {live}: expected no prepared transactions, got some; commit them or roll them back")
    cursor.execute("SELECT current_setting('server_version_num')::int, current_setting('data_directory')")
    version, data = cursor.fetchone()
    dumped = backup.manifest["server"]["version"]
    if version // MAJOR < dumped // MAJOR:
        raise Problem(f"backup {backup.name}: expected PostgreSQL {dumped // MAJOR} or newer, got {version // MAJOR}")
    store.check_space(
        data, known["bytes"], "for the restored database, beside the one that is there" if there else "for the restored database"
    )
    cursor.execute("SELECT rolname FROM pg_roles")
    absent = sorted(set(known["roles"]) - {name for (name,) in cursor.fetchall()})
    unknown = store.missing(absent, set(backup.manifest["server"]["roles"]))
    if unknown:
        raise Problem(f"database {live}: expected the role {', '.join(unknown)}, got none of that name; make it first")
    return absent


def put_in_place(server: Server, known: dict[str, Any], dump: str, request: Request, stamp: str, there: bool) -> None:
    """Restore beside, compare, swap; nothing is left of a restore that fails.

    :param stamp: when it was begun, for the names of databases.
    :param there: whether a database is replaced.
    """
    scratch = "ipyfleet_restore_" + stamp
    old = old_name(request.database, stamp)
    try:
        bring_back(server, scratch, known, dump, tablespaces=True)
        with connected(server, scratch) as connection:
            cursor = connection.cursor()
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            lines = differences(known["contents"], contents(cursor))
        if lines:
            raise Problem(f"database {request.database}: expected what was backed up, got another: {'; '.join(lines[:3])}")
        swap(server, request.database, scratch, old if there else "", known["properties"]["datconnlimit"])
    except BaseException:
        with connected(server, other_database(request.database)) as connection:
            drop_scratch(connection.cursor())
        raise
    if there and request.drop_old:
        with connected(server, other_database(request.database)) as connection:
            connection.cursor().execute(f"DROP DATABASE {quoted(old)} WITH (FORCE)")


def swap(server: Server, live: str, scratch: str, old: str, limit: int) -> None:
    """Give the restored database its name, in one transaction; who is connected to the one that is there is sent away.

    :param old: name that the one that is there gets; empty when there is none.
    :param limit: of connections to the restored one.
    """
    with connected(server, other_database(live)) as connection, sent_away(server, live, scratch):
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("SET LOCAL lock_timeout = '30s'")
        if old:
            cursor.execute(f"ALTER DATABASE {quoted(live)} RENAME TO {quoted(old)}")
            cursor.execute(f"ALTER DATABASE {quoted(old)} CONNECTION LIMIT 0")
            cursor.execute(f"COMMENT ON DATABASE {quoted(old)} IS {literal(live + ', as it was before a restore')}")
        cursor.execute(f"ALTER DATABASE {quoted(scratch)} RENAME TO {quoted(live)}")
        cursor.execute(f"ALTER DATABASE {quoted(live)} CONNECTION LIMIT {limit}")
        cursor.execute("COMMIT")


@contextlib.contextmanager
def sent_away(server: Server, *names: str) -> Iterator[None]:
    """Meanwhile, end connections to databases: a renaming waits a few seconds for them, and lets in no new ones."""
    done = threading.Event()

    def end() -> None:
        with contextlib.suppress(Problem), connected(server, other_database(names[0])) as connection:
            while not done.wait(0.1):
                connection.cursor().execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)", (list(names),)
                )

    thread = threading.Thread(target=end, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def old_name(live: str, stamp: str) -> str:
    """The name that a replaced database gets; no longer than a name may be."""
    end = BEFORE + stamp
    return live.encode()[: NAME_BYTES - len(end)].decode(errors="ignore") + end


def is_own(name: str) -> bool:
    """Whether a database is what a restore makes or leaves: none to be backed up."""
    return bool(SCRATCH.fullmatch(name) or OLD.fullmatch(name))


def drop_scratch(cursor: Any) -> None:
    """Drop what interrupted restores left."""
    cursor.execute("SELECT datname FROM pg_database")
    for name in own_scratch([name for (name,) in cursor.fetchall()]):
        cursor.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")


def own_scratch(names: Sequence[str]) -> list[str]:
    """Databases that a restore is made in."""
    return [name for name in names if SCRATCH.fullmatch(name)]


def sweep_databases(settings: Settings, server: Server) -> None:
    """Drop what interrupted restores left, unless one is under way."""
    lock = store.locked(os.path.join(settings.folder, LOCK), "a restore")
    with contextlib.suppress(store.BusyError), lock, connected(server, "postgres") as connection:
        drop_scratch(connection.cursor())
