# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: what is wanted of the whole fleet, and whether it may go ahead. Control node only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import (
    database,
    database_secrets,
    findings,
    needed,
    notebook,
    rotation,
    trust,
    wanted,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import (
    ROOT,
    builder,
    secrets_dir,
    store,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.claims import ClaimedError, claim, release
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.environment import EnvironmentProblem
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import Locks, lock_key, package_sets
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import FleetState, SecretStore, StoreError
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.services import ServiceError, chosen
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.specs import check, load_specs, owned

SPECS = ("ipp_node", *wanted.ROLES, "postgresql", "fleet_ca")


class ActionModule(ActionBase):
    """Reads all hosts' variables at once, where a role could only read its own host's."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("stage", "fleet", "services", "what"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Carry out a stage, the method of its name; each says what it does."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.vars = task_vars or {}
        self.converted: dict[str, dict[str, Any]] = {}
        self.groups: Mapping[str, list[str]] = self.vars["groups"]
        stages = (self.wanted, self.checked, self.located, self.claim, self.keep, self.release, self.forget, self.rotate, self.rotated)
        try:
            return result | {stage.__name__: stage for stage in stages}[self._task.args["stage"]]()
        except Refused as refused:
            return result | {"failed": True, "msg": str(refused)}

    def wanted(self) -> dict[str, Any]:
        """What is wanted, from the inventory and what is remembered alone."""
        hosts = wanted.everybody(self.groups)
        variables, wrong = self.read_variables(dict.fromkeys(hosts))
        wrong += wanted.group_problems(self.groups, variables)
        wrong += self.needed_problems(variables)
        if not wrong:
            wrong += wanted.value_problems(self.groups, variables)
        if not wrong:
            wrong += wanted.location_problems(self.groups, variables)
        folder = secrets_dir(variables[hosts[0]]) if hosts else ""
        if not wrong and not folder:
            wrong.append("fleet_secrets_dir: expected a folder for the fleet's keys, got no inventory file beside which it could be")
        if wrong:
            raise Refused(wrong)
        try:
            keys = self.store(folder)
            keys.secrets()
            fleet = wanted.describe(self.groups, variables, self.vars, folder, keys.state().slots)
            if wrong := list(notebook.port_problems(fleet)):
                raise Refused(wrong)
            for host, each in fleet["hosts"].items():
                each["set"] = self.converted[host]
            self.set_clients(fleet, keys.state().addresses)
            if fleet["trust"]:
                fleet["trust"]["known"] = keys.state().trust
        except StoreError as error:
            raise Refused([str(error)]) from error
        locks = Locks(folder, builder())
        fleet["locks"] = {key: locks.known_digest(key) for key in package_sets(fleet)}
        fleet["asked"] = list(self.vars.get("ansible_play_hosts_all", hosts))
        try:
            fleet["services"] = chosen(fleet, self._task.args.get("services", []))
        except ServiceError as error:
            raise Refused(error.problems) from error
        return {"fleet": fleet}

    def needed_problems(self, variables: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What this machine lacks for a database of scope system."""
        hosts = [host for host in self.groups.get("postgresql", ()) if variables[host].get("fleet_scope") != "user"]
        problem = needed.problem() if hosts else ""
        return [f"{hosts[0]}: postgresql: {problem}"] if problem else []

    def read_variables(self, hosts: Mapping[str, None]) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """What the inventory says of each host, and what is wrong with it."""
        specs = load_specs(ROOT / "roles", SPECS)
        found: dict[str, dict[str, Any]] = {}
        wrong: list[str] = []
        for host in hosts:
            source = self.vars["hostvars"][host]
            found[host] = {}
            for name in source:
                if owned(name, SPECS) or name in ("ansible_host", "ansible_port", "inventory_dir"):
                    try:
                        found[host][name] = source[name]
                    except AnsibleError as error:
                        wrong.append(f"{host}: {name}: {error.message}")
            good, bad = check(found[host], specs)
            wrong += [f"{host}: {text}" for text in bad]
            self.converted[host] = {name: value for name, value in good.items() if type(value) is not type(plain(found[host][name]))}
            found[host] |= good
        return found, wrong

    def store(self, folder: str) -> SecretStore:
        """The fleet's keys; Ansible decrypts what is in a vault."""
        return store(folder, self._loader.get_text_file_contents)

    def checked(self) -> dict[str, Any]:
        """Whether the run may go on, and on which hosts something is to be changed."""
        fleet = copy.deepcopy(dict(self._task.args["fleet"]))
        looks = {host: self.vars["hostvars"][host].get("__ipp_node_look", {}) for host in fleet["asked"]}
        unreachable = [host for host, look in looks.items() if look.get("unreachable")]
        wrong = [f"{host}: {look['problem']}" for host, look in looks.items() if look.get("problem")]
        wrong += self.database_problems(fleet)
        facts = {host: look["facts"] for host, look in looks.items() if "facts" in look}
        if fleet["controller"] in unreachable:
            wrong.append(f"{fleet['controller']}: {looks[fleet['controller']]['msg']}; nothing works without the controller's host")
        try:
            keys = self.store(fleet["secrets_dir"])
            state = keys.state()
            need = {host: self.needed_mb(host, seen) for host, seen in facts.items()}
            wrong += findings.problems(fleet, facts, state.deployed, need)
            if wrong:
                raise Refused(wrong)
            before = {host: each["slots"] for host, each in fleet["hosts"].items()}
            wanted.measure(fleet, facts, state.slots)
            known = state.addresses | addresses_of(facts)
            fleet["addresses"] = {host: known[host] for host in fleet["hosts"] if host in known}
            self.set_clients(fleet, known)
            fleet["remembered"] = asdict(state)
            met = self.meet(fleet, facts)
            if fleet["trust"] and (unknown := trust.unknown_sources(fleet["trust"])):
                why = "as this run does not look at it" if unknown[0] not in facts else "on the host"
                raise Refused([f"{unknown[0]}: expected addresses that its logins come from, found none {why}; set ipp_node_ssh_from"])
            python = next((str(seen["python"]) for seen in facts.values()), None)
            if python:
                fleet["locks"] = Locks(fleet["secrets_dir"], builder()).digests(fleet, python)
            changing = [host for host in facts if host in met or changes(fleet, host, looks[host], before[host])]
        except (StoreError, EnvironmentProblem) as error:
            raise Refused([str(error)]) from error
        result: dict[str, Any] = {"fleet": fleet, "changing": changing}
        away = {host: looks[host]["msg"] for host in unreachable}
        if reason := self.database_away(fleet):
            away[fleet["postgresql"]["host"]] = unreached(reason)
        warnings = [f"{host} is unreachable and left out: {reason}" for host, reason in away.items()]
        warnings += [f"{host}: {seen['boot']}" for host, seen in facts.items() if seen.get("boot")]
        return result | ({"warnings": warnings} if warnings else {})

    def meet(self, fleet: dict[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """Note what hosts that log in to each other said of themselves; returns those that have to hear of something new."""
        if not fleet["trust"]:
            return set()
        before, logins = fleet["trust"]["known"], fleet["trust"]["logins"]
        fleet["trust"]["known"] = before | trust.learned(facts)
        new = {host for host, each in fleet["trust"]["known"].items() if each != before.get(host)}
        return {*(host for host in logins if new & set(logins[host])), *(target for host in new for target in logins.get(host, ()))}

    def located(self) -> dict[str, Any]:
        """The fleet as its hosts were judged in this run, else with what is remembered of them, for the database's host."""
        fleet = self._task.args["fleet"]
        candidates = (self.vars["hostvars"][host].get("__ipp_node_prepared", {}).get("fleet", {}) for host in fleet["hosts"])
        found = next((dict(each) for each in candidates if "addresses" in each), None)
        if found is None:
            try:
                state = self.store(fleet["secrets_dir"]).state()
            except StoreError as error:
                raise Refused([str(error)]) from error
            found = dict(fleet) | {"addresses": state.addresses, "remembered": asdict(state)}
        unknown = database.unknown_clients(found)
        how = "the database does not let them in before a run that looks at them too"
        return {"fleet": found} | ({"warnings": [f"the address of {', '.join(unknown)} is not known; {how}"]} if unknown else {})

    def set_clients(self, fleet: dict[str, Any], known: Mapping[str, str]) -> None:
        """Say which addresses may connect to the database: what operators have set, else what is known of hosts."""
        if fleet["postgresql"]:
            set_by_hand = {host: str(self.vars["hostvars"][host].get("postgresql_client_address") or "") for host in fleet["hosts"]}
            addresses = dict(known) | {host: address for host, address in set_by_hand.items() if address}
            fleet["postgresql"]["clients"] = database.clients_of(fleet, addresses)

    def database_problems(self, fleet: Mapping[str, Any]) -> list[str]:
        """What the look at the database's host, and the rehearsal of its configuration, have found."""
        if not fleet["postgresql"]:
            return []
        host = fleet["postgresql"]["host"]
        seen = self.vars["hostvars"][host].get("__postgresql_problems", [])
        return [f"{host}: {text}" for text in seen]

    def database_away(self, fleet: Mapping[str, Any]) -> str:
        """Why the database's host could not be reached in this run; empty when it could, or was not to be."""
        if not fleet["postgresql"]:
            return ""
        reached = self.vars["hostvars"][fleet["postgresql"]["host"]].get("__postgresql_reached", {})
        return str(reached["msg"]) if reached.get("unreachable") else ""

    def claim(self) -> dict[str, Any]:
        """Have the fleet for this run alone, if it has a folder of keys; nothing in check mode."""
        fleet = self._task.args["fleet"]
        if not self._task.check_mode and Path(fleet["secrets_dir"]).is_dir():
            self.take(fleet)
        return {}

    def take(self, fleet: Mapping[str, Any]) -> None:
        """Claim the fleet, which must not have been changed since it was looked at."""
        try:
            claim(Path(fleet["secrets_dir"]), fleet["name"])
            now = asdict(self.store(fleet["secrets_dir"]).state())
        except (ClaimedError, StoreError) as error:
            raise Refused([str(error)]) from error
        # what this run itself has remembered since is no change by another
        if now not in (plain(fleet.get("remembered", now)), asdict(state_of(fleet))):
            raise Refused([f"fleet {fleet['name']}: expected it as it was looked at, got a change by another run meanwhile; run again"])

    def release(self) -> dict[str, Any]:
        """Let other runs have the fleet."""
        release(Path(self._task.args["fleet"]["secrets_dir"]))
        return {}

    def keep(self) -> dict[str, Any]:
        """Claim the fleet, make keys if there are none, and remember which id belongs to which slot."""
        fleet = self._task.args["fleet"]
        if not self._task.check_mode:
            self.take(fleet)
            try:
                keys = self.store(fleet["secrets_dir"])
                keys.create_secrets()
                if fleet["postgresql"]:
                    database_secrets.create_secrets(keys, fleet, self.vars["hostvars"][fleet["postgresql"]["host"]])
                if fleet["jupyterlab"]:
                    keys.create_token()
                if fleet["trust"]:
                    keys.create_login_key()
                keys.remember(state_of(fleet))
                Locks(fleet["secrets_dir"], builder()).keep(fleet)
            except StoreError as error:
                raise Refused([str(error)]) from error
        return {}

    def forget(self) -> dict[str, Any]:
        """Remove the keys and what is remembered."""
        fleet = self._task.args["fleet"]
        folder = fleet["secrets_dir"]
        left = [host for host in fleet["hosts"] if host not in self.vars["ansible_play_hosts"]]
        if self.database_away(fleet):
            left.append(fleet["postgresql"]["host"])
        if left:
            return {"warnings": [f"the fleet's keys are kept: it is still on {', '.join(left)}, as far as this run knows"]}
        return {"changed": self.store(folder).remove(dry=self._task.check_mode)}

    def rotate(self) -> dict[str, Any]:
        """Make new keys instead of those that are there; see the module ``rotation``."""
        fleet, dry = self._task.args["fleet"], bool(self._task.check_mode)
        try:
            kinds = rotation.kinds_of(self._task.args.get("what"))
            keys = self.store(fleet["secrets_dir"])
            if not keys.state().deployed:
                raise Refused([f"fleet {fleet['name']}: expected keys in {fleet['secrets_dir']}, got none; deploy it first"])
            if not dry:
                self.take(fleet)
            looks = [self.vars["hostvars"][host].get("__ipp_node_look", {}).get("facts") for host in fleet["hosts"]]
            settled = all(seen and not seen["other_secrets"] for seen in looks)
            files, again = rotation.Rotation(keys, fleet["name"]).carry_out(kinds, settled, datetime.now(UTC), dry)
        except (StoreError, ValueError) as error:
            raise Refused([str(error)]) from error
        finally:
            if not dry:
                release(Path(fleet["secrets_dir"]))
        how = "goes on with what a run before has made" if again else "would be made anew" if dry else "made anew"
        return {"changed": True, "msg": f"{', '.join(files)}: {how}"}

    def rotated(self) -> dict[str, Any]:
        """Forget the keys that were, if every host has the new ones."""
        fleet = self._task.args["fleet"]
        left = [host for host in fleet["hosts"] if host not in self.vars["ansible_play_hosts"]]
        if left or self.database_away(fleet):
            left += [fleet["postgresql"]["host"]] if self.database_away(fleet) else []
            return {"warnings": [f"{', '.join(dict.fromkeys(left))} has the old keys, which are refused: run again when it is back"]}
        rotation.Rotation(self.store(fleet["secrets_dir"]), fleet["name"]).finish()
        return {}

    def needed_mb(self, host: str, seen: Mapping[str, Any]) -> int:
        """Free space that a host must have, in MiB."""
        if not seen["needs_environment"]:
            return 10
        return int(self.vars["hostvars"][host].get("ipp_node_min_free_mb", self.vars["ipp_node_min_free_mb"]))


def changes(fleet: Mapping[str, Any], host: str, look: Mapping[str, Any], slots: object) -> bool:
    """Whether something is to be changed on a host: what was seen there, or what is wanted by now."""
    mine = fleet["hosts"][host]
    return bool(look["changes"]) or look["lock"] != fleet["locks"][lock_key(mine)] or mine["slots"] != slots


def addresses_of(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Where connections to the database come from, of the hosts that were looked at."""
    return {host: str(seen["database"]["address"]) for host, seen in facts.items() if seen.get("database", {}).get("address")}


def state_of(fleet: Mapping[str, Any]) -> FleetState:
    """What is to be remembered of a fleet."""
    slots = {host: [int(slot["id"]) for slot in each["slots"]] for host, each in fleet["hosts"].items() if each["slots"]}
    return FleetState(True, slots, dict(fleet.get("addresses", {})), trust.kept(fleet))


class Refused(Exception):
    """The run must not go on; the message has a line for each reason."""

    def __init__(self, reasons: list[str]) -> None:
        problems = list(dict.fromkeys(reasons))
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        super().__init__("\n".join([*problems, f"{count}; nothing was changed"]))
