# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: render what the roles say of a host, and have the module of the same name bring it about."""

from __future__ import annotations

import ast
import configparser
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.template import trust_as_template
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import HostAction, store
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.explain import explain, summary
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.locks import lock_key
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import StoreError, new_secrets

MANAGED = "Managed by ipyfleet: the next run undoes changes made here"


class ActionModule(HostAction):
    """One run of the module a host, one more when the environment's archive has to go there."""

    TRANSFERS_FILES = True
    _VALID_ARGS = frozenset(("phase", "fleet", "archive", "keep_data"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Carry out one phase on the task's host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        phase = self._task.args["phase"]
        try:
            arguments = self.arguments(task_vars or {})
        except (AnsibleError, StoreError, InvalidContentError) as error:
            message = getattr(error, "message", None) or str(error)
            return result | ({"problem": message, "changes": []} if phase == "look" else {"failed": True, "msg": message})
        archive = self._task.args.get("archive")
        if archive and phase == "converge" and not self._task.check_mode:
            arguments["archive"] = dict(archive) | {"path": self.send(archive["path"])}
        done = self.execute(arguments, task_vars or {})
        self._remove_tmp_path(self._connection._shell.tmpdir)
        if phase == "look":
            return result | self.looked(done, arguments["lock"])
        if done.get("failed"):
            before = f" (before that: {summary(done['changes'])})" if done.get("changes") else ""
            return result | {"failed": True, "msg": explain(done) + before}
        return result | done | {"diff": diff_of(done["changes"]), "msg": summary(done["changes"])}

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

    def arguments(self, variables: dict[str, Any]) -> dict[str, Any]:
        """What the module is to do on the task's host."""
        fleet = self._task.args["fleet"]
        host = fleet["hosts"][variables["inventory_hostname"]]
        scope = variables["fleet_scope"]
        # numbers and booleans that were given as text, as the roles' specs want them
        variables = variables | host["set"] | {"fleet": fleet, "host": host, "secrets": self.secrets(fleet)}
        variables.setdefault("ansible_managed", MANAGED)
        variables = self.enter(variables)
        parts = [self.evaluate(f"__{role}_part") for role in ("ipp_node", *host["roles"])]
        entries = [entry for part in parts for entry in self.expanded(part["entries"], scope)]
        units = [unit for part in parts for unit in self.expanded(part.get("units", []), scope)]
        prune = [each["path"] for part in parts for each in self.expanded(part.get("prune", []), scope)]
        probe: dict[str, Any] = {}
        for part in parts:
            probe |= part.get("probe", {})
        secrets: dict[str, str] = {}
        for entry in entries:
            if entry["kind"] == "file":
                text = self.content(entry, variables | {"fleet_units": units})
                # a secret goes by itself: what Ansible logs of a module's arguments leaves that one out
                secrets |= {entry["path"]: text} if entry.get("secret") else {}
                entry |= {} if entry.get("secret") else {"content": text}
        return {
            "phase": self._task.args["phase"],
            "fleet": fleet["name"],
            "scope": scope,
            "user": self.evaluate("ipp_node_user") if scope == "system" else "",
            "paths": self.evaluate("__ipp_node_paths"),
            "python": self.evaluate("ipp_node_python"),
            "lock": fleet["locks"][lock_key(host)],
            "entries": [{key: entry[key] for key in entry if key not in ("src", "copy", "item", "only")} for entry in entries],
            "secrets": secrets,
            "prune": prune,
            "units": [{"name": unit["name"], "inputs": sorted(set(unit["inputs"]))} for unit in units],
            "probe": probe,
            "keep_data": self._task.args.get("keep_data", True),
        }

    def expanded(self, entries: list[dict[str, Any]], scope: str) -> Iterator[dict[str, Any]]:
        """Entries of this scope, those with `for_each` once for each of its items."""
        for entry in entries:
            if entry.get("only", scope) != scope:
                continue
            for item in entry.get("for_each", [None]):
                yield {key: fill(value, item) for key, value in entry.items() if key != "for_each"} | {"item": item}

    def secrets(self, fleet: Mapping[str, Any]) -> dict[str, str]:
        """The fleet's keys, for templates alone: they are never a variable of Ansible's."""
        found = store(fleet["secrets_dir"], self._loader.get_text_file_contents).secrets()
        # a dry run before the first deployment: keys that are thrown away, so that there is something to show
        return asdict(found or new_secrets())

    def content(self, entry: Mapping[str, Any], variables: dict[str, Any]) -> str:
        """Content of a file: a template rendered, or a copy; checked as far as its kind can be."""
        source = entry.get("src") or entry["copy"]
        text = self._loader.get_text_file_contents(source)
        if entry.get("src"):
            text = self.render(source, text, variables | {"item": entry["item"]})
        validate(entry["path"], text)
        return str(text)

    def render(self, source: str, text: str, variables: dict[str, Any]) -> str:
        """Render a template; others in its folder, its role's or the shared one can be imported."""
        folder = os.path.dirname(source)
        shared = os.path.dirname(str(self.evaluate("ipp_node_templates_dir")))
        templar = self._templar.copy_with_new_env(searchpath=[folder, os.path.dirname(folder), shared], available_variables=variables)
        overrides = {"trim_blocks": True, "lstrip_blocks": False}
        return str(templar.template(trust_as_template(text), escape_backslashes=False, overrides=overrides))


class InvalidContentError(Exception):
    """A rendered file is not of the kind that its name says."""


def fill(value: Any, item: Any) -> Any:
    """Put an item into `{key}` places: {item} for a plain one, its keys for a mapping."""
    if item is None:
        return value
    if isinstance(value, list):
        return [fill(each, item) for each in value]
    if not isinstance(value, str):
        return value
    values = item if isinstance(item, Mapping) else {"item": item}
    for key, each in values.items():
        value = value.replace(f"{{{key}}}", str(each))
    return value


def validate(path: str, text: str) -> None:
    """Refuse a file that its reader could not read.

    :raises InvalidContentError: with the file's name and the reason.
    """
    try:
        if path.endswith(".py"):
            ast.parse(text)
        elif path.endswith(".json"):
            json.loads(text)
        elif path.endswith((".conf", ".service", ".target")):
            configparser.RawConfigParser(strict=False, delimiters=("=",)).read_string(text)
    except (SyntaxError, ValueError, configparser.Error) as error:
        raise InvalidContentError(f"{path}: what the template gave is not valid: {error}") from error


def diff_of(changes: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Changes as Ansible shows differences."""
    found = [
        {"before_header": each["path"], "after_header": each["path"], "before": each["diff"]["before"], "after": each["diff"]["after"]}
        for each in changes
        if "diff" in each
    ]
    others = "".join(f"{each['what']}: {each['path']}\n" for each in changes if "diff" not in each)
    return found + ([{"prepared": others}] if others else [])
