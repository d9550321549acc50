# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet's database as its inventory wants it: where it is, its databases and accounts, and who may connect."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import database_embedded, database_files, issuing, passwords
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import DATABASE_CLIENTS, MEMBERS
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import PortPlan

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")
# names with a meaning in pg_hba.conf, or of PostgreSQL's own
RESERVED = ("all", "sameuser", "samerole", "samegroup", "replication", "postgres", "template0", "template1")
DATABASE_KEYS = ("name", "owner", "extensions", "schemas")
LISTS = ("extensions", "schemas")
# may own databases, and is no account of a fleet's
SUPERUSER = "postgres"
USER_KEYS = ("name", "password", "attributes", "connection_limit")
Variables = Mapping[str, Any]


def problems(groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables]) -> Iterator[str]:
    """What is wrong with what an inventory says of the database."""
    hosts = groups.get("postgresql", ())
    if len(hosts) > 1:
        yield f"postgresql: expected at most one host in the group, got {', '.join(hosts)}"
    if len(hosts) != 1:
        return
    (host,) = hosts
    mine = variables[host]
    others = {each for role in MEMBERS for each in groups.get(role, ())} - {host}
    if mine.get("fleet_scope") == "user" and others:
        yield (
            f"{host}: postgresql: expected a fleet on one host, because the database of scope user has no TLS and stays on loopback,"
            f" got {', '.join(sorted(others)[:3])} beside it; use scope: system"
        )
    if mine.get("fleet_scope") == "user":
        yield from (f"{host}: {text}" for text in database_embedded.problems(mine))
    for key, plain in (("postgresql_databases", DATABASE_KEYS), ("postgresql_users", USER_KEYS)):
        yield from (f"{host}: {text}" for text in _entries_problems(key, mine.get(key) or [], plain))
    given = {str(each.get("name")): each["password"] for each in mine.get("postgresql_users") or [] if _has_password(each)}
    client = str(mine.get("postgresql_user") or mine.get("fleet_name"))
    yield from (
        f"{host}: {text}" for text in (*passwords.problems(given, client), *issuing.settings_problems(mine), *database_files.problems(mine))
    )
    for key in ("postgresql_user", "fleet_name"):
        name = mine.get(key)
        if name is not None and not _good(str(name)):
            yield f"{host}: {key}: expected the name of a database account, got {name!r}"


