# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way into a fleet from outside: the host that an ssh tunnel leads to, and what it goes on to from there."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import DATABASE_CLIENTS

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("*", "0.0.0.0", "::")


def targets_from(fleet: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Where the controller and the database are, as seen from a host of the fleet.

    :returns: ``controller`` with its address and the clients' ports by name; ``postgresql`` with its address
        and port, where the fleet has one that lets this host in.
    """
    found: dict[str, Any] = {"controller": [_controller(fleet, host), dict(fleet["ports"]["client"])]}
    database = fleet["postgresql"]
    if database and (host == database["host"] or set(DATABASE_CLIENTS) & set(fleet["hosts"][host]["roles"])):
        found["postgresql"] = [_database(database, host), database["port"]]
    return found


def way_of(fleet: Mapping[str, Any]) -> dict[str, Any]:
    """The way into a fleet: through the host of JupyterLab, or else of the controller.

    :returns: ``host``; ``targets``, as seen from there; ``tunnel_user``, the account that may do nothing else, if
        there is one; ``client``, whether users of that host are clients of the fleet by themselves.
    """
    notebook = fleet["jupyterlab"]
    host = notebook["host"] if notebook else fleet["controller"]
    return {
        "host": host,
        "targets": notebook["targets"] if notebook else targets_from(fleet, host),
        "tunnel_user": notebook["tunnel_user"] if notebook else "",
        "client": "ipp_client" in fleet["hosts"][host]["roles"],
    }


def _controller(fleet: Mapping[str, Any], host: str) -> str:
    if host != fleet["controller"]:
        return str(fleet["location"])
    return _from_itself(fleet["bind"])


def _database(database: Mapping[str, Any], host: str) -> str:
    if host == database["host"]:
        addresses = [_from_itself(each) for each in database["listen"]]
        if here := sorted(filter(_is_loopback, addresses), key=lambda each: each != LOOPBACK):
            return here[0]
    return str(database["hostaddr"] or database["location"])


def _from_itself(address: str) -> str:
    """Where a host reaches what listens there on the host itself."""
    return LOOPBACK if address in EVERYWHERE or address == "localhost" else address


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
