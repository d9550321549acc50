#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Look for what keeps a host's part of a fleet from working."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_doctor
short_description: Look for what keeps a host's part of a fleet from working
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Reads how the host's services, ports, clock, disks, memory and packages are. What that means is judged by
    C(ipyfleet.cluster.fleet_report), which knows all hosts.
  - Its action plugin of the same name takes these options, and gives the module its own.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
attributes:
  check_mode: {support: full, description: Changes nothing in either mode.}
  diff_mode: {support: none, description: There is nothing to show.}
"""

EXAMPLES = r"""
- name: Look for what is wrong
  ipyfleet.cluster.fleet_doctor:
    fleet: "{{ prepared.fleet }}"
  register: seen
"""

RETURN = r"""
deployed:
  description: Whether the fleet is on the host.
  returned: success
  type: bool
units:
  description: State of each unit by name, with its last words.
  returned: success
  type: dict
ports:
  description: State of each of the controller's ports for engines, as seen from the host.
  returned: on hosts of engines
  type: dict
connection:
  description: Digests of what the engines' connection file says.
  returned: where there is to be one
  type: dict
clock:
  description: Seconds by which the host's clock is ahead of the control node's, at least and at most.
  returned: success
  type: list
  elements: float
disks:
  description: File systems, with what is free there.
  returned: success
  type: list
  elements: dict
memory:
  description: Memory, and what is left of it, in MiB.
  returned: success
  type: dict
software:
  description: Version of the environment's Python, and of its packages.
  returned: success
  type: dict
database:
  description: What the database says to who is to reach it from the host.
  returned: on hosts of engines, of a fleet with a database
  type: dict
"""

import inspect
import json
import os
import subprocess
import time
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts as facts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_looks as looks
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_probe as probe
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_notes import read_note
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_removal import MARKER
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_supervisord import RESTLESS_SECONDS, Supervisord, last_words
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import SupervisorError, Systemd

# quick ends in a row that are no accident
LOOP = 3
RECENT_MINUTES = 15
DATABASE_SECONDS = 12


def supervisor_of(module: AnsibleModule) -> Any:
    """Who runs the host's units."""
    params = module.params
    units = [{"inputs": [], **each} for each in params["units"]]
    if params["scope"] == "system":
        return Systemd(module, params["name"], params["paths"]["run"], units)
    return Supervisord(module, params["paths"]["root"], params["paths"]["run"], "", units)


def units(module: AnsibleModule) -> Dict[str, Dict[str, Any]]:
    """State of each unit, whether it ends again and again, its last words, and what it has open."""
    params, supervisor = module.params, supervisor_of(module)
    system = params["scope"] == "system"
    found: Dict[str, Dict[str, Any]] = supervisor.status(words=True)
    active = probe.starts(supervisor, system)
    for each in params["units"]:
        name = each["name"]
        unit = found[name]
        unit["since"] = active.get(name)
        unit["quick"], unit["loops"] = probe.looping(read_note(each.get("run") or params["paths"]["run"], name), LOOP, RESTLESS_SECONDS)
        unit["killed"] = system and probe.was_killed(module, supervisor.unit(name), RECENT_MINUTES)
        if unit["loops"] and not unit["last"]:
            log = os.path.join(params["paths"]["run"], name + ".log")
            unit["last"] = supervisor.last_words(supervisor.unit(name)) if system else last_words(log, name)
        if unit["running"] and unit["pid"]:
            unit["files"] = probe.open_files(unit["pid"])
    return found


def ask_database(params: Dict[str, Any]) -> Dict[str, Any]:
    """What the database says to the account that engines run as, with their environment."""
    wanted = params["database"]
    code = "from __future__ import annotations\n%simport json\nprint(json.dumps(see_database(%r, %r)))" % (
        inspect.getsource(looks.see_database),
        wanted["tls"],
        wanted["services"],
    )

    def ask() -> Dict[str, Any]:
        command = [params["python"], "-c", code]
        # by now, the home is that of who asks
        environ = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), **wanted["environment"]}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DATABASE_SECONDS, check=False, env=environ, cwd="/")
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"error": str(error).split("'", maxsplit=1)[0] if isinstance(error, OSError) else "no answer in %d s" % DATABASE_SECONDS}
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        return dict(json.loads(done.stdout.splitlines()[-1]))

    owner = tree.Owner(params["user"])
    if params["user"] and owner.uid is None:
        return {"error": "there is no user %s" % params["user"]}
    apart = params["user"] and not owner.is_me
    return dict(tree.in_child(owner, ask) if apart else ask())


def look(module: AnsibleModule) -> Dict[str, Any]:
    """All that is known of the host."""
    params = module.params
    paths: Dict[str, str] = params["paths"]
    found: Dict[str, Any] = {"begin": time.time(), "deployed": os.path.exists(os.path.join(paths["etc"], MARKER))}
    found["disks"] = probe.disks([paths[name] for name in ("state", "root", "etc", "run")] + [paths["state"] + "/work", "/tmp"])  # noqa: S108
    found["memory"] = probe.memory()
    if not found["deployed"]:
        return {**found, "units": {}, "end": time.time()}
    found["units"] = units(module)
    found["oom"] = probe.out_of_memory(module, RECENT_MINUTES)
    if params["ports"]:
        addresses: List[str] = facts.resolve(params["location"])["addresses"]
        found["ports"] = probe.ports(addresses, params["ports"]) if addresses else {}
    if params["connection_file"]:
        found["connection"] = probe.connection(params["connection_file"])
    found["software"] = probe.packages(module, params["python"])
    if params["database"] and "error" not in found["software"]:
        found["database"] = ask_database(params)
    return {**found, "end": time.time()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},  # the fleet's
            "scope": {"type": "str", "required": True, "choices": ["system", "user"]},
            "paths": {"type": "dict", "required": True},  # root, etc, state, run
            "python": {"type": "path", "required": True},  # of the environment
            "user": {"type": "str", "default": ""},  # who engines run as, in scope system
            "units": {"type": "list", "elements": "dict", "default": []},  # name; run, where it leaves its notes elsewhere
            "location": {"type": "str", "default": ""},  # the controller's
            "ports": {"type": "list", "elements": "int", "default": []},  # that have to be open there
            "connection_file": {"type": "path", "default": ""},
            "database": {"type": "dict"},  # tls and services, as `see_database` takes them, and environment
        },
        supports_check_mode=True,
    )
    try:
        result = look(module)
    except (tree.TreeError, SupervisorError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
