#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a cell in a kernel of the fleet's JupyterLab."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_cell
short_description: Run a cell in a kernel of the fleet's JupyterLab
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Starts a kernel as a notebook does, runs a cell in it and takes the kernel away again; those of users are
    not touched. A server can answer and its kernels end at once, so that nothing less is a proof.
  - Runs on JupyterLab's host by the fleet's own Python, which its action plugin of the same name knows to find;
    that plugin takes these options, and gives the module its own. It never fails because of what it finds out.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    type: dict
    required: true
  probe:
    description:
      - With V(cell), the cell computes something. With V(fleet) it connects to the cluster, has an engine run code,
        and connects to the database, if there is one.
    type: str
    required: true
    choices: [cell, fleet]
  timeout:
    description: Seconds until the cell has to be done. A server that is still starting is waited for.
    type: float
    required: true
attributes:
  check_mode: {support: full, description: Changes nothing in either mode.}
  diff_mode: {support: none, description: There is nothing to show.}
"""

EXAMPLES = r"""
- name: Run a cell that uses the fleet
  ipyfleet.cluster.fleet_cell:
    fleet: "{{ prepared.fleet }}"
    probe: fleet
    timeout: 60
"""

RETURN = r"""
state:
  description: V(ok), V(failed), or V(unknown) when its host is not within the limit of the run.
  returned: always
  type: str
reason:
  description: Why the state is not V(ok), in one line.
  returned: always
  type: str
seconds:
  description: From asking for a kernel until the cell had run.
  returned: when the cell has run
  type: float
ids:
  description: Ids of the engines that the cell saw.
  returned: when probe is V(fleet) and the cell has run
  type: list
  elements: int
database:
  description: What the cell saw of the database.
  returned: when probe is V(fleet), the fleet has a database, and the cell has run
  type: dict
version:
  description: Of JupyterLab.
  returned: when the module ran on the host
  type: str
unit:
  description: State of JupyterLab's service.
  returned: when the module ran on the host
  type: dict
"""

import ast
import asyncio
import inspect
import json
import os
import re
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Dict, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_kernel as kernel
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_looks as looks
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_supervisord import Supervisord
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import SupervisorError, Systemd

UNIT = "jupyterlab"
# a service in one of these states does not come up by itself
DOWN = ("inactive", "failed", "unknown", "not running", "stopped", "exited", "fatal")
# starts in vain after which it is not waited for any longer
VAIN = 3
LOG_LINES = 200
# what the journal puts before a line
STAMP = re.compile(r"^\S+ \S+ (?!systemd)\S+\[\d+\]: ")
# lines that say nothing of a kernel: of the server, which indents those that go on, and of systemd; and one that each
# kernel says, since the folder with the fleet's keys is not its own
OTHERS = re.compile(r"^(\[[A-Z] \d{4}-|\s|\S+ \S+ systemd\[|.*Could not set permissions on \S+/security\b)")
NO_MATTER = re.compile(r"^\[[DIW] \d{4}-")
# what reading something else than was expected ends with
UNREADABLE = (ValueError, TypeError, SyntaxError, KeyError, AttributeError, MemoryError, RecursionError)
START = "start it with `ipyfleet start` or playbooks/start.yml"
RESTART = "restart it with `ipyfleet restart` or playbooks/restart.yml"
# a client that a cell makes has at most this time, and at most half of the cell's
CLIENT_SECONDS = 10.0


class Unit:
    """JupyterLab's service."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def supervisor(self) -> Any:
        """Who runs the service; a new one, since it remembers what it saw."""
        params = self.module.params
        wanted = [{"name": UNIT, "inputs": []}]
        if params["scope"] == "system":
            return Systemd(self.module, params["name"], params["run"], wanted)
        return Supervisord(self.module, params["root"], params["run"], "", wanted)

    def state(self) -> Dict[str, Any]:
        """State of the service, with its last words if it does not run well."""
        found: Dict[str, Any] = self.supervisor().status(words=True)[UNIT]
        return found

    def is_hopeless(self) -> bool:
        """Whether it does not run, and will not."""
        unit = self.state()
        vain = unit["last"] if unit["running"] else unit["restarts"] >= VAIN
        return str(unit["state"]).startswith(DOWN) or bool(vain)

    def said(self) -> str:
        """The last line of its log that is not the server's own: what a kernel said."""
        lines = [STAMP.sub("", line) for line in self.supervisor().logs(LOG_LINES, "")[UNIT]]
        words = [line.strip() for line in lines if line.strip() and not OTHERS.match(line)]
        return words[-1][-300:] if words else ""


def cell_of(params: Dict[str, Any], seconds: float) -> str:
    """The cell's source.

    :param seconds: that it may take.
    """
    if params["probe"] == "cell":
        return "6 * 7"
    source = inspect.getsource(looks.see_engines) + inspect.getsource(looks.see_database)
    calls = ["'engines': see_engines(%r, %r)" % (params["name"], min(CLIENT_SECONDS, seconds / 2))]
    if params["database"]:
        calls.append("'database': see_database(%r, %r)" % (params["database"]["tls"], params["database"]["services"]))
    return "from __future__ import annotations\n%simport json\njson.dumps({%s})" % (source, ", ".join(calls))