def _entries_problems(key: str, entries: Sequence[Any], known: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        where = f"{key}[{number}]"
        if not isinstance(entry, (str, Mapping)):
            yield f"{where}: expected a name, or a mapping of {', '.join(known)}, got {entry!r}"
            continue
        fields = {"name": entry} if isinstance(entry, str) else entry
        for unknown in sorted(set(fields) - set(known)):
            yield f"{where}.{unknown}: unknown key; expected one of {', '.join(known)}"
        name = str(fields.get("name", ""))
        if not _good(name):
            yield f"{where}: expected a name of letters, digits and _.- that PostgreSQL does not use itself, got {name!r}"
        owner = fields.get("owner")
        if owner is not None and owner != SUPERUSER and not _good(str(owner)):
            yield f"{where}.owner: expected the name of an account, got {owner!r}"
        for field in LISTS:
            value = fields.get(field) or []
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                yield f"{where}.{field}: expected a list of names, got {value!r}"
        if name in seen:
            yield f"{where}: expected each name once, got {name} twice"
        seen.add(name)


def _has_password(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "password" in entry


def _good(name: str) -> bool:
    return bool(IDENTIFIER.fullmatch(name)) and name not in RESERVED and not name.startswith("pg_")


def describe(
    groups: Mapping[str, Sequence[str]], variables: Mapping[str, Variables], name: str, scope: str, plan: PortPlan
) -> dict[str, Any] | None:
    """The database as roles and templates see it, without passwords; None when the fleet has none.

    :param name: the fleet's.
    :param plan: the fleet's ports, for scope ``user``.
    """
    hosts = groups.get("postgresql", ())
    if not hosts:
        return None
    (host,) = hosts
    mine = variables[host]
    user = str(mine.get("postgresql_user") or name)
    databases = [_database(each, user) for each in mine.get("postgresql_databases") or [name]]
    users = [_user(each) for each in mine.get("postgresql_users") or []]
    wanted = dict.fromkeys([user, *(each["owner"] for each in databases if each["owner"] != SUPERUSER)])
    known = {each["name"] for each in users}
    users = [{"name": each} for each in wanted if each not in known] + users
    alone = scope == "user" or {each for role in MEMBERS for each in groups.get(role, ())} == {host}
    return {
        "host": host,
        "location": _location(host, mine),
        "hostaddr": "127.0.0.1" if alone else _address(str(mine.get("ansible_host") or "")),
        "port": plan.database if scope == "user" else int(mine.get("postgresql_port") or 5432),
        "cluster": str(mine.get("postgresql_cluster") or "main"),
        "version": str(mine.get("postgresql_version") or ""),
        "user": user,
        "databases": databases,
        "users": users,
        "listen": [str(each) for each in mine.get("postgresql_listen_addresses") or (["localhost"] if alone else ["*"])],
        "clients": [],
        "client_certificates": bool(mine.get("postgresql_client_certificates")),
        "tls": scope == "system",
        "binaries": str(mine.get("postgresql_binaries") or "auto") if scope == "user" else "installed",
    }


def _database(entry: str | Mapping[str, Any], user: str) -> dict[str, Any]:
    fields: Mapping[str, Any] = {"name": entry} if isinstance(entry, str) else entry
    lists = {key: [str(each) for each in fields.get(key) or []] for key in LISTS}
    return {"name": str(fields["name"]), "owner": str(fields.get("owner") or user), "owner_set": bool(fields.get("owner")), **lists}


def _user(entry: str | Mapping[str, Any]) -> dict[str, Any]:
    fields: Mapping[str, Any] = {"name": entry} if isinstance(entry, str) else entry
    return {key: fields[key] for key in USER_KEYS if key in fields and key != "password"}


def given_passwords(variables: Variables) -> dict[str, str]:
    """Passwords that the operator has set, by account."""
    entries = [each for each in variables.get("postgresql_users") or [] if isinstance(each, Mapping)]
    return {str(each["name"]): str(each["password"]) for each in entries if each.get("password")}


def seen_by_clients(fleet: Mapping[str, Any]) -> dict[str, Any] | None:
    """What engines and notebooks are to find of the database; None when the fleet has none."""
    database = fleet["postgresql"]
    return {"tls": database["tls"], "services": [each["name"] for each in database["databases"]]} if database else None


def clients_of(fleet: Mapping[str, Any], addresses: Mapping[str, str]) -> list[dict[str, str]]:
    """Hosts of the fleet that may connect, each with the address that its connections come from.

    :param addresses: what is known of hosts, from now or from an earlier run.
    """
    database = fleet["postgresql"]
    found = []
    for host in fleet["hosts"]:
        if host == database["host"]:
            found += [{"host": host, "address": address} for address in ("127.0.0.1", "::1")]
        if addresses.get(host):
            found.append({"host": host, "address": addresses[host]})
    return found


def unknown_clients(fleet: Mapping[str, Any]) -> list[str]:
    """Hosts of the fleet that should be let in, and cannot, because their address is not known."""
    known = {each["host"] for each in fleet["postgresql"]["clients"]}
    return [host for host, each in fleet["hosts"].items() if set(DATABASE_CLIENTS) & set(each["roles"]) and host not in known]


def _location(host: str, variables: Variables) -> str:
    """The name that clients verify: as set, else the one by which the host is reached, else its name in the inventory."""
    reached = str(variables.get("ansible_host") or "")
    return str(variables.get("postgresql_location") or (reached if reached and not _address(reached) else host))


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
