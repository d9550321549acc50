"""Roles, as data: what pg_dumpall writes is for people, who may have to rebuild a whole server.

It is never taken apart here. A role's own settings are in it as their owner wrote them, and might
look like other lines of it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

ROLES = """
SELECT a.rolname, to_jsonb(a) - 'rolpassword' || jsonb_build_object(
  'groups', (SELECT jsonb_agg(to_jsonb(m) || jsonb_build_object('name', pg_get_userbyid(m.roleid)))
             FROM pg_auth_members m WHERE m.member = a.oid),
  'settings', (SELECT jsonb_agg(c) FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setrole = a.oid AND s.setdatabase = 0)),
  a.rolpassword
FROM pg_authid a WHERE a.rolname NOT LIKE 'pg\\_%' ORDER BY a.rolname
"""
# of pg_authid, and the word for each
ATTRIBUTES = {
    "rolsuper": "SUPERUSER",
    "rolinherit": "INHERIT",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolcanlogin": "LOGIN",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}
# settings that hold lists, whose text is not to be quoted as a whole
LISTS = ("search_path", "local_preload_libraries", "session_preload_libraries", "temp_tablespaces")
GRANT_OPTIONS = 160000


def read_roles(cursor: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Every role but the server's own, and the hashes of their passwords."""
    cursor.execute(ROLES)
    rows = cursor.fetchall()
    return {name: role for name, role, _ in rows}, {name: password for name, _, password in rows if password}


def role_sql(name: str, role: dict[str, Any], password: str | None) -> list[str]:
    """How a role is made, without the groups it is in.

    :param password: hash of its password.
    """
    words = ["CREATE ROLE", quoted(name), "WITH"]
    words += [("" if role[key] else "NO") + word for key, word in ATTRIBUTES.items()]
    words += [f"CONNECTION LIMIT {role['rolconnlimit']}"]
    words += ["PASSWORD " + literal(password)] if password else []
    words += ["VALID UNTIL " + literal(role["rolvaliduntil"])] if role["rolvaliduntil"] else []
    lines = [" ".join(words)]
    for setting in role["settings"] or ():
        lines += setting_sql("ROLE " + quoted(name), setting)
    return lines


def group_sql(name: str, role: dict[str, Any], there: Collection[str], version: int) -> list[str]:
    """How a role is put into its groups, of those that are there.

    :param version: of the server, such as 150020.
    """
    lines = []
    for group in role["groups"] or ():
        if group["name"] not in there:
            continue
        line = f"GRANT {quoted(group['name'])} TO {quoted(name)}"
        options = {"admin_option": "ADMIN"}
        if version >= GRANT_OPTIONS:
            options.update({"inherit_option": "INHERIT", "set_option": "SET"})
            line += " WITH " + ", ".join(f"{word} {str(bool(group.get(key, True))).upper()}" for key, word in options.items())
        elif group["admin_option"]:
            line += " WITH ADMIN OPTION"
        lines.append(line)
    return lines


def make_roles(
    cursor: Any, known: dict[str, dict[str, Any]], passwords: dict[str, str], wanted: Collection[str], version: int
) -> list[str]:
    """Make those of the wanted roles that are not there; returns their names.

    :param known: roles that were backed up.
    :param passwords: hashes of their passwords, as far as they are to have them.
    """
    cursor.execute("SELECT rolname FROM pg_roles")
    there = {name for (name,) in cursor.fetchall()}
    new = [name for name in sorted(known) if name in wanted and name not in there]
    lines = [line for name in new for line in role_sql(name, known[name], passwords.get(name))]
    lines += [line for name in new for line in group_sql(name, known[name], there | set(new), version)]
    cursor.execute("BEGIN")
    for line in lines:
        cursor.execute(line)
    cursor.execute("COMMIT")
    return new


def setting_sql(whose: str, setting: str) -> list[str]:
    """What gives a database or a role a setting.

    :param whose: as in `DATABASE "lab"`.
    :param setting: as the catalog has it, NAME=VALUE.
    """
    key, _, value = setting.partition("=")
    name = ".".join(quoted(part) for part in key.split("."))
    if key in LISTS:
        # by way of this session: the value is the list as it is written, not a text
        here = f"SELECT pg_catalog.set_config({literal(key)}, {literal(value)}, false)"
        return [here, f"ALTER {whose} SET {name} FROM CURRENT"]
    return [f"ALTER {whose} SET {name} TO {literal(value)}"]


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"{}"'.format(name.replace('"', '""'))


def literal(text: str) -> str:
    """A text in SQL, with standard_conforming_strings."""
    return "'{}'".format(text.replace("'", "''"))
