# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the database's configuration is made of: values as postgresql.conf has them, rules of access, memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import HbaError, lines_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain

ALLOW_KEYS = ("address", "databases", "users")
INSECURE = ("trust", "md5", "password", "ident", "world", "plaintext")
SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_RIGHTS = ("SUPERUSER", "CREATEROLE", "CREATEDB", "INHERIT", "LOGIN", "REPLICATION", "BYPASSRLS")
ATTRIBUTES = tuple(no + right for right in _RIGHTS for no in ("", "NO"))
PRIVILEGE_KEYS = ("database", "roles", "privs", "type", "objs", "schema", "state")
CLUSTER = re.compile(r"[a-z][a-z0-9_]*")
# a database to check entries with that are not for one yet
ANY = {"databases": [{"name": "any"}], "users": [{"name": "any"}]}
_ESCAPES = {"\\": "\\\\", "'": "''", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def value(given: object) -> str:
    """A value as postgresql.conf has it.

    :param given: text, a number, or a boolean; items of a list are joined by commas.
    :raises ValueError: when it is anything else.
    """
    found = plain(given)
    if isinstance(found, bool):
        return "on" if found else "off"
    if isinstance(found, (int, float)):
        return str(found)
    if isinstance(found, list):
        found = ", ".join(map(str, found))
    if not isinstance(found, str):
        raise ValueError(f"expected text, a number or a boolean, got {found!r}")
    return "'" + "".join(_ESCAPES.get(each, each) for each in found) + "'"


def memory(available_mb: int) -> dict[str, str]:
    """Settings for a server that has its host to itself.

    :param available_mb: memory of the host, in MiB. It is rounded down to eighths of a power of two, so that
        the little by which it differs from boot to boot changes no setting.
    """
    step = 1 << max(int(available_mb).bit_length() - 4, 4)
    base = int(available_mb) // step * step
    return {
        "shared_buffers": f"{min(max(base // 4, 16), 16384)}MB",
        "effective_cache_size": f"{max(base * 3 // 4, 32)}MB",
        "maintenance_work_mem": f"{min(max(base // 16, 16), 2048)}MB",
    }


def allowed(entries: Sequence[Any], database: Mapping[str, Any], certificates: bool = False) -> list[dict[str, Any]]:
    """Entries of `postgresql_allow` as those of `postgresql_hba`.

    :param database: the fleet's; an entry that names no databases or users is for all of its.
    :param certificates: whether clients have to show one.
    """
    options = {"clientcert": "verify-full"} if certificates else {}
    names = {key: [str(each["name"]) for each in database[key]] for key in ("databases", "users")}
    return [{**names, **_fields(entry), "options": options} for entry in entries]


def _fields(entry: Any) -> Any:
    return plain({"address": entry} if isinstance(entry, str) else entry)


def problems(variables: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the variables of the role postgresql that its configuration is made of."""
    for number, entry in enumerate(variables.get("postgresql_allow") or []):
        where = f"postgresql_allow[{number}]"
        if not isinstance(entry, (str, Mapping)):
            yield f"{where}: expected a network, a host name, or a mapping of {', '.join(ALLOW_KEYS)}, got {entry!r}"
        elif unknown := [] if isinstance(entry, str) else sorted(set(entry) - set(ALLOW_KEYS)):
            yield f"{where}.{unknown[0]}: unknown key; expected one of {', '.join(ALLOW_KEYS)}"
        else:
            yield from _refused(allowed([entry], ANY)[0], "postgresql_allow", number)
    for number, entry in enumerate(variables.get("postgresql_hba") or []):
        yield from _refused(plain(entry), "postgresql_hba", number)
    yield from _settings(variables.get("postgresql_settings") or {})
    for each in variables.get("postgresql_allow_insecure") or []:
        if each not in INSECURE:
            yield f"postgresql_allow_insecure: expected some of {', '.join(INSECURE)}, got {each}"
    yield from _accounts(variables)
    cluster = variables.get("postgresql_cluster")
    if cluster is not None and not CLUSTER.fullmatch(str(cluster)):
        yield f"postgresql_cluster: expected lower-case letters, digits and underscores, a letter first, got {cluster!r}"
    version = str(variables.get("postgresql_version") or "")
    if version and not version.isdigit():
        yield f"postgresql_version: expected a major version such as 15, got {version!r}"


def _accounts(variables: Mapping[str, Any]) -> Iterator[str]:
    for number, user in enumerate(variables.get("postgresql_users") or []):
        for attribute in user.get("attributes") or [] if isinstance(user, Mapping) else []:
            if attribute not in ATTRIBUTES:
                yield f"postgresql_users[{number}].attributes: expected some of {', '.join(ATTRIBUTES)}, got {attribute}"
    for number, privilege in enumerate(variables.get("postgresql_privileges") or []):
        where = f"postgresql_privileges[{number}]"
        missing = [key for key in PRIVILEGE_KEYS[:3] if not privilege.get(key)]
        unknown = sorted(set(privilege) - set(PRIVILEGE_KEYS))
        if unknown:
            yield f"{where}.{unknown[0]}: unknown key; expected one of {', '.join(PRIVILEGE_KEYS)}"
        elif missing:
            yield f"{where}: expected {', '.join(PRIVILEGE_KEYS[:3])}, got no {missing[0]}"


def _refused(entry: object, where: str, number: int) -> Iterator[str]:
    try:
        lines_of([entry], where)
    except HbaError as error:
        yield str(error).replace(f"{where}[0]", f"{where}[{number}]", 1)


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, given in settings.items():
        if not SETTING.fullmatch(str(name)):
            yield f"postgresql_settings: expected names of settings, got {name!r}"
            continue
        try:
            value(given)
        except ValueError as error:
            yield f"postgresql_settings.{name}: {error}"
