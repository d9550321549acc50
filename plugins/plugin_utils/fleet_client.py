# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet as its inventory and its keys describe it, for what is no playbook: by the actions that playbooks use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins.loader import action_loader, connection_loader
from ansible.template import Templar
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import ROOT, store
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.client_files import CONNECTION
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import CONNECTION_VARS
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import reach_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import StoreError

ROLES = ("ipp_node", "ipp_controller", "ipp_engine", "ipp_client", "jupyterlab", "postgresql", "fleet_ca")


class FleetError(Exception):
    """The fleet cannot be understood, or was never deployed from here; the message has a line for each reason."""


@dataclass(frozen=True)
class KnownFleet:
    """A fleet, and how its controller is reached.

    :param name: its name.
    :param connection: content of a client's connection file.
    :param slots: host and number of each slot, by engine id.
    :param reach: by host, the variables that say how Ansible gets there.
    :param controller: the controller's host, and how ssh gets there: the same variables' values, without their prefix.
    """

    name: str
    connection: dict[str, Any]
    slots: dict[int, tuple[str, int]]
    reach: dict[str, dict[str, Any]]
    controller: tuple[str, dict[str, Any]]


_reading = False


def is_reading() -> bool:
    """Whether a fleet is just being read: a source among others that needs one has nothing to say then."""
    return _reading


def read_inventory(sources: Sequence[str], loader: DataLoader) -> InventoryManager:
    """Read the inventory of a fleet."""
    global _reading
    _reading = True
    try:
        return InventoryManager(loader=loader, sources=list(sources))
    finally:
        _reading = False


def know_fleet(sources: Sequence[str], loader: DataLoader) -> KnownFleet:
    """Read a fleet's inventory, and make the connection file as a deployment does.

    :param sources: a fleet file, or other inventories of a fleet.
    :param loader: reads files, and decrypts them.
    :raises FleetError: when the fleet is not as it should be, or has no keys.
    """
    manager = read_inventory(sources, loader)
    groups = manager.get_groups_dict()
    if not groups.get("ipp_controller"):
        raise FleetError(f"expected a fleet, got {', '.join(sources)}, with no host in the group ipp_controller")
    variable_manager = VariableManager(loader=loader, inventory=manager)
    controller = groups["ipp_controller"][0]
    hostvars = HostVars(manager, variable_manager, loader)
    variables = {
        **_of_roles("defaults", loader),
        **variable_manager.get_vars(host=manager.get_host(controller)),
        **_of_roles("vars", loader),
        "groups": groups,
        "hostvars": hostvars,
        # of templates; those of all roles are beside each other
        "role_path": str(ROOT / "roles" / "ipp_controller"),
    }
    done = _action("fleet_prepare", {"stage": "wanted"}, variables, loader).run(task_vars=variables)
    if done.get("failed"):
        lines = str(done["msg"]).splitlines()
        raise FleetError("\n".join(lines[:-1] if lines[-1].endswith("; nothing was changed") else lines))
    fleet = done["fleet"]
    try:
        if not store(fleet["secrets_dir"], loader.get_text_file_contents).secrets():
            raise FleetError(f"fleet {fleet['name']}: expected its keys in {fleet['secrets_dir']}, got none; deploy it first")
        texts = _action("fleet_host", {"phase": "client", "fleet": fleet}, variables, loader).client_texts(fleet, variables)
    except StoreError as error:
        raise FleetError(str(error)) from error
    slots = {slot["id"]: (host, slot["number"]) for host, each in fleet["hosts"].items() for slot in each["slots"]}
    known = {host: variable_manager.get_vars(host=manager.get_host(host)) for host in fleet["hosts"]}
    reach = {host: {name: found[name] for name in CONNECTION_VARS if name in found} for host, found in known.items()}
    return KnownFleet(fleet["name"], json.loads(texts[CONNECTION]), slots, reach, (controller, reach_of(hostvars[controller])))


def _of_roles(kind: str, loader: DataLoader) -> dict[str, Any]:
    """Defaults or vars of all roles, as `declare` of ipp_node makes them known."""
    found: dict[str, Any] = {}
    for role in ROLES:
        path = ROOT / "roles" / role / kind / "main.yml"
        found |= (loader.load_from_file(str(path), trusted_as_template=True) or {}) if path.exists() else {}
    return found


def _action(name: str, arguments: dict[str, Any], variables: dict[str, Any], loader: DataLoader) -> Any:
    """An action of the collection's, with the arguments of a task."""
    context = PlayContext()
    return action_loader.get(
        f"ipyfleet.cluster.{name}",
        task=Task.load({f"ipyfleet.cluster.{name}": arguments}),
        connection=connection_loader.get("ansible.builtin.local", context),
        play_context=context,
        loader=loader,
        templar=Templar(loader, variables=variables),
        shared_loader_obj=None,
    )
