# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory plugin: a fleet file becomes hosts, groups and variables."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: A fleet file - one ipyparallel cluster, described by its hosts
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Reads a file whose name ends in C(.fleet.yml) or C(.fleet.yaml) and makes an inventory of it.
  - The groups are C(ipp_controller), C(ipp_engine), C(ipp_client), C(postgresql) and C(jupyterlab),
    each named like the role that its hosts get. All of them always exist.
  - The whole file is checked before a host is added. Every problem is reported on one line with
    file, line and key.
notes:
  - One fleet in a run. Other inventory sources may add variables to its hosts, or hosts of their own.
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: Says that the file is a fleet file. C(fleet) works where this plugin is on the path.
    required: true
    choices: [fleet, ipyfleet.cluster.fleet]
  name:
    description:
      - Name of the fleet. Its profile, units, folders and service user are named after it, and its
        block of ports is derived from it.
      - Lower-case letters, digits and dashes, at most 20, a letter first.
    required: true
    type: str
  scope:
    description:
      - C(system) needs root on the hosts and systemd; services run as an unprivileged system user.
      - C(user) needs a login and Python; services run as the login user, under supervisord.
    choices: [system, user]
    default: system
  controller:
    description:
      - The controller's host, as C(host) or C(user@host).
      - Or a mapping of C(host), C(location) (the name or address by which engines and clients reach
        it; default is its C(ansible_host), else its name), C(ip) (the address to bind) and C(launcher)
        (C(ssh) where C(ipcluster) starts the engines, instead of services on their hosts).
    required: true
    type: raw
  engines:
    description:
      - A mapping of hosts to engine slots. Hosts may be ranges such as C(node[01:08]), or C(user@host).
      - A value is a number, C(auto) (cores less a reserve, capped by memory), or a mapping with
        C(slots), C(gpus), C(gpus_per_slot), C(gpu_variable), C(cpus), C(memory_max), C(env),
        C(user_python_packages), C(reserve_cores), C(memory_per_engine), C(args), C(location), C(tunnel),
        C(launcher); they are the variables of the role C(ipp_engine), which explains them.
    required: true
    type: dict
  clients:
    description:
      - Hosts whose login user gets the client's connection file.
      - Or mappings of C(host) and C(engines), which is true where that user may start engines of their own, too.
    type: list
    elements: raw
    default: []
  postgresql:
    description:
      - The PostgreSQL host, or a mapping of C(host) and variables of the role C(postgresql) without their
        prefix, such as C(databases), C(allow), C(port) and C(settings).
    type: raw
  jupyterlab:
    description:
      - The JupyterLab host, or a mapping of C(host) and variables of the role C(jupyterlab) without their
        prefix, such as C(data_dir), C(memory_max) and C(cluster_tab).
    type: raw
  hosts:
    description: Variables by host, such as C(ansible_host). Ranges work here too.
    type: dict
    default: {}
  defaults:
    description: Variables for all hosts.
    type: dict
    default: {}
  python_packages:
    description: Python requirements that every host of the fleet gets, beside ipyparallel.
    type: list
    elements: str
    default: []
  ports:
    description: First of the fleet's 100 TCP ports. The default is derived from the name.
    type: int
  secrets_dir:
    description: Folder of the fleet's keys. The default is C(.ipyfleet/NAME) beside the fleet file.
    type: path
"""

EXAMPLES = r"""
# the shortest: one controller, two hosts with as many engines as they can carry
plugin: fleet
name: lab
controller: head
engines:
  node1: auto
  node2: auto

---
# how to reach the hosts: any ansible_* variable, per host or for all
plugin: fleet
name: lab
controller: head
engines:
  node[01:08]: 4
hosts:
  head: {ansible_host: 10.0.0.5}
defaults: {ansible_user: ops}

---
# the hosts of a hand-written ipcluster_config.py
plugin: fleet
name: lab
controller: {host: head, location: head.lab.example}
engines:
  ops@10.0.0.11: 2
  ops@10.0.0.12: 2

---
# unlike hosts, more packages, clients
plugin: fleet
name: lab
controller: head
engines:
  big1: {slots: auto, reserve_cores: 2, memory_per_engine: 4G}
  gpu1: {slots: 2, gpus: 4, gpus_per_slot: 2, user_python_packages: [cupy-cuda12x]}
  shared1: {slots: 4, cpus: "8-15", memory_max: 8G, env: {TMPDIR: /scratch}}
clients: [head, laptop]
python_packages: [numpy, pandas]

---
# a database that engines and clients reach by create_engine("postgresql+psycopg2://")
plugin: fleet
name: lab
controller: head
engines: {"node[01:08]": 4}
clients: [head]
postgresql:
  host: db
  databases: [lab, {name: results, extensions: [pg_trgm]}]
  allow: [10.1.0.0/16]
  settings: {work_mem: 64MB}
python_packages: [pandas]

---
# two fleets on the same hosts: another name; ports follow the name, or are set
plugin: fleet
name: lab-test
controller: head
engines: {"node[01:08]": 1}
ports: 21000

---
# groups of one's own, from the hosts' variables
plugin: fleet
name: lab
controller: head
engines:
  node[01:08]: 4
  gpu[1:2]: {slots: 2, gpus: 2}
groups:
  gpu: ipp_engine_gpus | default(0) > 0
keyed_groups:
  - {key: ipp_engine_slots | string, prefix: slots}

---
# without root, on this machine
plugin: fleet
name: local
scope: user
controller: localhost
engines: {localhost: 2}
clients: [localhost]
"""

import os
from typing import Any

from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import Fleet, FleetFileError, read_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.inventory import FleetInventory
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.inventory_files import read_yaml, refuse

SUFFIXES = (".fleet.yml", ".fleet.yaml")
display = Display()


class InventoryModule(FleetInventory):
    """Glue between a fleet file and Ansible's inventory."""

    NAME = "ipyfleet.cluster.fleet"
    # Values come from the operator's own file; as with Ansible's own sources they may be templates.
    trusted_by_default = True

    def verify_file(self, path: str) -> bool:
        """Whether the name of `path` is a fleet file's."""
        if path.endswith(SUFFIXES) and not os.path.exists(path):
            refuse(path, [f"{path}: expected a fleet file, got no such file"])
        if not super().verify_file(path):
            return False
        if path.endswith(SUFFIXES):
            return True
        display.vvv(f"{path}: not a fleet file, its name does not end in {' or '.join(SUFFIXES)}")
        return False

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Read the fleet file `path` into `inventory`."""
        super().parse(inventory, loader, path, cache)
        try:
            fleet, options = self._read(path)
        except FleetFileError as error:
            refuse(path, [str(problem) for problem in error.problems])
        self.fill(fleet, options, path)

    def _read(self, path: str) -> tuple[Fleet, dict[str, Any]]:
        data, where = read_yaml(path, self.loader)
        return read_fleet(data, path, where), data or {}
