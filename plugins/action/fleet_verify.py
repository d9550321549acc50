# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: have the module of the same name run with the fleet's own Python."""

from __future__ import annotations

from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import HostAction
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import explain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import slots_of


class ActionModule(HostAction):
    """Knows where the fleet's environment and connection file are, whatever the scope."""

    _VALID_ARGS = frozenset(("fleet", "timeout", "probe"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Verify the slots of `fleet` from the task's host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        self.enter(variables)
        arguments = {
            "connection_file": self.places["security"] + "/ipcontroller-client.json",
            "user": self.places["service"] if self._task.args["fleet"]["scope"] == "system" else "",
            "slots": slots_of(self._task.args["fleet"]),
            "timeout": self._task.args["timeout"],
            "probe": self._task.args["probe"],
        }
        variables = variables | {"ansible_python_interpreter": self.places["env"] + "/bin/python"}
        done: dict[str, Any] = self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=variables)
        if done.get("failed"):
            return result | {"failed": True, "msg": explain(done)}
        return result | done
