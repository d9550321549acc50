# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: say how a fleet does, to people as text and to programs as data. Control node only."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import (
    backups,
    database_report,
    doctor,
    doctor_report,
    notebook_report,
    report,
    way,
)


class ActionModule(ActionBase):
    """The last word of a playbook: `msg` for people, `report` for programs."""

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("kind", "fleet", "result", "cell", "before"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Report what `kind` says."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        fleet, kind = self._task.args["fleet"], self._task.args["kind"]
        known = report.fleet_of(fleet)
        if kind in ("inventory", "client"):
            known["hosts"] = report.hosts_of(fleet, variables["hostvars"])
            known |= {"way": way.way_of(fleet)} if kind == "client" else {}
            return result | {"report": known, "msg": report.inventory_text(known)}
        if kind in backups.KINDS:
            known |= backups.report(kind, self._task.args["result"])
            return result | {"report": known, "msg": backups.text(known)}
        if kind == "doctor":
            known |= doctor_report.report_of(fleet, variables["hostvars"], self._task.args)
            return result | {"report": known, "msg": doctor.text(known)}
        states = report.states_of(fleet, variables["hostvars"])
        if kind == "logs":
            known["logs"] = {host: said["logs"] for host, said in states.items() if "logs" in said}
            known["hosts"] = report.hosts_of(fleet, variables["hostvars"])
            return result | {"report": known, "msg": report.logs_text(known["logs"])}
        units = {host: said["units"] for host, said in states.items() if "units" in said}
        verified = self._task.args["result"]
        known |= report.slots_report(verified, fleet, units)
        known["database"] = database_report.report_of(fleet, known["slots"], database_report.state_of(fleet, variables["hostvars"], units))
        known["jupyterlab"] = notebook_report.report_of(fleet, known["slots"], self._task.args.get("cell") or {})
        known["ok"] = report.is_good(known)
        lab = [known["jupyterlab"]["message"]] if known["jupyterlab"] else []
        text = report.status_text if kind == "status" else report.verify_text
        warnings = [f"{host}: {said['boot']}" for host, said in states.items() if said.get("boot")]
        warnings += report.healed_lines(known) if kind == "status" else []
        if warnings:
            result["warnings"] = warnings
        return result | {"report": known, "msg": "\n".join([text(known), *database_report.lines(known["database"]), *lab])}
