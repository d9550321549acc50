# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: what is wanted of the whole fleet, and whether it may go ahead. Control node only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import findings, wanted
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import (
    ROOT,
    builder,
    lock_key,
    secrets_dir,
    store,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.environment import EnvironmentProblem, lock_digest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import FleetState, SecretStore, StoreError
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.specs import check, load_specs, owned

SPECS = ("ipp_node", *wanted.ROLES)


class ActionModule(ActionBase):
    """Reads all hosts' variables at once, where a role could only read its own host's."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("stage", "fleet"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Prepare (`stage` ``wanted``), or judge what was seen (``checked``)."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.vars = task_vars or {}
        self.groups: Mapping[str, list[str]] = self.vars["groups"]
        try:
            if self._task.args["stage"] == "wanted":
                return result | self.wanted()
            return result | self.checked()
        except Refused as refused:
            return result | {"failed": True, "msg": str(refused)}

    # -- stage 1: from the inventory alone

    def wanted(self) -> dict[str, Any]:
        hosts = [*wanted.members(self.groups), *(h for g in wanted.NOT_YET for h in self.groups.get(g, ()))]
        variables, wrong = self.read_variables(dict.fromkeys(hosts))
        wrong += wanted.group_problems(self.groups, variables)
        if not wrong:
            wrong += wanted.value_problems(self.groups, variables)
        if not wrong:
            wrong += wanted.location_problems(self.groups, variables)
        folder = secrets_dir(variables[hosts[0]]) if hosts else ""
        if not wrong and not folder:
            wrong.append("fleet_secrets_dir: expected a folder for the fleet's keys, got none; there is no inventory file beside which it could be")
        if wrong:
            raise Refused(wrong)
        keys = self.store(folder)
        try:
            if not self._task.check_mode:
                keys.create_secrets()
            fleet = wanted.describe(self.groups, variables, self.vars, folder, keys.state().slots)
        except StoreError as error:
            raise Refused([str(error)]) from error
        fleet["locks"] = {key: self.known_lock(folder, key.splitlines()) for key in package_sets(fleet)}
        fleet["asked"] = list(self.vars.get("ansible_play_hosts_all", hosts))
        return {"fleet": fleet}

    def read_variables(self, hosts: Mapping[str, None]) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """What the inventory says of each host, and what is wrong with it."""
        specs = load_specs(ROOT / "roles", SPECS)
        found: dict[str, dict[str, Any]] = {}
        wrong: list[str] = []
        for host in hosts:
            source = self.vars["hostvars"][host]
            found[host] = {}
            for name in source:
                if owned(name, SPECS) or name in ("ansible_host", "inventory_dir"):
                    try:
                        found[host][name] = source[name]
                    except AnsibleError as error:
                        wrong.append(f"{host}: {name}: {error.message}")
            wrong += [f"{host}: {text}" for text in check(found[host], specs)]
        return found, wrong

    def store(self, folder: str) -> SecretStore:
        return store(folder, self._loader.get_text_file_contents)

    def known_lock(self, folder: str, packages: list[str]) -> str:
        """Digest of the lock for some packages, as far as one was made."""
        if not packages:
            return lock_digest(builder().lock.read_text())
        made = sorted((Path(folder) / "locks").glob(f"{builder().wanted_key(packages)}-*.txt"))
        return lock_digest(made[-1].read_text()) if made else ""

    # -- stage 2: with what was seen on the hosts

    def checked(self) -> dict[str, Any]:
        fleet = copy.deepcopy(dict(self._task.args["fleet"]))
        looks = {host: self.vars["hostvars"][host].get("__ipp_node_look", {}) for host in fleet["asked"]}
        unreachable = [host for host, look in looks.items() if look.get("unreachable")]
        wrong = [f"{host}: {look['problem']}" for host, look in looks.items() if look.get("problem")]
        facts = {host: look["facts"] for host, look in looks.items() if "facts" in look}
        if fleet["controller"] in unreachable:
            wrong.append(f"{fleet['controller']}: expected to reach the controller's host, got: {looks[fleet['controller']].get('msg')}")
        try:
            keys = self.store(fleet["secrets_dir"])
            state = keys.state()
            need = {host: self.needed_mb(host, seen) for host, seen in facts.items()}
            wrong += findings.problems(fleet, facts, state.deployed, need)
            if wrong:
                raise Refused(wrong)
            before = {host: each["slots"] for host, each in fleet["hosts"].items()}
            wanted.measure(fleet, facts, state.slots)
            fleet["locks"] |= self.made_locks(fleet, facts)
            changing = [host for host in facts if changes(fleet, host, looks[host], before[host])]
            if changing and not self._task.check_mode:
                slots = {host: [slot["id"] for slot in each["slots"]] for host, each in fleet["hosts"].items() if each["slots"]}
                keys.remember(FleetState(True, slots))
        except (StoreError, EnvironmentProblem) as error:
            raise Refused([str(error)]) from error
        result: dict[str, Any] = {"fleet": fleet, "changing": changing}
        if unreachable:
            result["warnings"] = [f"{host} is unreachable: its slots will be missing" for host in unreachable]
        return result

    def needed_mb(self, host: str, seen: Mapping[str, Any]) -> int:
        if not seen["needs_environment"]:
            return 10
        return int(self.vars["hostvars"][host].get("ipp_node_min_free_mb", self.vars["ipp_node_min_free_mb"]))

    def made_locks(self, fleet: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
        """Digests of the locks of all package sets in use, made where there were none."""
        python = next((seen["python"] for seen in facts.values()), None)
        sets = [key for key in package_sets(fleet) if key and python]
        return {key: lock_digest(self.lock_text(fleet["secrets_dir"], key.splitlines(), str(python))) for key in sets}

    def lock_text(self, folder: str, packages: list[str], python: str) -> str:
        path = Path(folder) / "locks" / f"{builder().wanted_key(packages)}-{python}.txt"
        if path.exists():
            return path.read_text()
        text = builder().resolve(packages, python)
        if not self._task.check_mode:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_text(f"# {' '.join(packages)}\n{text}")
        return text


def changes(fleet: Mapping[str, Any], host: str, look: Mapping[str, Any], slots: object) -> bool:
    """Whether something is to be changed on a host: what was seen there, or what is wanted by now."""
    mine = fleet["hosts"][host]
    return bool(look["changes"]) or look["lock"] != fleet["locks"][lock_key(mine)] or mine["slots"] != slots


class Refused(Exception):
    """The run must not go on; the message has a line for each reason."""

    def __init__(self, reasons: list[str]) -> None:
        count = f"{len(reasons)} problem{'s' if len(reasons) > 1 else ''}"
        super().__init__("\n".join([*dict.fromkeys(reasons), f"{count}; nothing was changed"]))


def package_sets(fleet: Mapping[str, Any]) -> list[str]:
    """The different sets of extra packages that hosts of the fleet ask for, each as a lock's key."""
    return sorted({lock_key(each) for each in fleet["hosts"].values()})