def token_of(path: str) -> str:
    """The server's token.

    :raises kernel.KernelError: when it cannot be read, or is none that a server takes.
    """
    try:
        with open(path) as stream:
            token = stream.read().strip()
    except OSError as error:
        raise kernel.KernelError(kernel.ERROR, "%s: cannot be read: %s; run site.yml for its host" % (path, error.strerror)) from error
    if not token.isalnum():
        raise kernel.KernelError(kernel.ERROR, "%s: expected letters and digits, got something else; run site.yml for its host" % path)
    return token


def run_cell(params: Dict[str, Any], code: str, unit: Unit) -> Dict[str, Any]:
    """Run the cell; what came of it, or `kind` and `reason` when it did not run to its end."""
    deadline = time.monotonic() + params["timeout"]
    try:
        server = kernel.Server("127.0.0.1:%d" % params["port"], token_of(params["token_file"]), deadline, unit.is_hopeless)
        shown, seconds = server.run(code)
    except kernel.KernelError as error:
        return {"kind": error.kind, "reason": str(error)}
    except asyncio.CancelledError:
        return {"kind": kernel.ERROR, "reason": "it was cancelled"}
    return {"seconds": seconds, **judge(params["probe"], shown)}


def judge(probe: str, shown: str) -> Dict[str, Any]:
    """What a cell that has run says.

    :param shown: what its last line shows, as Python's source.
    """
    if probe == "cell":
        return {"reason": "" if shown == "42" else "expected the cell to show 42, got %r" % shown}
    try:
        engines, database = seen_by(shown)
    except UNREADABLE:
        return {
            "reason": "expected the cell to show what it saw, got %s; see what the kernel runs when it starts" % (shown[:100] or "nothing")
        }
    problems = []
    if "error" in engines:
        hint = "; from its host, the controller's location has to lead to the controller, and the fleet's ports to be open"
        problems.append("its kernel does not reach the cluster: %s%s" % (engines["error"], hint))
    if "error" in database:
        problems.append("its kernel does not reach the database: %s" % database["error"])
    return {"ids": engines["ids"], "database": database, "reason": "; ".join(problems)}


def seen_by(shown: str) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What a cell saw of the engines and of the database.

    :param shown: what its last line shows, which a kernel of a user may show in a way of its own.
    :raises Exception: one of `UNREADABLE`, when that is something else.
    """
    said = json.loads(ast.literal_eval(shown))
    engines, database = dict(said["engines"]), dict(said.get("database", {}))
    database.pop("again", None)
    engines["ids"] = [int(number) for number in engines["ids"]]
    return engines, database


def explained(found: Dict[str, Any], unit: Unit, state: Dict[str, Any], params: Dict[str, Any]) -> str:
    """The reason for which the cell did not run to its end, with what is known of it on this host."""
    kind, reason = found.get("kind"), str(found["reason"])
    if kind == kernel.UNANSWERED:
        if state["running"] and not state["last"]:
            return "its service runs, but nothing answers on port %d within %d s; see `ipyfleet logs`" % (params["port"], params["timeout"])
        last = "" if NO_MATTER.match(state["last"]) else state["last"]
        return "its service is %s; %s" % (state["state"], "it last said: %s" % last if last else START)
    if kind == kernel.REFUSED:
        return "%s for the token in %s: it was started with another one; %s" % (reason, params["token_file"], RESTART)
    if kind == kernel.DIED:
        said = unit.said()
        return reason + ("; the log last said: %s" % said if said else "; see `ipyfleet logs`")
    if kind == kernel.TIMEOUT:
        return "%s (%d s)" % (reason, params["timeout"])
    return reason


def look(module: AnsibleModule) -> Dict[str, Any]:
    """Run the cell as the server's user, and say what came of it."""
    params, unit = module.params, Unit(module)
    owner = tree.Owner(params["user"])
    # here, since the server's user cannot read this module's source
    code = cell_of(params, params["timeout"])
    state = unit.state()
    if str(state["state"]).startswith(DOWN):
        found: Dict[str, Any] = {"kind": kernel.UNANSWERED, "reason": ""}
    elif params["user"] and owner.uid is None:
        found = {"reason": "there is no user %s; run site.yml for its host" % params["user"]}
    elif params["user"] and not owner.is_me:
        found = tree.in_child(owner, lambda: run_cell(params, code, unit))
    else:
        found = run_cell(params, code, unit)
    if found["reason"] or found.get("kind"):
        state = unit.state()
        found["reason"] = explained(found, unit, state, params)
    found.pop("kind", None)
    return {**found, "state": "failed" if found["reason"] else "ok", "unit": state, "version": version_of("jupyterlab")}


def version_of(package: str) -> str:
    """Version of a package of the environment that this runs by; empty when it has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},  # the fleet's, and its profile's
            "scope": {"type": "str", "required": True, "choices": ["system", "user"]},
            "root": {"type": "path", "required": True},
            "run": {"type": "path", "required": True},  # folder of the notes that units leave
            "port": {"type": "int", "required": True},
            "token_file": {"type": "path", "required": True, "no_log": False},
            "user": {"type": "str", "default": ""},  # who the server runs as, in scope system
            "probe": {"type": "str", "required": True, "choices": ["cell", "fleet"]},
            "timeout": {"type": "float", "required": True},
            "database": {"type": "dict"},  # tls and services, as `see_database` takes them; none without
        },
        supports_check_mode=True,
    )
    os.umask(0o077)
    try:
        result = look(module)
    except (tree.TreeError, SupervisorError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
