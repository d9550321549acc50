# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What inventory plugins have in common whose source describes one fleet."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible.template import trust_as_template
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import Fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.inventory_files import refuse


class FleetInventory(BaseInventoryPlugin, Constructable):
    """Puts a fleet into Ansible's inventory, or ends the run with what is wrong with it."""

    def fill(self, fleet: Fleet, options: dict[str, Any], path: str) -> None:
        """Put `fleet` into the inventory.

        :param options: the plugin's options, those for constructed groups and variables among them.
        """
        other = self.inventory.groups["all"].vars.get("fleet_file", path)
        if other != path:
            refuse(path, [f"{path}:1: name: expected one fleet in a run, got `{fleet.name}` beside that of {other}"])
        try:
            self.set_options(direct=options)
            self._populate(fleet, path)
            self._construct()
        except AnsibleError as error:
            refuse(path, [f"{path}:1: {error.message}"])

    def _populate(self, fleet: Fleet, path: str) -> None:
        for key, value in {"fleet_file": path, **fleet.all_vars}.items():
            self.inventory.set_variable("all", key, value)
        for group, hosts in fleet.groups.items():
            self.inventory.add_group(group)
            for host in hosts:
                self.inventory.add_host(host, group=group)
        for host, variables in fleet.host_vars.items():
            here = local_connection() if host == "localhost" else {}
            for key, value in {**here, **variables}.items():
                self.inventory.set_variable(host, key, value)

    def _construct(self) -> None:
        strict = self.get_option("strict")
        for host in list(self.inventory.hosts):
            variables = {**self.inventory.groups["all"].get_vars(), **self.inventory.hosts[host].get_vars()}
            self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)


def local_connection() -> dict[str, str]:
    """What makes an explicit `localhost` behave like Ansible's implicit one."""
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": trust_as_template("{{ ansible_playbook_python }}"),
    }
