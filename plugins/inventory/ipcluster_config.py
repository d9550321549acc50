# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Inventory plugin: an existing ipcluster_config.py becomes a fleet's hosts, groups and variables."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ipcluster_config
short_description: A fleet from an existing ipcluster_config.py
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Reads a file whose name ends in C(ipcluster_config.py), with C(ipcontroller_config.py) and
    C(ipengine_config.py) beside it, and makes the inventory of them that a fleet file would make.
  - The files are parsed and never executed. What only running them would tell is not guessed - the
    setting is left out, and counted in a warning; C(-v) shows each, and so does C(ipyfleet import).
  - Names of every release are read, from C(HubFactory.ip) and C(IPClusterEngines.engine_launcher) to
    C(IPController.ip) and C(Cluster.engine_launcher_class).
  - What these files cannot say stands in a file whose name ends in C(.ipcluster.yml), which names them
    by O(path) and may have every key of a fleet file beside it, see the plugin P(ipyfleet.cluster.fleet#inventory).
    Entries of C(engines), C(hosts), C(defaults) and C(controller) are added to those of the
    configuration, or replace them; other keys replace what was found.
notes:
  - The fleet is called as the profile is, C(ssh) in C(profile_ssh); its controller is on C(localhost), the
    machine where C(ipcluster) was run, unless the launcher of the controller names a host.
  - Values of the Python files are no templates.
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: Says that a C(.ipcluster.yml) is one. C(ipcluster_config) works where this plugin is on the path.
    choices: [ipcluster_config, ipyfleet.cluster.ipcluster_config]
  path:
    description: The C(ipcluster_config.py), or the folder of its profile; seen from the folder of the C(.ipcluster.yml).
    type: path
"""

EXAMPLES = r"""
# the file as it is:  ansible-playbook -i ~/.ipython/profile_ssh/ipcluster_config.py site.yml

# lab.ipcluster.yml: where the file is, and what it cannot say
plugin: ipcluster_config
path: ~/.ipython/profile_ssh
name: lab
controller: {location: head.lab.example}
python_packages: [numpy, pandas]

---
# another controller, one host more, and how to log in
plugin: ipcluster_config
path: profile_ssh/ipcluster_config.py
controller: head
engines: {node9: 4}
defaults: {ansible_user: ops}
hosts:
  head: {ansible_host: 10.0.0.5}
"""

import os
from typing import Any

from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.utils.display import Display
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_files
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_settings import Place
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import TOP, FleetFileError
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import shown
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.inventory import FleetInventory
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.inventory_files import read_yaml, refuse
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ipcluster_notes import Conversion
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.names import nearest

SUFFIXES = (".ipcluster.yml", ".ipcluster.yaml")
NAMES = ("ipcluster_config", "ipyfleet.cluster.ipcluster_config")
display = Display()


class InventoryModule(FleetInventory):
    """Glue between ipyparallel's configuration files and Ansible's inventory."""

    NAME = "ipyfleet.cluster.ipcluster_config"
    # a configuration in Python knows nothing of templates; a YAML file beside it is loaded as one that may have them
    trusted_by_default = False

    def verify_file(self, path: str) -> bool:
        """Whether the name of `path` is that of a configuration, or of a YAML file that leads to one."""
        ours = path.endswith((ipcluster_files.CLUSTER, *SUFFIXES))
        if ours and not os.path.exists(path):
            refuse(path, [f"{path}: expected a configuration of ipcluster, got no such file"])
        return ours and bool(super().verify_file(path))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Read the configuration `path` into `inventory`."""
        super().parse(inventory, loader, path, cache)
        file = path
        given: dict[str, Any] = {}
        origins: dict[tuple[str, ...], Place] = {}
        if path.endswith(SUFFIXES):
            file, given, origins = self._given(path)
        try:
            fleet, found = ipcluster_files.read(file, given, origins)
        except FleetFileError as error:
            refuse(path, [str(problem) for problem in error.problems])
        self.fill(fleet, given, path)
        self._tell(file, found)

    def _given(self, path: str) -> tuple[str, dict[str, Any], dict[tuple[str, ...], Place]]:
        """The file that a YAML file leads to, its other keys, and where they stand."""
        data, where = read_yaml(path, self.loader)
        if not isinstance(data, dict):
            refuse(path, [f"{path}:1: expected a mapping of keys such as `plugin` and `path`, got {shown(data)}"])
        problems = [(line, f"{'.'.join(key)}: stands twice, on lines {first} and {line}") for key, first, line in where.duplicates]
        for key in data:
            if str(key) not in (*TOP, "path"):
                near = nearest(str(key), (*TOP, "path"))
                problems.append((where.line((str(key),)), f"{key}: unknown key" + (f"; did you mean `{near}`?" if near else "")))
        if data.get("plugin") not in NAMES:
            problems.append((where.line(("plugin",)), f"plugin: expected `{NAMES[0]}`, got {shown(data.get('plugin'))}"))
        if not isinstance(data.get("path"), str):
            text = f"path: expected the path of an {ipcluster_files.CLUSTER}, got {shown(data.get('path'))}"
            problems.append((where.line(("path",)), text))
        if problems:
            refuse(path, [f"{path}:{line}: {text}" for line, text in sorted(problems)])
        given = {str(key): value for key, value in data.items() if key not in ("plugin", "path")}
        name = os.path.basename(path).removesuffix(SUFFIXES[1]).removesuffix(SUFFIXES[0])
        file = os.path.join(os.path.dirname(path), os.path.expanduser(data["path"]))
        return file, {"name": name, **given}, {key: Place(path, line) for key, line in where.lines.items()}

    def _tell(self, file: str, found: Conversion) -> None:
        """Say what is not carried over: how much, and with -v what."""
        for note in found.left:
            display.v(f"not carried over: {note}")
        if found.left:
            count = f"{len(found.left)} setting{'s are' if len(found.left) > 1 else ' is'}"
            display.warning(f"{file}: {count} not carried over; -v or `ipyfleet import` says which, and what is there instead")
