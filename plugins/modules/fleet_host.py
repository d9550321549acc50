#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Bring one host of a fleet to what it should be, in a single run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_host
short_description: Look at a host of a fleet, or converge it in a single run
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Brings about, or only looks at, all that a host of a fleet holds - its service user, folders,
    files, Python environment, and the units or programs that run.
  - Its action plugin of the same name takes these options, renders the templates, sends the
    environment's archive, and gives the module its own. The roles of this collection call it; it is
    of no use without them.
options:
  phase:
    description:
      - V(look) says what is there and what V(converge) would change, and changes nothing.
      - V(status) says how the units do, V(logs) what they said. V(remove) takes the fleet away from the host.
      - V(start), V(stop) and V(restart) are for the units alone; what is stopped comes back at the next boot.
      - V(signal) sends a signal to units that run. These four and V(logs) are for the units that O(fleet) has chosen; a signal
        goes to engines where it has chosen none.
      - V(client) is of the action plugin alone, and writes what a client on the control node needs there.
      - V(collect) gathers what is worth knowing of the host for a bug report, without anything secret.
    choices: [look, converge, status, logs, start, stop, restart, signal, remove, client, collect]
    required: true
    type: str
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
  archive:
    description:
      - The environment's archive, as C(ipyfleet.cluster.fleet_archive) returned it for the host. Only
        V(converge) takes it, and only when the environment is to change.
    type: dict
  keep_data:
    description:
      - Whether V(remove) leaves the work folder, notebooks, and databases of scope C(user) alone when there is something in them.
      - Notebooks outside of the fleet's own folders are left alone in any case.
    type: bool
    default: true
  lines:
    description: How many lines of each unit V(logs) and V(collect) give at most.
    type: int
    default: 20
  since:
    description: From when on V(logs) gives them, in the words of C(journalctl); any time when empty.
    type: str
    default: ""
  signal:
    description: What V(signal) sends, by its name without C(SIG).
    choices: [HUP, INT, QUIT, KILL, USR1, USR2, TERM]
    type: str
  dest:
    description: Where V(client) writes the client's connection file on the control node, for nobody else to read.
    type: path
  folder:
    description:
      - Private folder on the control node that V(client) writes all to that a client there needs. That is the
        connection file; for a fleet with a database, what libpq needs to find it and to prove who one is; for one
        with JupyterLab, its token. It is made if it is not there.
    type: path
  engine_dest:
    description: Where V(client) writes the engine's connection file on the control node, for nobody else to read.
    type: path
attributes:
  check_mode: {support: full, description: Says what it would change.}
  diff_mode: {support: full, description: Files as differences; secret ones masked.}
"""

EXAMPLES = r"""
- name: See what the roles would change
  ipyfleet.cluster.fleet_host:
    phase: look
    fleet: "{{ prepared.fleet }}"
  register: look
"""

RETURN = r"""
changes:
  description: What was changed, or would be - each with C(path), C(what) and for files C(diff).
  returned: always
  type: list
  elements: dict
facts:
  description: What is known of the host.
  returned: when phase is look
  type: dict
boot:
  description: Why the fleet does not come back on this host after a reboot; empty when it does. Of scope C(user).
  returned: when phase is status
  type: str
units:
  description: State of each unit by name.
  returned: when phase is look, status or collect
  type: dict
kept:
  description: Folders that were left alone, because people have something in them.
  returned: when phase is remove
  type: list
  elements: str
logs:
  description: Lines of each unit by name.
  returned: when phase is logs or collect
  type: dict
collected:
  description: Texts about the host - C(machine) by name, C(files) by path, C(units), C(listing) and C(packages).
  returned: when phase is collect
  type: dict
