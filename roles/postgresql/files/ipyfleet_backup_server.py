"""A PostgreSQL server as its superuser sees it: connections, its own programs, and databases with all that is about them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ipyfleet_backup_files import opened
from ipyfleet_backup_roles import literal, quoted, setting_sql
from ipyfleet_backup_store import MeanwhileError, Problem

# whatever roles and databases set for themselves: rows as text must not depend on it, a long dump not
# be ended by it, and nothing be found by a path that others may put things on
OPTIONS = (
    "search_path=pg_catalog", "statement_timeout=0", "idle_in_transaction_session_timeout=0", "lock_timeout=300000",
    "datestyle=ISO", "intervalstyle=postgres", "timezone=UTC", "extra_float_digits=3", "bytea_output=hex", "lc_monetary=C",
    "xmlbinary=base64", "standard_conforming_strings=on", "row_security=off", "default_transaction_read_only=off", "jit=off",
    # hashes of passwords are in no log
    "log_statement=none", "log_min_duration_statement=-1", "log_min_error_statement=panic",
)  # fmt: skip
# codes of errors: a lock that was not to be had in time, a table or a schema that is gone
MEANWHILE = ("55P03", "42P01", "3F000")
# of postmaster.pid: what is read of it, and the line with the port
PID_BYTES = 4096
PORT_LINE = 3
# versions from which on the server knows them
BUILTIN_LOCALE = 170000
ICU_RULES = 160000
PROVIDERS = 150000

PROPERTIES = """
SELECT to_jsonb(d) || jsonb_build_object(
  'owner', pg_get_userbyid(d.datdba), 'charset', pg_encoding_to_char(d.encoding), 'bytes', pg_database_size(d.oid),
  'comment', shobj_description(d.oid, 'pg_database'),
  'grants', (SELECT jsonb_agg(jsonb_build_array(CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable))
             FROM aclexplode(d.datacl) a),
  'settings', (SELECT jsonb_agg(jsonb_build_array(CASE s.setrole WHEN 0 THEN '' ELSE pg_get_userbyid(s.setrole) END, c))
               FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setdatabase = d.oid),
  'roles', (SELECT jsonb_agg(DISTINCT pg_get_userbyid(p.refobjid)) FROM pg_shdepend p
            WHERE p.refclassid = 'pg_authid'::regclass AND (p.dbid = d.oid OR (p.classid = 'pg_database'::regclass AND p.objid = d.oid))))
FROM pg_database d WHERE d.datallowconn AND NOT d.datistemplate ORDER BY d.datname
"""  # noqa: E501  (one expression a line)


class Server(NamedTuple):
    """A server that listens on a socket of this machine.

    :param socket_dir: the socket's folder.
    :param superuser: the account to be.
    """

    bin_dir: str
    socket_dir: str
    port: int
    superuser: str

    def program(self, name: str, *arguments: str) -> list[str]:
        """A command line of one of the server's own programs."""
        reach = ("--host=" + self.socket_dir, f"--port={self.port}", "--username=" + self.superuser, "--no-password")
        return [os.path.join(self.bin_dir, name), *reach, *arguments]


def live_port(data: str, wanted: int) -> int:
    """The port of the server as it runs: another one that is wanted may wait for a restart.

    :param data: its data folder.
    :param wanted: what is taken where that does not tell.
    """
    try:
        with opened(os.path.join(data, "postmaster.pid")) as stream:
            return int(stream.read(PID_BYTES).splitlines()[PORT_LINE])
    except (OSError, ValueError, IndexError):
        return wanted


@contextlib.contextmanager
def connected(server: Server, database: str) -> Iterator[Any]:
    """A connection, outside of any transaction.

    :raises Problem: when there is none.
    """
    try:
        import psycopg2
    except ImportError as error:
        raise Problem("expected Python's psycopg2, got none; install python3-psycopg2") from error
    try:
        connection = psycopg2.connect(
            host=server.socket_dir,
            port=server.port,
            user=server.superuser,
            dbname=database,
            client_encoding="UTF8",
            application_name="ipyfleet_backup",
            options=" ".join("-c " + each for each in OPTIONS),
        )
    except psycopg2.OperationalError as error:
        raise Problem(f"expected the server to answer at {server.socket_dir}, port {server.port}, got: {first(str(error))}") from error
    connection.autocommit = True
    try:
        yield connection
    except psycopg2.Error as error:
        kind = MeanwhileError if error.pgcode in MEANWHILE else Problem
        raise kind(f"database {database}: {first(str(error))}") from error
    finally:
        connection.close()


