# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: have the module of the same name run on JupyterLab's host, with the fleet's own Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import HostAction
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database import seen_by_clients
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import NO_PYTHON, explain, unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.jumps import reason

NOT_DEPLOYED = "expected the fleet's Python on its host, got none; it was never deployed there: run site.yml for its host"


class ActionModule(HostAction):
    """Knows where JupyterLab is, whatever the scope. Its task is delegated there."""

    _VALID_ARGS = frozenset(("fleet", "probe", "timeout"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the cell, unless the fleet's limit or an earlier look says that its host is out of reach."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        fleet, variables = self._task.args["fleet"], task_vars or {}
        look = variables["hostvars"][fleet["jupyterlab"]["host"]].get("__ipp_node_look", {})
        if beyond := out_of_reach(fleet, look):
            return result | beyond
        try:
            done = self.ask(fleet, variables)
        except AnsibleConnectionFailure as error:
            return result | failed(f"its host is unreachable: {unreached(reason(self._connection, error.message))}")
        if done.get("failed"):
            problem = explain(done)
            # it runs with the fleet's own Python
            return result | failed(NOT_DEPLOYED if problem == NO_PYTHON else problem)
        return result | done

    def ask(self, fleet: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module."""
        self.enter(variables)
        arguments = {
            "name": fleet["name"],
            "scope": fleet["scope"],
            "root": self.places["root"],
            "run": self.places["lab_run"],
            "port": fleet["jupyterlab"]["port"],
            "token_file": self.places["lab"] + "/token",
            "user": fleet["jupyterlab"]["user"],
            "probe": self._task.args["probe"],
            "timeout": self._task.args["timeout"],
            "database": seen_by_clients(fleet),
        }
        return self.by_fleets_python(arguments, variables)


def out_of_reach(fleet: Mapping[str, Any], look: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is said when JupyterLab's host cannot be asked; None when it can.

    :param look: what came of the run's earlier look at the host; empty when there was none.
    """
    if fleet["jupyterlab"]["host"] not in fleet["asked"]:
        return {"state": "unknown", "reason": "not asked; its host is not within the limit"}
    return failed(f"its host is unreachable: {look['msg']}") if look.get("unreachable") else None


def failed(reason: str) -> dict[str, Any]:
    """What is said when the cell could not be tried."""
    return {"state": "failed", "reason": reason}
