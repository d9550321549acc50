# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What proves the database's clients to it, and it to them: passwords, authority, client certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import request, root
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.certificates import CertificateProblem
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database import given_passwords
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import DATABASE_CLIENTS
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.issuing import authority_for, certificate_for, validity
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore, StoreError

Variables = Mapping[str, Any]


def create_secrets(store: SecretStore, fleet: Variables, variables: Variables) -> None:
    """Make what is not there yet, for all hosts.

    :param variables: of the database's host.
    :raises StoreError: when something cannot be read, or kept.
    """
    for host in fleet["hosts"]:
        secrets_for(store, fleet, host, variables, dry=False)


def secrets_for(store: SecretStore, fleet: Variables, host: str, variables: Variables, dry: bool = True) -> dict[str, Any]:
    """What templates need to know of the database for a host of the fleet; nothing when there is no database.

    :param variables: of the database's host.
    :param dry: keep nothing; what is not there yet is made up.
    :raises StoreError: when something cannot be read, or kept.
    """
    database = fleet["postgresql"]
    if not database:
        return {}
    names = [user["name"] for user in database["users"]]
    found: dict[str, Any] = {"passwords": store.create_passwords(names, given_passwords(variables), dry)}
    if database["tls"]:
        now = datetime.now(UTC)
        days, before = validity(variables)
        found["ca"] = root(authority_for(store, fleet["name"], days, now, dry)).strip()
        if database["client_certificates"] and set(fleet["hosts"][host]["roles"]) & set(DATABASE_CLIENTS):
            name = f"client {host}"
            try:
                wanted = request("client", database["user"], [], days, before)
            except CertificateProblem as problem:
                raise StoreError(f"{name}: {problem}") from problem
            found["client"] = asdict(certificate_for(store, fleet["name"], name, wanted, now, dry).pair)
    return found