def first(text: str) -> str:
    """The first line of a message."""
    lines = text.strip().splitlines()
    return lines[0] if lines else "no message"


def other_database(database: str) -> str:
    """A database to be connected to while something is done to `database` from outside."""
    return "template1" if database == "postgres" else "postgres"


def databases(cursor: Any) -> dict[str, dict[str, Any]]:
    """All databases that somebody may use, with what is about them."""
    cursor.execute(PROPERTIES)
    return {row["datname"]: row for (row,) in cursor.fetchall()}


def create_sql(name: str, known: dict[str, Any], version: int) -> str:
    """How a database is made that is like one that was backed up, and takes nobody in yet but superusers.

    :param known: its properties.
    :param version: of the server, such as 150020.
    """
    words = ["CREATE DATABASE", quoted(name), "TEMPLATE template0 OWNER", quoted(known["owner"]), "ENCODING", literal(known["charset"])]
    words += ["LC_COLLATE", literal(known["datcollate"]), "LC_CTYPE", literal(known["datctype"]), "CONNECTION LIMIT 0"]
    provider = known.get("datlocprovider", "c")
    locale = known.get("datlocale") or known.get("daticulocale") or ""
    if version >= PROVIDERS:
        words += ["LOCALE_PROVIDER", {"c": "libc", "i": "icu", "b": "builtin"}[provider]]
    if provider == "i":
        words += ["ICU_LOCALE", literal(locale)]
    if provider == "b" and version >= BUILTIN_LOCALE:
        words += ["BUILTIN_LOCALE", literal(locale)]
    if known.get("daticurules") and version >= ICU_RULES:
        words += ["ICU_RULES", literal(known["daticurules"])]
    return " ".join(words)


def property_sql(name: str, known: dict[str, Any]) -> list[str]:
    """What gives a database the rest of its properties: who may do what, settings, the comment."""
    database = quoted(name)
    lines = []
    if known["datacl"] is not None:
        lines += [f"REVOKE ALL ON DATABASE {database} FROM {who}" for who in ("PUBLIC", quoted(known["owner"]))]
    for grantee, privilege, grantable in known["grants"] or ():
        line = f"GRANT {privilege} ON DATABASE {database} TO {quoted(grantee) if grantee else 'PUBLIC'}"
        lines.append(line + (" WITH GRANT OPTION" if grantable else ""))
    for role, setting in known["settings"] or ():
        lines += setting_sql(f"ROLE {quoted(role)} IN DATABASE {database}" if role else "DATABASE " + database, setting)
    if known["comment"] is not None:
        lines.append(f"COMMENT ON DATABASE {database} IS {literal(known['comment'])}")
    return lines


def bring_back(server: Server, name: str, known: dict[str, Any], dump: str, *, tablespaces: bool) -> None:
    """Make a database and restore a dump into it; without subscriptions, which would go on from elsewhere.

    :param name: of the database that is made.
    :param known: what the manifest says of the database that was backed up.
    :param tablespaces: whether what was in one is put there again.
    :raises Problem: with what the server said.
    """
    properties = known["properties"]
    with connected(server, other_database(name)) as connection:
        connection.cursor().execute(create_sql(name, properties, connection.server_version))
    options = ["--exit-on-error", "--no-subscriptions", f"--jobs={jobs()}", "--dbname=" + plain_name(name)]
    options += [] if tablespaces else ["--no-tablespaces"]
    run(server.program("pg_restore", *options, dump))
    with connected(server, name) as connection:
        # a restored database has no statistics, and would plan badly until it is looked through
        connection.cursor().execute("ANALYZE")
        for line in property_sql(name, properties):
            connection.cursor().execute(line)


def plain_name(name: str) -> str:
    """A database's name for a program, which would take some for a connection string."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def jobs() -> int:
    """Processes that restore at the same time: half of the processors, which others use as well."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def run(command: Sequence[str], stdin: str | None = None) -> None:
    """Run a program to its end.

    :param stdin: what it is to read.
    :raises Problem: with the first line that it complained in.
    """
    done = subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Problem(f"{os.path.basename(command[0])}: {complaint(done.stderr, done.returncode)}")


def complaint(text: str, code: int) -> str:
    """What a program complained about, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line.lower() or "fatal:" in line.lower()]
    found = (errors or lines[-1:] or [f"exit code {code}"])[0]
    return found.partition(": error: ")[2] or found
