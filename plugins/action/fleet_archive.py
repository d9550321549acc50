# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: build the archives that hosts are about to need. Control node only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import builder
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.environment import EnvironmentProblem, Platform
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import Locks, lock_key


class ActionModule(ActionBase):
    """Builds each archive once, whatever the number of hosts that get it."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("fleet", "hosts"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `archives`, by host, for those of `hosts` whose environment is to change."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        fleet = self._task.args["fleet"]
        archives: dict[str, Any] = {}
        built: dict[tuple[Any, ...], Any] = {}
        for host in self._task.args["hosts"]:
            source = variables["hostvars"][host]
            look = source["__ipp_node_look"]
            key = lock_key(fleet["hosts"][host])
            if look["lock"] == fleet["locks"][key] and not look["facts"]["needs_environment"]:
                continue
            from_index = source.get("ipp_node_packages_from", variables["ipp_node_packages_from"]) == "index"
            platform = platform_of(look["facts"])
            if (key, platform, from_index) not in built and not self._task.check_mode:
                try:
                    text = Locks(fleet["secrets_dir"], builder()).text(key, platform.python)
                    built[key, platform, from_index] = asdict(builder().build(text, platform, from_index))
                except EnvironmentProblem as problem:
                    return result | {"failed": True, "msg": f"{problem}\nnothing was changed on any host"}
            archives[host] = built.get((key, platform, from_index))
        return result | {"archives": archives}


def platform_of(facts: dict[str, Any]) -> Platform:
    """What an archive for a host has to be for."""
    libc = f"{facts['libc']} {facts['libc_version']}".strip()
    return Platform(facts["python"], facts["machine"], libc, facts["system"])
