# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory plugin: the engines of a running controller become hosts, groups and variables."""

from __future__ import annotations

DOCUMENTATION = r"""
name: engines
short_description: The engines that a running ipyparallel controller has now
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Reads a file whose name ends in C(.engines.yml) or C(.engines.yaml), asks the controller that it names, and makes an
    inventory of what that lists.
  - There is one host for each machine, as the fleet calls it or else as it calls itself. Its variables are C(engines), a list
    with C(id), C(state), C(queue), C(tasks), C(completed), C(hostname), C(pid), C(python) and C(slot) of each engine;
    C(engine_ids); C(engine_missing_ids), the ids of wanted slots without an engine; and C(engine_counts), numbers of C(all), C(idle),
    C(busy), C(silent), C(guests), C(missing) and C(unplaced).
  - The groups are C(engines), and C(engines_idle), C(engines_busy), C(engines_silent), C(engines_guests), C(engines_missing) and
    C(engines_unplaced) with the hosts whose count of that is not 0. All of them always exist.
  - Nothing is disturbed. The controller says what an engine has to do; only one that has nothing is asked for its host name,
    process and Python, and has C(engine_timeout) to answer. One that does not is C(silent); code that was sent by a broadcast view, which
    the controller does not count, may be the reason.
  - With a fleet, a busy engine's host is known by its slot. Else one that cannot be asked has a host of its own,
    C(engine-ID), in the group C(engines_unplaced); so has one whose machine calls itself C(localhost), or like a group.
  - A controller that does not answer ends the run; there is no empty inventory of a dead controller.
notes:
  - It needs ipyparallel in the Python that Ansible runs with.
  - What an engine says of itself is the word of whoever has started it.
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description: Says that the file is for this plugin. C(engines) works where this plugin is on the path.
    required: true
    choices: [engines, ipyfleet.cluster.engines]
  fleet:
    description:
      - The fleet file of the controller, or another inventory of a fleet. The connection is made of it and of the fleet's keys as
        a deployment makes it. Hosts that are wanted are there even if they have no engine, and know how Ansible reaches them.
      - Where the controller cannot be reached, ssh to its host is tried, as Ansible would log in there.
      - Without this, O(connection_file) and O(profile), it is the fleet that stands before this file in the same run.
    type: path
  connection_file:
    description: A client's connection file, such as C(playbooks/client.yml -e client_file=PATH) makes.
    type: path
  profile:
    description: Profile of IPython's that has a client's connection file, as in C(ipyparallel.Client(profile=NAME)).
    type: str
  timeout:
    description: Seconds that the controller has to answer.
    type: float
    default: 10
  engine_timeout:
    description: Seconds that idle engines have to answer, together.
    type: float
    default: 5
"""

EXAMPLES = r"""
# lab.engines.yml, beside the fleet file: ansible -i lab.engines.yml engines_idle -m ansible.builtin.command -a uptime
plugin: engines
fleet: lab.fleet.yml

---
# the fleet that stands before: ansible-inventory -i lab.fleet.yml -i live.engines.yml --graph
plugin: engines

---
# any controller whose client one is
plugin: engines
connection_file: ~/lab-client.json

---
# groups of one's own
plugin: engines
profile: lab
groups:
  reserve: engine_counts.idle >= 2
keyed_groups:
  - {key: engines | map(attribute='python') | select | list, prefix: python}

---
# asked once in a minute at most
plugin: engines
fleet: lab.fleet.yml
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ipyfleet/engines
cache_timeout: 60
"""

import os
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.display import Display
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.engine_hosts import GROUPS, groups_of, hosts_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.engines_client import (
    ControllerError,
    engines_somehow,
    profile_file,
    read_connection,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.engines_file import WAYS, Source, read_source
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_client import FleetError, KnownFleet, is_reading, know_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import FleetFileError
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.inventory_files import read_yaml, refuse

SUFFIXES = (".engines.yml", ".engines.yaml")
display = Display()


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Glue between a controller's list and Ansible's inventory."""

    NAME = "ipyfleet.cluster.engines"
    # The file is the operator's own; what engines say of themselves is let through only where it is no template.
    trusted_by_default = True

    def verify_file(self, path: str) -> bool:
        """Whether the name of `path` is one for this plugin."""
        if path.endswith(SUFFIXES) and not os.path.exists(path):
            refuse(path, [f"{path}: expected a file of the inventory plugin engines, got no such file"])
        if not super().verify_file(path):
            return False
        if path.endswith(SUFFIXES):
            return True
        display.vvv(f"{path}: not for the plugin engines, its name does not end in {' or '.join(SUFFIXES)}")
        return False

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Ask the controller that the file `path` names, and read its engines into `inventory`."""
        super().parse(inventory, loader, path, cache)
        if is_reading():
            return
        data, where = read_yaml(path, loader)
        try:
            source = read_source(data, path, where)
        except FleetFileError as error:
            refuse(path, [str(problem) for problem in error.problems])
        here = f"{path}:{where.line((source.way or 'plugin',))}: {source.way or 'plugin'}"
        try:
            self.set_options(direct=data)
            fleet = self._fleet(source)
            engines = self._engines(source, fleet, path, cache)
            self._populate(engines, fleet)
        except (FleetError, ControllerError) as error:
            refuse(path, [f"{here}: {line}" for line in str(error).splitlines()])
        except AnsibleError as error:
            refuse(path, [f"{path}:1: {error.message}"])

    def _fleet(self, source: Source) -> KnownFleet | None:
        """The fleet that the engines are compared with; None when the file names something else."""
        if source.way in ("connection_file", "profile"):
            return None
        if source.way == "fleet":
            return know_fleet([source.value], self.loader)
        if not self.inventory.groups.get("ipp_controller"):
            raise FleetError(f"expected one of the keys {', '.join(WAYS)}, or a fleet in a source before this one, got neither")
        sources = (context.CLIARGS or {}).get("inventory") or [self.inventory.groups["all"].vars["fleet_file"]]
        return know_fleet(sources, self.loader)

    def _engines(self, source: Source, fleet: KnownFleet | None, path: str, cache: bool) -> list[dict[str, Any]]:
        """What the controller lists, or what it did when that was kept."""
        kept = bool(self.get_option("cache"))
        key = self.get_cache_key(path)
        if kept:
            self.load_cache_plugin()
            if cache and key in self._cache:
                return list(self._cache[key])
        info = fleet.connection if fleet else connection_of(source)
        engines = engines_somehow(info, fleet.controller if fleet else None, source.timeout, source.engine_timeout)
        if kept:
            self._cache[key] = engines
        return engines

    def _populate(self, engines: list[dict[str, Any]], fleet: KnownFleet | None) -> None:
        before = set(self.inventory.hosts)
        hosts = hosts_of(engines, fleet.slots if fleet else {}, before, set(self.inventory.groups))
        for group in GROUPS:
            self.inventory.add_group(group)
        for host, variables in hosts.items():
            self.inventory.add_host(host)
            reach = fleet.reach.get(host, {}) if fleet and host not in before else {}
            for name, value in {**reach, **variables}.items():
                self.inventory.set_variable(host, name, value)
            for group in groups_of(variables):
                self.inventory.add_host(host, group=group)
            self._construct(host)

    def _construct(self, host: str) -> None:
        strict = self.get_option("strict")
        variables = self.inventory.hosts[host].get_vars()
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)


def connection_of(source: Source) -> dict[str, Any]:
    """Content of the connection file that a source names."""
    return read_connection(profile_file(source.value) if source.way == "profile" else Path(source.value))
