"""SQL that brings a server's accounts and databases to what they should be, from what is there.

Passwords go to the server as SCRAM verifiers, never in clear: whatever the server logs or keeps of
its statements, they are not in it. One that fits already is left as it is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stringprep
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ITERATIONS = 4096
# the account that the server is made with and that everything is done as
SUPERUSER = "postgres"
# attributes of an account by the columns of pg_roles, with what an account has that says nothing of them
ATTRIBUTES = {
    "SUPERUSER": ("rolsuper", False),
    "CREATEDB": ("rolcreatedb", False),
    "CREATEROLE": ("rolcreaterole", False),
    "INHERIT": ("rolinherit", True),
    "LOGIN": ("rolcanlogin", True),
    "REPLICATION": ("rolreplication", False),
    "BYPASSRLS": ("rolbypassrls", False),
}
COLUMNS = ", ".join(column for column, _ in ATTRIBUTES.values())
UNLIMITED = -1
# what is there, as one JSON object
THERE = f"""
select json_build_object(
  'roles', (select json_agg(r) from (select rolname, rolpassword, rolconnlimit, {COLUMNS} from pg_authid) r),
  'databases', (select json_agg(d) from (select datname, pg_get_userbyid(datdba) as owner from pg_database) d))
"""  # noqa: S608  (the columns are this file's own)


def ident(name: str) -> str:
    """A name as an identifier of SQL, which is how files and settings of the server quote it too."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def prepared(password: str) -> bytes:
    """A password as SCRAM hashes it: SASLprep of RFC 4013, and as it is where that forbids it, like PostgreSQL does."""
    mapped = "".join(" " if stringprep.in_table_c12(each) else each for each in password if not stringprep.in_table_b1(each))
    text = unicodedata.normalize("NFKC", mapped)
    forbidden = (
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
        stringprep.in_table_a1,
    )
    if not text or any(test(each) for each in text for test in forbidden):
        return password.encode()
    return text.encode()


def verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL keeps of a password under scram-sha-256."""
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"


def fits(password: str, kept: str | None) -> bool:
    """Whether what PostgreSQL keeps was made of a password."""
    try:
        _, parameters, _ = str(kept).split("$")
        iterations, salt = parameters.split(":")
        made = verifier(password, base64.b64decode(salt), int(iterations))
    except ValueError:
        return False
    return hmac.compare_digest(made, str(kept))


def attributes_of(words: Sequence[str]) -> dict[str, bool]:
    """Attributes of an account by name, from words such as CREATEDB and NOINHERIT."""
    found = {name: usual for name, (_, usual) in ATTRIBUTES.items()}
    for word in (each.upper() for each in words):
        name = word.removeprefix("NO") if word.startswith("NO") else word
        found[name] = not word.startswith("NO")
    return found


def role_statements(users: Sequence[Mapping[str, Any]], passwords: Mapping[str, str], there: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What makes the accounts, but the server's own superuser: without its rights nobody could bring anything about again.

    :param users: each with a name and, where they are not the usual ones, attributes and a limit of connections.
    :param passwords: by account.
    :param there: the accounts that there are, as the query has them.
    """
    known = {each["rolname"]: each for each in there}
    for user in users:
        name = user["name"]
        if name == SUPERUSER:
            continue
        role = known.get(name)
        if role is None:
            yield f"create role {ident(name)}"
            role = {"rolpassword": None, "rolconnlimit": UNLIMITED, **{column: key == "INHERIT" for key, (column, _) in ATTRIBUTES.items()}}
        wanted = attributes_of(user.get("attributes", []))
        words = [key if yes else f"NO{key}" for key, yes in wanted.items() if role[ATTRIBUTES[key][0]] != yes]
        if words:
            yield f"alter role {ident(name)} with {' '.join(words)}"
        if (limit := int(user.get("connection_limit", UNLIMITED))) != role["rolconnlimit"]:
            yield f"alter role {ident(name)} connection limit {limit}"
        password = passwords.get(name)
        if password and not fits(password, role["rolpassword"]):
            yield f"alter role {ident(name)} with password {literal(verifier(password, os.urandom(16)))}"


def database_statements(databases: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What makes the databases.

    :param databases: each with a name and an owner.
    :param there: the databases that there are, as the query has them.
    """
    known = {each["datname"]: each for each in there}
    for database in databases:
        name, owner = database["name"], database["owner"]
        before = known.get(name)
        if before is None:
            yield f"create database {ident(name)} owner {ident(owner)} template template0"
        elif before["owner"] != owner:
            yield f"alter database {ident(name)} owner to {ident(owner)}"


def content_statements(database: Mapping[str, Any]) -> Iterator[str]:
    """What makes a database's extensions and schemas, in that database.

    :param database: with its owner, and the names of both.
    """
    for name in database["extensions"]:
        yield f"create extension if not exists {ident(name)}"
    for name in database["schemas"]:
        yield f"create schema if not exists {ident(name)} authorization {ident(database['owner'])}"
