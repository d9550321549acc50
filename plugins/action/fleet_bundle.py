# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin: write the archive of a bug report. Control node only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import bundle
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.base import ROOT, builder, store
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.redaction import Redactor, is_secret_name, named_values, secret_values
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import STATE, StoreError
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.specs import owned

ROLES = ("ipp_node", "ipp_controller", "ipp_engine", "ipp_client", "jupyterlab", "postgresql", "fleet_ca")
# what hosts' tasks have left in their variables
ANSWERS = {"look": "__ipp_node_look", "collect": "__ipp_node_collected", "database": "__postgresql_said"}


class ActionModule(ActionBase):
    """Puts together what hosts have said, without secrets."""

    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("fleet", "dest", "verified", "checked"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the archive to `dest`."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables, arguments = task_vars or {}, self._task.args
        fleet = arguments["fleet"]
        now = datetime.now(UTC)
        top = f"ipyfleet-{fleet['name']}-{now:%Y%m%dT%H%M%SZ}"
        dest = Path(arguments.get("dest") or f"{top}.tar.gz").expanduser().absolute()
        if not dest.parent.is_dir() or dest.is_dir():
            return result | {"failed": True, "msg": f"bundle_file: {dest}: expected a file in a folder that is there, got another path"}
        hosts = self.answers(variables)
        away = bundle.reasons(hosts)
        try:
            redactor = Redactor([*self.kept_secrets(fleet), *self.given_secrets(variables)])
            files = bundle.cleaned(dict(self.files(fleet, variables, hosts, away, now)), redactor)
            if not self._task.check_mode:
                bundle.write(dest, top, files)
        except (StoreError, bundle.BundleLeakError) as error:
            return result | {"failed": True, "msg": str(error)}
        except OSError as error:
            return result | {"failed": True, "msg": f"{dest}: cannot be written: {error.strerror}"}
        warnings = [f"{host} is not in the bundle: {redactor.clean(reason)}" for host, reason in away.items()]
        known = {"changed": True, "path": str(dest), "files": sorted(files), "msg": f"{dest}: {len(files)} files, secrets removed"}
        return result | known | ({"warnings": warnings} if warnings else {})

    def answers(self, variables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What hosts of the fleet have said in this run, of those within its limit."""
        groups = variables["groups"]
        wanted = dict.fromkeys(host for group in ROLES for host in groups.get(group, ()) if host in variables["ansible_play_hosts_all"])
        return {host: {kind: variables["hostvars"][host].get(name) for kind, name in ANSWERS.items()} for host in wanted}

    def files(
        self, fleet: Mapping[str, Any], variables: Mapping[str, Any], hosts: Mapping[str, Any], away: Mapping[str, str], now: datetime
    ) -> Any:
        """Name and text of each file, with all that is secret still in it."""
        about = yaml.safe_load((ROOT / "galaxy.yml").read_text()) if (ROOT / "galaxy.yml").exists() else {}
        yield "versions.json", bundle.versions(str(about.get("version", "installed as a collection")))
        told = "".join(f"{host}: not in here: {reason}\n" for host, reason in away.items())
        yield "about.txt", f"fleet {fleet['name']}, {now.isoformat(timespec='seconds')}\nsecrets were removed\n{told}"
        yield "status.txt", bundle.status(fleet, plain(self._task.args.get("verified") or {}), hosts)  # type: ignore[arg-type]
        checked = self._task.args.get("checked") or {}
        problems = str(checked.get("msg") or "") if checked.get("failed") else ""
        yield "validate.txt", f"{problems or 'nothing speaks against a deployment, as far as hosts answered'}\n"
        yield "fleet/fleet.json", bundle.as_json(fleet)
        yield "fleet/variables.json", bundle.as_json(self.variables(variables, hosts))
        yield "fleet/requirements.lock", builder().lock.read_text()
        yield from bundle.kept(Path(fleet["secrets_dir"]))
        yield from bundle.sources([str(each) for each in variables.get("ansible_inventory_sources") or ()])
        for host, known in hosts.items():
            yield from bundle.of_host(host, known)

    def variables(self, variables: Mapping[str, Any], hosts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What the inventory says of each host, of our variables and those by which it is reached; secret ones by name alone."""
        found: dict[str, dict[str, Any]] = {}
        for host in hosts:
            source = variables["hostvars"][host]
            names = [name for name in source if owned(name, ROLES) or name.startswith("ansible_")]
            found[host] = {name: "[removed]" if is_secret_name(name) else self.value(source, name) for name in sorted(names)}
        return found

    def value(self, source: Mapping[str, Any], name: str) -> Any:
        """A variable's value, or why it has none."""
        try:
            return plain(source[name])
        except (AnsibleError, TypeError) as error:
            return f"cannot be read: {getattr(error, 'message', error)}"

    def kept_secrets(self, fleet: Mapping[str, Any]) -> list[str]:
        """What is in the folder of the fleet's keys."""
        keys = store(fleet["secrets_dir"], self._loader.get_text_file_contents)
        found: list[str] = []
        for path in sorted(Path(fleet["secrets_dir"]).glob("*.json*")):
            if path.name != STATE:
                text = keys.read_text(str(path))
                try:
                    found += secret_values(json.loads(text))
                except ValueError:
                    found.append(text)
        return found

    def given_secrets(self, variables: Mapping[str, Any]) -> list[str]:
        """What operators have set, or typed: passwords, tokens."""
        found = [str(each) for each in (self._play_context.password, self._play_context.become_pass) if each]
        for host in variables["hostvars"]:
            source = variables["hostvars"][host]
            for name in source:
                if owned(name, ROLES) or is_secret_name(name):
                    found += named_values(plain(self.value(source, name)), name)
        return found
