# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: have the module of the same name run on the controller's host, with the fleet's own Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_closing import doing
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import HostAction
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import NO_PYTHON, explain, unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.jumps import reason
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import slots_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.services import STARTERS

NOT_DEPLOYED = "expected the fleet's Python on its host, got none; deploy it first"


class ActionModule(HostAction):
    """Knows where the fleet's environment and connection file are, whatever the scope, and which slots are meant.

    The task is delegated to the controller's host, which need not be within the run's limit.
    """

    _VALID_ARGS = frozenset(("fleet", "timeout", "state", "surplus"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Drain the slots of `fleet` that the run is about, or open them."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        fleet, timeout = self._task.args["fleet"], float(self._task.args["timeout"])
        slots = slots_of(fleet)
        if self._task.args.get("surplus"):
            slots = [{"host": host, **slot} for host, over in fleet["surplus"].items() if host in fleet["asked"] for slot in over]
            if not slots or fleet["launcher"] in STARTERS:
                return result | {"slots": [], "services": {}, "short": 0, "msg": "no slot goes"}
        if wrong := self.refusal(fleet, slots):
            return result | {"failed": True, "msg": wrong}
        try:
            done = self.ask(fleet, [slot["id"] for slot in slots], timeout, task_vars or {})
        except AnsibleConnectionFailure as error:
            done = {"problem": f"its host is unreachable: {unreached(reason(self._connection, error.message))}"}
        if done.get("failed"):
            problem = explain(done)
            done = {"problem": NOT_DEPLOYED if problem == NO_PYTHON else problem}
        if "problem" in done:
            text = f"the controller on {fleet['controller']} gave no answer: {done['problem']}; no engine was touched"
            return result | {"failed": True, "msg": text}
        return result | self.judged(slots, done, timeout)

    def refusal(self, fleet: Mapping[str, Any], slots: Sequence[Mapping[str, Any]]) -> str:
        """Why these slots cannot be drained; empty when they can."""
        others = [unit for units in (fleet.get("services") or {}).values() for unit in units if not unit.startswith("engine@")]
        if fleet["launcher"] in STARTERS:
            return f"expected engines that are services, got a fleet whose engines {STARTERS[fleet['launcher']][0]} starts"
        if others:
            return f"chosen_services: expected slots or engines' ids, got {', '.join(others)}"
        return "" if slots else f"expected an engine slot within the limit, got none on {', '.join(fleet['asked'])}"

    def judged(self, slots: Sequence[Mapping[str, Any]], done: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The slots with what came of them, and what is to be said of it."""
        engines = {each["id"]: each for each in done["engines"]}
        found = []
        for slot in slots if engines else ():
            engine = engines[slot["id"]]
            if engine["state"] in ("idle", "gone"):
                state, why = "drained", ""
            elif self._task.check_mode:
                # a look does not wait for the answer of one that has nothing queued
                state, why = ("working", doing(engine)) if engine["state"] == "busy" else ("drained", "")
            else:
                state, why = "busy", f"still busy after {timeout:.0f} s: {doing(engine)}"
            found.append({**slot, "state": state, "reason": why, "queue": engine["queue"], "tasks": engine["tasks"]})
        busy = [slot for slot in found if slot["state"] == "busy"]
        services: dict[str, list[str]] = {}
        for slot in slots:
            services.setdefault(slot["host"], []).append(f"engine@{slot['number']}")
        said = [f"{slot['host']}/{slot['number']} (id {slot['id']}): {slot['reason']}" for slot in found if slot["reason"]]
        given = {"slots": found, "services": services, "short": len(busy), "msg": "\n".join(said)}
        refused = done.get("closed") == [] and any(each["state"] != "gone" for each in engines.values())
        if refused and not self._task.check_mode:
            given["warnings"] = ["the controller cannot close engines; they were waited for, but got new work meanwhile"]
        return given

    def ask(self, fleet: dict[str, Any], ids: list[int], timeout: float, variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module on the controller's host."""
        there = variables["hostvars"][fleet["controller"]]
        variables = variables | ({"ipp_node_user": there["ipp_node_user"]} if "ipp_node_user" in there else {})
        self.enter(variables)
        arguments = {
            "connection_file": self.places["security"] + "/ipcontroller-client.json",
            "user": self.places["service"] if fleet["scope"] == "system" else "",
            "ids": ids,
            "timeout": timeout,
            "state": self._task.args.get("state", "drained"),
        }
        return self.by_fleets_python(arguments, variables)
