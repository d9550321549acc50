# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: have the module of the same name run on the controller's host, with the fleet's own Python."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import HostAction
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database import seen_by_clients
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import NO_PYTHON, explain, unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.jumps import reason
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import nothing_answered, slots_of

NOT_DEPLOYED = "expected the fleet's Python on its host, got none; the controller was never deployed there: run site.yml without --limit"


class ActionModule(HostAction):
    """Knows where the fleet's environment and connection file are, whatever the scope.

    The task is delegated to the controller's host, which need not be within the run's limit.
    """

    _VALID_ARGS = frozenset(("fleet", "timeout", "probe"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Verify the slots of `fleet`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        fleet = self._task.args["fleet"]
        variables = task_vars or {}
        looks = {host: variables["hostvars"][host].get("__ipp_node_look", {}) for host in fleet["hosts"]}
        # nobody waits for the engines of a host that is known to be down
        slots = [{**slot, "away": bool(looks[slot["host"]].get("unreachable"))} for slot in slots_of(fleet)]
        try:
            done = self.ask(fleet, slots, variables)
        except AnsibleConnectionFailure as error:
            return result | nothing_answered(slots, f"its host is unreachable: {unreached(reason(self._connection, error.message))}")
        if done.get("failed"):
            problem = explain(done)
            # it runs with the fleet's own Python
            return result | nothing_answered(slots, NOT_DEPLOYED if problem == NO_PYTHON else problem)
        return result | done

    def ask(self, fleet: dict[str, Any], slots: list[dict[str, Any]], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module on the controller's host."""
        there = variables["hostvars"][fleet["controller"]]
        variables = variables | ({"ipp_node_user": there["ipp_node_user"]} if "ipp_node_user" in there else {})
        self.enter(variables)
        arguments = {
            "connection_file": self.places["security"] + "/ipcontroller-client.json",
            "user": self.places["service"] if fleet["scope"] == "system" else "",
            "slots": slots,
            # those beyond the run's limit too: they are no guests
            "slot_ids": [slot["id"] for each in fleet["hosts"].values() for slot in each["slots"]],
            "timeout": self._task.args["timeout"],
            "probe": self._task.args["probe"],
            "database": seen_by_clients(fleet),
        }
        return self.by_fleets_python(arguments, variables)
