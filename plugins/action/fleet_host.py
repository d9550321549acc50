# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: render what the roles say of a host, and have the module of the same name bring it about."""

from __future__ import annotations

import ast
import configparser
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.template import trust_as_template
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_tree import diff_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import ROOT, HostAction, store
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.client_files import (
    CONNECTION,
    ENGINE,
    TOKEN,
    make_folder,
    prover,
    strangers,
    templates,
    write_files,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database_secrets import secrets_for
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import explain, summary, unreached
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.jumps import reason
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import lock_key
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.places import fill
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import StoreError, new_secrets, public_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.services import units_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.trust import known_hosts, sources

# phases that can be about some of the units
CHOOSING = ("logs", "start", "stop", "restart", "signal")
MANAGED = "Managed by ipyfleet: the next run undoes changes made here"


class ActionModule(HostAction):
    """One run of the module a host, one more when the environment's archive has to go there."""

    TRANSFERS_FILES = True
    _VALID_ARGS = frozenset(("phase", "fleet", "archive", "keep_data", "lines", "since", "signal", "dest", "folder", "engine_dest"))

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.folders: dict[str, str] = {}
        # units that the phase is about: all if empty, none of this host if None
        self.only: list[str] | None = []

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Carry out one phase on the task's host."""
        variables = task_vars or {}
        phase = self._task.args["phase"]
        self.only = units_of(self._task.args["fleet"], variables["inventory_hostname"], phase) if phase in CHOOSING else []
        # a temporary folder there would take a connection, which is not needed
        self.TRANSFERS_FILES = phase != "client" and self.only is not None
        try:
            return self.carry_out(super().run(tmp, task_vars), variables)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "msg": unreached(reason(self._connection, error.message))}

    def cleanup(self, force: bool = False) -> None:
        """Leave a host alone that went away; what happened is told already."""
        with contextlib.suppress(AnsibleConnectionFailure):
            super().cleanup(force)

    def carry_out(self, result: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Carry out the phase, and add what came of it to `result`."""
        phase = self._task.args["phase"]
        try:
            if phase == "client":
                return result | self.client(variables)
            if self.only is None:
                return result | {"changes": [], "msg": "no service of this host is meant"}
            arguments = self.arguments(variables) | {"only": self.only}
        except AnsibleConnectionFailure:
            raise
        except (AnsibleError, StoreError, InvalidContentError) as error:
            message = getattr(error, "message", None) or str(error)
            return result | ({"problem": message, "changes": []} if phase == "look" else {"failed": True, "msg": message})
        archive = self._task.args.get("archive")
        if archive and phase == "converge" and not self._task.check_mode:
            arguments["archive"] = dict(archive) | {"path": self.send(archive["path"])}
        done = self.execute(arguments, variables)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        if phase == "look":
            return result | self.looked(done, arguments["lock"])
        if done.get("failed"):
            before = f" (before that: {summary(done['changes'])})" if done.get("changes") else ""
            return result | {"failed": True, "msg": explain(done) + before}
        return result | done | {"diff": diff_of(done["changes"]), "msg": summary(done["changes"])}

    def client(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Write what a client on the control node needs: its connection file to `dest`, all there is to `folder`.

        What an engine that somebody starts elsewhere needs goes to `engine_dest`.
        """
        fleet, arguments = self._task.args["fleet"], self._task.args
        places = (arguments.get(key) for key in ("dest", "folder", "engine_dest"))
        dest, folder, engine = (Path(given).expanduser().absolute() if given else None for given in places)
        if not (dest or folder or engine):
            return {"failed": True, "msg": "expected -e client_file=PATH, -e client_dir=FOLDER or -e engine_file=PATH, got none"}
        keys = store(fleet["secrets_dir"], self._loader.get_text_file_contents)
        what = "its keys" if not keys.secrets() else "JupyterLab's token" if folder and fleet["jupyterlab"] and not keys.token() else ""
        if what:
            return {"failed": True, "msg": f"fleet {fleet['name']}: expected {what} in {fleet['secrets_dir']}, got none; deploy it first"}
        texts = self.client_texts(fleet, variables)
        wanted = {dest: texts[CONNECTION]} if dest else {}
        wanted |= {engine: self.rendered_for_client(*ENGINE)} if engine else {}
        dry = self._task.check_mode
        try:
            if folder:
                if others := strangers(folder, fleet["name"]):
                    expected = f"expected an empty folder, or one for a client of fleet {fleet['name']}"
                    return {"failed": True, "msg": f"client_dir: {folder}: {expected}, got {others}"}
                wanted |= {folder / name: text for name, text in texts.items()}
                if not dry:
                    make_folder(folder, fleet["name"], texts)
            changed = write_files(wanted, dry)
        except OSError as error:
            return {"failed": True, "msg": f"{error.filename or dest or folder or engine}: cannot be written: {error.strerror}"}
        return {"changed": changed, "msg": str(dest or folder or engine)}

    def client_texts(self, fleet: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, str]:
        """What a client on the control node needs, by the name of the file."""
        known = self.known(variables)
        secrets = self.secrets(fleet, variables | {"inventory_hostname": prover(fleet)})
        # it is on none of the fleet's hosts
        known |= {"secrets": secrets, "inventory_hostname": ""}
        self.templar, self.client_vars = self._templar.copy_with_new_env(available_variables=known), known
        texts = {name: self.rendered_for_client(*each) for name, each in templates(fleet).items()}
        return texts | ({TOKEN: str(secrets["jupyterlab_token"])} if fleet["jupyterlab"] else {})

    def rendered_for_client(self, role: str, template: str) -> str:
        """A file as it is on a machine that is no host of the fleet, after `client_texts`."""
        return self.render(self.folder(role), template, self.client_vars)

    def execute(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module; what Ansible has to say of becoming another user is a failure like others."""
        try:
            return dict(self._execute_module(module_name=self._task.action, module_args=arguments, task_vars=variables))
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            return {"failed": True, "msg": error.message}

    def looked(self, done: dict[str, Any], lock: str) -> dict[str, Any]:
        """The answer of a look: a failure is a problem for the judge, who reports those of all hosts together."""
        if done.get("unreachable"):
            return done
        if done.get("failed"):
            return {"problem": explain(done), "changes": []}
        return {key: done[key] for key in ("facts", "units", "changes")} | {"lock": lock}

    def send(self, path: str) -> str:
        """Put the archive on the host, compressed as it is."""
        remote = self._connection._shell.join_path(self._make_tmp_path(), "env.tar.gz")
        self._transfer_file(path, remote)
        return str(remote)

    # -- from the roles' descriptions to the module's arguments

    def known(self, variables: dict[str, Any]) -> dict[str, Any]:
        """What the roles' variables and templates can refer to on the task's host."""
        fleet = self._task.args["fleet"]
        host = fleet["hosts"][variables["inventory_hostname"]]
        # numbers and booleans that were given as text, as the roles' specs want them
        found: dict[str, Any] = variables | host["set"] | {"fleet": fleet, "host": host, "secrets": self.secrets(fleet, variables)}
        if fleet["trust"]:
            name = variables["inventory_hostname"]
            found["trust"] = {"known_hosts": known_hosts(fleet["trust"], name), "sources": sources(fleet["trust"], name)}
        found.setdefault("ansible_managed", MANAGED)
        return found

    def arguments(self, variables: dict[str, Any]) -> dict[str, Any]:
        """What the module is to do on the task's host."""
        variables = self.known(variables)
        self.enter(variables)
        fleet, host = variables["fleet"], variables["host"]
        scope = fleet["scope"]
        parts = {role: self.evaluate(f"__{role}_part") for role in ("ipp_node", *host["roles"])}
        units = [unit_of(each, scope) for each in self.expanded(parts, "units", scope)]
        # %i is what a unit file says for the number of the slot
        described = [each for part in parts.values() for each in part.get("units", [])]
        generic = {each["name"]: unit_of(fill(each, self.places | {"number": "%i"}), scope) for each in described}
        probe: dict[str, Any] = {}
        for part in parts.values():
            more = part.get("probe", {})
            probe |= more | {"services": probe.get("services", {}) | more.get("services", {})}
        variables = variables | {"places": self.places, "units": units}
        entries = list(self.expanded(parts, "entries", scope))
        secrets: dict[str, str] = {}
        for entry in entries:
            if entry["kind"] == "file":
                text = self.content(entry, variables | {"unit": generic.get(entry.get("unit"))})
                # a secret goes by itself: what Ansible logs of a module's arguments leaves that one out
                secrets |= {entry["path"]: text} if entry.get("secret") else {}
                entry |= {} if entry.get("secret") else {"content": text}
        kept = ("kind", "path", "owner", "mode", "group", "give_to", "keep", "once", "content", "mark")
        return {
            "phase": self._task.args["phase"],
            "fleet": fleet["name"],
            "scope": scope,
            "accounts": list(self.expanded(parts, "accounts", scope)) if scope == "system" else [],
            "paths": {key: self.places[key] for key in ("root", "etc", "state", "run", "lab", "lab_run", "tunnel", "door")},
            "python": variables["ipp_node_python"],
            "at_boot": scope == "user" and bool(self.evaluate("__ipp_node_at_boot")),
            "lock": fleet["locks"][lock_key(host)],
            "entries": [{key: entry[key] for key in kept if entry.get(key) not in (None, "")} for entry in entries],
            "secrets": secrets,
            "prune": [each["path"] for each in self.expanded(parts, "prune", scope)],
            "units": [{key: unit[key] for key in ("name", "inputs", "check", "run") if key in unit} for unit in units],
            "probe": probe,
            "held": held_of(fleet, self.places),
            **{key: self._task.args[key] for key in ("keep_data", "lines", "since", "signal") if key in self._task.args},
        }

    def expanded(self, parts: Mapping[str, Any], kind: str, scope: str) -> Iterator[dict[str, Any]]:
        """What the roles' parts have of a kind for this scope, words filled in, `for_each` carried out."""
        for role, part in parts.items():
            for entry in part.get(kind, []):
                if entry.get("only", scope) != scope:
                    continue
                for item in entry.get("for_each", [None]):
                    words: dict[str, Any] = {**self.places, **(item if isinstance(item, Mapping) else {"item": item})}
                    plain = {key: value for key, value in entry.items() if key != "for_each"}
                    yield {"role": role} | fill(plain, words) | {"item": item}

    def secrets(self, fleet: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
        """The fleet's keys, for templates alone: they are never a variable of Ansible's."""
        keys = store(fleet["secrets_dir"], self._loader.get_text_file_contents)
        # a dry run before the first deployment: keys that are thrown away, so that there is something to show
        found: dict[str, Any] = asdict(keys.secrets() or new_secrets())
        if fleet["jupyterlab"]:
            found["jupyterlab_token"] = keys.create_token(dry=True)
        if fleet["trust"]:
            found["login_key"] = keys.create_login_key(dry=True)
            found["login_public"] = public_of(found["login_key"])
        if not fleet["postgresql"]:
            return found
        there = variables["hostvars"][fleet["postgresql"]["host"]]
        return found | secrets_for(keys, fleet, variables["inventory_hostname"], there)

    def content(self, entry: Mapping[str, Any], variables: dict[str, Any]) -> str:
        """Content of a file: a template rendered, or a copy; checked as far as its kind can be."""
        if "template" in entry:
            folder = self.folder(entry["role"])
            text = self.render(folder, entry["template"], variables | {"item": entry["item"]})
        else:
            text = self._loader.get_text_file_contents(str(ROOT / "roles" / entry["role"] / "files" / entry["copy"]))
        validate(entry["path"], text)
        return str(text)

    def folder(self, role: str) -> str:
        """Folder of a role's templates."""
        if role not in self.folders:
            self.folders[role] = str(self.evaluate(f"{role}_templates_dir"))
        return self.folders[role]

    def render(self, folder: str, name: str, variables: dict[str, Any]) -> str:
        """Render a template; others in its folder, beside it, or in the folder of ours can be imported."""
        text = self._loader.get_text_file_contents(os.path.join(folder, name))
        shared = os.path.dirname(self.folder("ipp_node"))
        templar = self._templar.copy_with_new_env(searchpath=[folder, os.path.dirname(folder), shared], available_variables=variables)
        overrides = {"trim_blocks": True, "lstrip_blocks": False}
        return str(templar.template(trust_as_template(text), escape_backslashes=False, overrides=overrides))


class InvalidContentError(Exception):
    """A rendered file is not of the kind that its name says."""


def held_of(fleet: Mapping[str, Any], where: Mapping[str, str]) -> dict[str, Any]:
    """How engines are told that are no services, and what holds them, on hosts that have some, or had."""
    inputs = [f"{where['etc']}/engine-", f"{where['etc']}/ipengine_config.py", f"{where['lib']}/", f"{where['env']}"]
    inputs.append(f"{where['security']}/ipcontroller-engine.json")
    programs = {"engine": f"{where['lib']}/ipengine.py", "program": f"{where['lib']}/ipyfleet_engines.py"}
    return {"by": fleet["launcher"], **programs, "mark": f"--etc={where['etc']}", "inputs": inputs if fleet["launcher"] == "ssh" else []}


def unit_of(unit: dict[str, Any], scope: str) -> dict[str, Any]:
    """A unit with all that it is started with in this scope."""
    inputs = [*unit["inputs"], *(unit.get("system_inputs", []) if scope == "system" else [])]
    return unit | {"inputs": sorted(set(inputs))}


def validate(path: str, text: str) -> None:
    """Refuse a file that its reader could not read.

    :raises InvalidContentError: with the file's name and the reason.
    """
    try:
        if path.endswith(".py"):
            ast.parse(text)
        elif path.endswith((".json", ".ipynb")):
            json.loads(text)
        elif path.endswith((".conf", ".service", ".target")):
            configparser.RawConfigParser(strict=False, delimiters=("=",)).read_string(text)
    except (SyntaxError, ValueError, configparser.Error) as error:
        raise InvalidContentError(f"{path}: what the template gave is not valid: {error}") from error
