# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: have the module of the same name look at a host, and compare the clocks."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import HostAction
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database import seen_by_clients
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import explain, unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.jumps import reason
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.places import fill


class ActionModule(HostAction):
    """Knows what the host should have, whatever the scope. Never fails: what is wrong is told by the report."""

    _VALID_ARGS = frozenset(("fleet",))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look at the task's host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = dict(task_vars or {})
        try:
            arguments = self.arguments(variables)
            before = time.time()
            done = dict(self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=variables))
            after = time.time()
        except AnsibleConnectionFailure as error:
            return result | {"problem": unreached(reason(self._connection, error.message))}
        if done.get("unreachable"):
            return result | {"problem": unreached(str(done.get("msg", "")))}
        if done.get("failed"):
            return result | {"problem": explain(done)}
        return result | done | {"clock": [done.pop("end") - after, done.pop("begin") - before]}

    def cleanup(self, force: bool = False) -> None:
        """Leave a host alone that went away; what happened is told already."""
        with contextlib.suppress(AnsibleConnectionFailure):
            super().cleanup(force)

    def arguments(self, variables: dict[str, Any]) -> dict[str, Any]:
        """What the module is to look at on the task's host."""
        fleet, name = self._task.args["fleet"], variables["inventory_hostname"]
        host = fleet["hosts"][name]
        variables |= host.get("set", {}) | {"fleet": fleet, "host": host}
        self.enter(variables)
        engines = "ipp_engine" in host["roles"]
        straight = engines and name not in fleet["tunnelled"]
        ports: list[Any] = list(fleet["ports"]["engine"].values())
        keeps = engines or name == fleet["controller"]
        asks = seen_by_clients(fleet) if engines else None
        return {
            "name": fleet["name"],
            "scope": fleet["scope"],
            "paths": {key: self.places[key] for key in ("root", "etc", "state", "run")},
            "python": self.places["env"] + "/bin/python",
            "user": self.places["service"] if fleet["scope"] == "system" else "",
            "units": self.units(fleet, name),
            "location": fleet["location"] if straight else "",
            "ports": [port for each in ports for port in (each if isinstance(each, list) else [each])] if straight else [],
            "connection_file": self.places["security"] + "/ipcontroller-engine.json" if keeps else "",
            "database": asks | {"environment": fill(self.evaluate("__postgresql_environment"), self.places)} if asks else None,
        }

    def units(self, fleet: dict[str, Any], name: str) -> list[dict[str, Any]]:
        """The services of a host."""
        host = fleet["hosts"][name]
        found: list[dict[str, Any]] = [{"name": "controller"}] if name == fleet["controller"] else []
        found += [{"name": "mpi"}] if name == fleet["controller"] and fleet["launcher"] == "mpi" else []
        found += [{"name": "tunnel"}] if name in fleet["tunnelled"] else []
        if fleet["launcher"] == "service":
            found += [{"name": f"engine@{slot['number']}"} for slot in host["slots"]]
        if "jupyterlab" in host["roles"]:
            found.append({"name": "jupyterlab", "run": self.places["lab_run"]})
        if "postgresql" in host["roles"]:
            found.append({"name": "postgresql"})
        return found