"""

import contextlib
import glob
import os
from typing import Any, Dict, List, Optional, Union

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_accounts as accounts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_data_dir as data_dir
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_env as env
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts as facts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_limits as limits
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_boot import LINGER, Boot
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_collect import collect
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_held import Held
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_lock import BusyError, held
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_removal import MARKER, Removal
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_supervisord import (
    LONGEST_SOCKET_PATH,
    Supervisord,
    command_of,
)
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import SupervisorError, Systemd

READING = ["look", "status", "logs", "collect"]
PHASES = [*READING, "converge", "start", "stop", "restart", "signal", "remove"]


class Host:
    """One host of a fleet, as the module's parameters want it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.paths: Dict[str, str] = module.params["paths"]
        self.system = module.params["scope"] == "system"
        self.python = env.base_interpreter(module.params["python"])
        self.version = env.interpreter_version(module, self.python)
        self.units: List[Dict[str, Any]] = module.params["units"]
        self.changes: List[Dict[str, Any]] = []
        self.held = Held(module, module.params["held"])
        self.supervisor: Union[Systemd, Supervisord]
        self.boot: Optional[Boot] = None
        if self.system:
            self.supervisor = Systemd(module, module.params["fleet"], self.paths["run"], self.units)
        else:
            root, config = self.paths["root"], os.path.join(self.paths["etc"], "supervisord.conf")
            wanted = module.params["at_boot"] and bool(self.units)
            self.boot = Boot(module, module.params["fleet"], command_of(root, config), ["--nodaemon"], wanted)
            self.supervisor = Supervisord(module, root, self.paths["run"], config, self.units, self.boot)

    @property
    def lock_file(self) -> str:
        """What is held while the fleet is changed on this host."""
        return os.path.join("/run" if self.system else os.path.expanduser("~"), ".ipyfleet-%s.lock" % self.params["fleet"])

    def carry_out(self, phase: str, result: Dict[str, Any]) -> None:
        """Do what a phase is for, and add what it finds out to `result`."""
        powerless = self.system and os.geteuid() != 0
        if powerless and phase not in READING:
            raise tree.TreeError("expected to be root, got %s; set ansible_become, or scope: user" % tree.me())
        if phase in ("look", "converge") and not powerless:
            self.converge()
        elif phase == "remove":
            self.changes += self.held.retire(everything=True)
            removal = Removal(self.module, self.supervisor, self.changes)
            removal.carry_out()
            result["kept"] = removal.kept
        elif phase in ("start", "stop", "restart"):
            self.act(phase)
        elif phase == "signal":
            name = self.params["signal"]
            # engines that are no services are not known one by one
            by_itself = self.params["held"]["by"] != "service" and all(each.startswith("engine@") for each in self.params["only"])
            self.changes += self.held.signal(name) if by_itself else self.supervisor.signal(name, self.params["only"])
        elif phase in ("logs", "collect"):
            result["logs"] = self.supervisor.logs(self.params["lines"], self.params["since"], self.params["only"])
            result.update({"collected": collect(self.params)} if phase == "collect" else {})
        if phase == "look":
            for program, package in sorted(self.params["probe"].get("needs", {}).items()):
                if not os.path.exists(program):
                    raise tree.TreeError("expected the program %s, got none; install %s" % (program, package))
            result["facts"] = self.look()
            programs = self.params["probe"].get("programs", ())
            # those that the distribution's packages bring
            self.changes += [{"path": each, "what": "install"} for each in programs if not os.path.exists(each)]
        if phase in ("look", "status", "collect"):
            result["units"] = self.supervisor.status(words=phase != "look")
        if phase == "status" and self.boot:
            result["boot"] = self.boot.problem(there=True)

    # -- converging, or saying what that would change

    def converge(self) -> None:
        """Bring the host about; in check mode only note what that would change."""
        wrong = list(accounts.problems(self.params["accounts"]))
        if wrong:
            raise tree.TreeError("; ".join(wrong))
        self.changes += self.supervisor.retire()
        for each in self.params["accounts"]:
            self.changes += accounts.create(self.module, each)
            if each.get("keys"):
                path = os.path.join(each["home"], ".ssh", "authorized_keys")
                self.changes += accounts.close(self.module, each["name"], path, self.contents()[path])
        before = len(self.changes)
        self.entries(("root",))
        files_changed = len(self.changes) > before
        stamp = self.environment()
        self.entries(sorted({each["owner"] for each in self.params["entries"]} - {"root"}))
        self.prune()
        self.retire_accounts()
        self.changes += self.held.retire()
        contents = {**self.contents(), **stamp} if self.module.check_mode else {}
        self.changes += self.supervisor.converge(files_changed, contents)
        if self.held.reads(self.changes):
            self.changes += self.held.restart()
        if not self.module.check_mode:
            env.remove_others(self.paths["root"])

    def entries(self, owners: Any) -> None:
        """Entries of the given owners; `root` is this process's own user when that is not root."""
        for name in owners:
            found = [self.complete(each) for each in self.params["entries"] if each["owner"] == name]
            found = [each for each in found if each["kind"] != "leftover"]
            owner = tree.Owner(tree.account(name))
            for each in found:
                each["path"] = tree.expand(each["path"], owner)
            if not found:
                continue
            if owner.uid is None:
                if not self.module.check_mode:
                    raise tree.TreeError("there is no user %s" % owner.name)
                self.changes += tree.missing_owner(owner, found)
                continue
            self.changes += tree.converge_as(owner, self.module, found)

    def complete(self, entry: Dict[str, Any]) -> Dict[str, Any]:
        """An entry with its content, if that is secret."""
        secret = self.params["secrets"].get(entry["path"])
        return dict(entry) if secret is None else {**entry, "content": secret, "secret": True}

    def contents(self) -> Dict[str, str]:
        """What files will hold, by path."""
        found = [self.complete(each) for each in self.params["entries"]]
        return {each["path"]: each["content"] for each in found if each["kind"] == "file"}

    def environment(self) -> Dict[str, str]:
        """The Python environment; returns what stands for its stamp while that is not there yet."""
        root, lock = self.paths["root"], self.params["lock"]
        if lock and env.is_current(root, lock, self.version or "", self.python):
            return {}
        self.changes.append({"path": os.path.join(root, "env"), "what": "install Python environment"})
        if not self.module.check_mode:
            archive = self.params["archive"]
            if not archive:
                raise env.EnvironmentFailure("no archive of the environment was sent to this host")
            env.install(self.module, root, archive, self.version or "", self.python)
        return {os.path.join(root, "env", env.STAMP): "not there yet"}

    def prune(self) -> None:
        """Remove what an earlier description of the host had brought, and this one has not."""
        wanted = {each["path"] for each in self.params["entries"]}
        for pattern in self.params["prune"]:
            for path in sorted(glob.glob(pattern)):
                owner = tree.Owner(self.owner_of(path))
                if path in wanted or owner.uid is None:
                    continue
                entry = {"kind": "absent", "path": path}
                self.changes += tree.converge_as(owner, self.module, [entry])

    def owner_of(self, path: str) -> str:
        """The account in whose name an old file is removed: below a folder that root gave away, the one that has it."""
        given = (self.paths["state"], os.path.join(self.paths["lab"], "home"), self.paths["lab_run"])
        for folder in given:
            if path.startswith(folder + os.sep):
                return tree.name_of(os.lstat(folder).st_uid)
        return tree.me()

    def retire_accounts(self) -> None:
        """Remove accounts for tunnels where the fleet has none any more, or has one of another name."""
        wanted = [each["name"] for each in self.params["accounts"]]
        for name in accounts.living_in([self.paths["tunnel"], self.paths["door"]]) if self.system else []:
            if name not in wanted:
                self.changes += accounts.remove(self.module, name)

    # -- looking

    def look(self) -> Dict[str, Any]:
        """What is known of the host."""
        probe = self.params["probe"]
        found: Dict[str, Any] = facts.machine()
        found["python"] = self.version
        found["interpreter"] = self.python
        found["free_mb"] = {path: facts.free_mb(self.paths[path]) for path in ("root", "state")}
        found["mounted"] = {self.paths[path]: facts.mounted(self.paths[path], path == "root") for path in ("root", "etc", "state")}
        found["needs_environment"] = any(each["what"] == "install Python environment" for each in self.changes)
        found["socket_too_long"] = not self.system and len(self.paths["run"] + "/supervisor.sock") > LONGEST_SOCKET_PATH
        found["server"] = "" if self.system else facts.server_of(self.paths["root"])
        if self.boot and self.boot.wanted:
            found["boot"] = self.boot.problem()
            found["ends_with_login"] = self.boot.ends_with_login() and self.boot.way() != LINGER
        if probe.get("location"):
            found["location"] = facts.resolve(probe["location"])
            if probe.get("controller_port"):
                found["location"]["no_way"] = facts.no_way(found["location"]["addresses"], probe["controller_port"])
        if probe.get("database"):
            found["database"] = facts.source(probe["database"]["host"], probe["database"]["port"])
        if "ssh" in probe:
            found["ssh"] = facts.ssh_identity(probe["ssh"])
        if probe.get("ports"):
            found["addresses"] = facts.own_addresses()
            mine = self.supervisor.status(words=False).get("controller", {})
            mark = self.paths["run"] if not self.system else self.paths["root"]
            found["taken"] = [] if mine.get("running") else facts.taken(probe["address"], probe["ports"], mark)
            pattern = os.path.join(os.path.dirname(self.paths["etc"]), "*", MARKER)
            found["others"] = facts.other_fleets(pattern, os.path.join(self.paths["etc"], MARKER))
        for name, place in sorted(probe.get("services", {}).items()):
            found["taken"] = found.get("taken", []) + self.taken_from(name, **place)
        found["refused"] = [*self.refused(), *self.unfit()]
        found["no_such_user"] = [each for each in probe.get("client_users", []) if tree.Owner(tree.account(each)).uid is None]
        found["foreign"] = self.foreign()
        found["other_secrets"] = [each["path"] for each in self.changes if each.get("secret") and each["what"] == "change file"]
        return found

    def taken_from(self, name: str, address: str, port: int) -> List[Dict[str, Any]]:
        """The port of a unit, if something else listens on it."""
        mine = self.supervisor.status(words=False).get(name, {})
        return [] if mine.get("running") else facts.taken(address, [port], self.paths["root"] if self.system else self.paths["run"])

    def refused(self) -> List[str]:
        """What programs say of a file that is about to change, if they are here and will stay as they are."""
        found: List[str] = []
        changing = {each["path"] for each in self.changes}
        for check in [unit["check"] for unit in self.units if unit.get("check")]:
            interpreter, program = check["command"][:2]
            here = os.access(interpreter, os.X_OK) and os.path.exists(program)
            new = any(os.path.dirname(each) == os.path.dirname(program) for each in changing)
            if check["path"] in changing and here and not new:
                code, out, err = self.module.run_command(check["command"], data=self.contents()[check["path"]])
                found += out.splitlines() if code == 0 else ["%s: %s" % (check["path"], env.last_line(err))]
        return found

    def unfit(self) -> List[str]:
        """What speaks against the folder of notebooks, if the fleet file names one, and the limits of engines."""
        probe = self.params["probe"]
        path, user = probe.get("data_dir", ""), probe.get("data_user") or tree.me()
        found = list(data_dir.problems(path, user, self.paths, self.system)) if path else []
        return found + (list(limits.problems(probe["limits"])) if probe.get("limits") else [])

    def foreign(self) -> List[str]:
        """What others have under the names of this fleet."""
        found = {each["path"] for each in self.changes if each.get("foreign")}
        # the first file of all that a fleet brings: without it, none of what is here can be the fleet's
        if not os.path.exists(os.path.join(self.paths["etc"], MARKER)):
            found |= {each["path"] for each in self.changes if each["what"] == "change file"}
            found |= set(facts.strangers([self.paths[path] for path in ("root", "etc", "state", "lab", "tunnel", "door")]))
        return sorted(found)

    # -- units alone

    def act(self, phase: str) -> None:
        """Start, stop or restart the units."""
        marker = os.path.join(self.paths["etc"], MARKER)
        if not os.path.exists(marker):
            if phase == "stop":
                return
            raise tree.TreeError("expected fleet %s on this host, got no %s; deploy it first" % (self.params["fleet"], marker))
        # what starts engines is meant with them, as they are no services
        if phase == "restart" and not self.params["only"]:
            self.changes += self.held.restart()
        verbs = {"start": self.supervisor.start_all, "stop": self.supervisor.halt, "restart": self.supervisor.restart_all}
        self.changes += verbs[phase](self.params["only"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "required": True, "choices": PHASES},
            "fleet": {"type": "str", "required": True},
            "scope": {"type": "str", "required": True, "choices": ["system", "user"]},
            # of scope system: name, home, data, comment, the variable that it is set_by, and keys where people log in with ssh keys
            "accounts": {"type": "list", "elements": "dict", "default": []},
            "paths": {"type": "dict", "required": True},  # root, etc, state, run, lab, lab_run, tunnel, door
            "python": {"type": "path", "default": ""},  # for the environment; this one when empty
            "lock": {"type": "str", "default": ""},  # digest of the lock that the environment is to be built from
            # folders, files and links; a leftover is what others may make there, and only matters to remove
            "entries": {"type": "list", "elements": "dict", "default": []},
            "secrets": {"type": "dict", "default": {}, "no_log": True},  # contents of secret files, by path
            "prune": {"type": "list", "elements": "str", "default": []},  # patterns; what matches and is no entry goes
            # name; inputs: the files it is started with; run: where it notes that; check
            "units": {"type": "list", "elements": "dict", "default": []},
            "held": {"type": "dict", "required": True},  # by what engines are started; engine, program and mark; inputs
            "archive": {"type": "dict"},  # on the host: path, sha256, lock, kind, compiled
            "probe": {"type": "dict", "default": {}},  # what to find out: see `look`
            "at_boot": {"type": "bool", "default": False},  # of scope user: whether it is to start at boot
            "keep_data": {"type": "bool", "default": True},
            "lines": {"type": "int", "default": 20},
            "since": {"type": "str", "default": ""},
            "signal": {"type": "str"},
            "only": {"type": "list", "elements": "str", "default": []},  # units that the phase is about; all when empty
        },
        supports_check_mode=True,
    )
    phase = module.params["phase"]
    wanted_check = module.check_mode
    module.check_mode = wanted_check or phase == "look"
    result: Dict[str, Any] = {}
    host = Host(module)
    try:
        # a signal waits for no other run: it may be meant to end what that one waits for
        reads = module.check_mode or phase in (*READING, "signal")
        with contextlib.nullcontext() if reads else held(host.lock_file):
            host.carry_out(phase, result)
    except (tree.TreeError, env.EnvironmentFailure, SupervisorError, BusyError) as error:
        module.fail_json(msg=str(error), changes=host.changes)
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or phase, error.strerror or error), changes=host.changes)
    module.exit_json(changed=bool(host.changes) and phase != "look", changes=host.changes, **result)


if __name__ == "__main__":
    main()
