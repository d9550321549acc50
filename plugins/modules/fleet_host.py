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
  - Its action plugin of the same name renders the templates and sends the environment's archive.
    The roles of this collection call it; it is of no use without them.
options:
  phase:
    description:
      - V(look) says what is there and what V(converge) would change, and changes nothing.
      - V(status) says how the units do. V(remove) takes the fleet away from the host.
    choices: [look, converge, status, remove]
    required: true
    type: str
  fleet:
    description: Name of the fleet.
    required: true
    type: str
  scope:
    description: V(system) for systemd and a service user, V(user) for supervisord and the login user.
    choices: [system, user]
    required: true
    type: str
  user:
    description: The service user (scope V(system)).
    type: str
    default: ""
  paths:
    description: Folders of the fleet - C(root), C(etc), C(state), C(run).
    type: dict
    required: true
  python:
    description: Interpreter for the environment; the module's own when empty.
    type: path
    default: ""
  lock:
    description: Digest of the lock that the environment has to be built from.
    type: str
    default: ""
  entries:
    description:
      - Folders, files and links, each with C(kind), C(path), C(owner) and C(mode). A C(leftover) is
        what others may make there; it only matters to V(remove).
    type: list
    elements: dict
    default: []
  secrets:
    description: Contents of the secret files among the entries, by path.
    type: dict
    default: {}
  prune:
    description: Patterns of paths; what they match and is no entry is removed.
    type: list
    elements: str
    default: []
  units:
    description: What runs here, each with C(name) and C(inputs), the files it is started with.
    type: list
    elements: dict
    default: []
  archive:
    description: The environment's archive on the host - C(path), C(sha256), C(lock), C(kind), C(compiled).
    type: dict
  probe:
    description: What to find out when looking - C(location), C(address), C(ports), C(client_users).
    type: dict
    default: {}
  keep_data:
    description: Whether V(remove) leaves the work folder alone when there is something in it.
    type: bool
    default: true
attributes:
  check_mode: {support: full, description: Says what it would change.}
  diff_mode: {support: full, description: Files as differences; secret ones masked.}
"""

EXAMPLES = r"""
- name: See what the roles would change
  ipyfleet.cluster.fleet_host:
    phase: look
    fleet: "{{ __ipp_node_prepared.fleet }}"
  register: __ipp_node_look
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
units:
  description: State of each unit by name.
  returned: when phase is look or status
  type: dict
"""

import contextlib
import glob
import os
import pwd
import shutil
from typing import Any, Dict, List, Union

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_env as env
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts as facts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_lock import BusyError, held
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_supervisord import (
    LONGEST_SOCKET_PATH,
    Supervisord,
)
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import SupervisorError, Systemd

MARKER = "fleet.json"


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
        self.supervisor: Union[Systemd, Supervisord]
        if self.system:
            self.supervisor = Systemd(module, module.params["fleet"], self.paths["run"], self.units)
        else:
            config = os.path.join(self.paths["etc"], "supervisord.conf")
            self.supervisor = Supervisord(module, self.paths["root"], self.paths["run"], config, self.units)

    @property
    def lock_file(self) -> str:
        """What is held while the fleet is changed on this host."""
        return os.path.join("/run" if self.system else os.path.expanduser("~"), ".ipyfleet-%s.lock" % self.params["fleet"])

    def carry_out(self, phase: str, result: Dict[str, Any]) -> None:
        """Do what a phase is for, and add what it finds out to `result`."""
        if phase in ("look", "converge"):
            self.converge()
        elif phase == "remove":
            self.remove()
        if phase == "look":
            result["facts"] = self.look()
        if phase in ("look", "status"):
            result["units"] = self.supervisor.status(words=phase == "status")

    # -- converging, or saying what that would change

    def converge(self) -> None:
        """Bring the host about; in check mode only note what that would change."""
        self.changes += self.supervisor.retire()
        if self.system:
            self.service_user()
        before = len(self.changes)
        self.entries(("root",))
        files_changed = len(self.changes) > before
        stamp = self.environment()
        self.entries(sorted({each["owner"] for each in self.params["entries"]} - {"root"}))
        self.prune()
        contents = {**self.contents(), **stamp} if self.module.check_mode else {}
        self.changes += self.supervisor.converge(files_changed, contents)
        if not self.module.check_mode:
            env.remove_others(self.paths["root"])

    def service_user(self) -> None:
        """The account that the services run as."""
        name = self.params["user"]
        if not name or tree.Owner(name).uid is not None:
            return
        self.changes.append({"path": name, "what": "create system user"})
        if self.module.check_mode:
            return
        command = [self.module.get_bin_path("useradd", required=True), "--system", "--user-group", "--no-create-home"]
        shell = self.module.get_bin_path("nologin", opt_dirs=["/usr/sbin", "/sbin"]) or "/bin/false"
        command += ["--home-dir", self.paths["state"], "--shell", shell, "--comment", "ipyfleet services", name]
        code, _, err = self.module.run_command(command)
        if code:
            raise tree.TreeError("useradd %s: %s" % (name, err.strip()))

    def entries(self, owners: Any) -> None:
        """Entries of the given owners; `root` is this process's own user when that is not root."""
        for name in owners:
            found = [self.complete(each) for each in self.params["entries"] if each["owner"] == name]
            found = [each for each in found if each["kind"] != "leftover"]
            owner = tree.Owner(self.account(name))
            for each in found:
                each["path"] = expand(each["path"], owner)
            if not found:
                continue
            if owner.uid is None:
                if not self.module.check_mode:
                    raise tree.TreeError("there is no user %s" % owner.name)
                self.changes += tree.missing_owner(found)
                continue
            self.changes += tree.converge_as(owner, self.module, found)

    def account(self, name: str) -> str:
        """The account that an entry's owner stands for."""
        return {"root": me(), "login": login_user()}.get(name, name)

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
        """The account in whose name an old file is removed: the service user's below its own folder."""
        inside = self.system and path.startswith(self.paths["state"] + os.sep)
        return self.params["user"] if inside else me()

    # -- looking

    def look(self) -> Dict[str, Any]:
        """What is known of the host."""
        probe = self.params["probe"]
        found: Dict[str, Any] = facts.machine()
        found["python"] = self.version
        found["interpreter"] = self.python
        found["free_mb"] = {path: facts.free_mb(self.paths[path]) for path in ("root", "state")}
        found["needs_environment"] = any(each["what"] == "install Python environment" for each in self.changes)
        found["socket_too_long"] = not self.system and len(self.paths["run"] + "/supervisor.sock") > LONGEST_SOCKET_PATH
        if probe.get("location"):
            found["location"] = facts.resolve(probe["location"])
        if probe.get("ports"):
            mine = self.supervisor.status(words=False).get("controller", {})
            mark = self.paths["run"] if not self.system else self.paths["root"]
            found["taken"] = [] if mine.get("running") else facts.taken(probe["address"], probe["ports"], mark)
            pattern = os.path.join(os.path.dirname(self.paths["etc"]), "*", MARKER)
            found["others"] = facts.other_fleets(pattern, os.path.join(self.paths["etc"], MARKER))
        found["no_such_user"] = [each for each in probe.get("client_users", []) if tree.Owner(self.account(each)).uid is None]
        found["foreign"] = [each["path"] for each in self.changes if each.get("foreign")]
        found["other_secrets"] = [each["path"] for each in self.changes if each.get("secret") and each["what"] == "change file"]
        return found

    # -- taking away

    def remove(self) -> None:
        """Take away what `converge` brought; nothing outside of it, and no work folder with something in it."""
        self.check_own()
        self.changes += self.supervisor.stop_all()
        work = os.path.join(self.paths["state"], "work")
        keep = work if self.params["keep_data"] and os.path.isdir(work) and os.listdir(work) else ""
        folders = sorted({path for path in self.paths.values() if not self.inside(path)}, reverse=True)
        outside = [each for each in self.params["entries"] if not self.inside(each["path"]) and each["path"] not in folders]
        self.absent([each for each in outside if each["kind"] != "directory"])
        for path in folders:
            self.remove_folder(path, keep)
        self.absent([each for each in reversed(outside) if each["kind"] == "directory"])
        if self.system and not keep:
            self.remove_user()
        if self.changes and not self.module.check_mode and isinstance(self.supervisor, Systemd):
            self.supervisor.change("daemon-reload")

    def check_own(self) -> None:
        """Refuse folders that exist and do not say that they are this fleet's."""
        marker = os.path.join(self.paths["etc"], MARKER)
        there = [path for path in self.paths.values() if os.path.isdir(path) and os.listdir(path)]
        if there and '"name": "%s"' % self.params["fleet"] not in facts.read_bytes(marker).decode("utf-8", "replace"):
            raise tree.TreeError("%s: expected the description of fleet %s; nothing was removed" % (marker, self.params["fleet"]))

    def inside(self, path: str) -> bool:
        """Whether a path lies in one of the fleet's own folders."""
        return any(path.startswith(each + os.sep) for each in self.paths.values())

    def absent(self, entries: List[Dict[str, Any]]) -> None:
        """Remove entries, each as its owner."""
        for each in entries:
            owner = tree.Owner(self.account(each["owner"]))
            if owner.uid is not None:
                self.changes += tree.converge_as(owner, self.module, [{"kind": "absent", "path": expand(each["path"], owner)}])

    def remove_folder(self, path: str, keep: str) -> None:
        """Remove a folder of the fleet; its description goes last, so that a second try knows it."""
        if not os.path.isdir(path) or os.path.islink(path):
            return
        keeps = keep.startswith(path + os.sep)
        self.changes.append({"path": path, "what": "remove folder" + (", but keep %s" % keep if keeps else "")})
        if not self.module.check_mode:
            empty(path, keep)

    def remove_user(self) -> None:
        """Remove the service user, if it is the one that was made for the fleet."""
        name = self.params["user"]
        if tree.Owner(name).home != self.paths["state"]:
            return
        self.changes.append({"path": name, "what": "remove system user"})
        if not self.module.check_mode:
            code, _, err = self.module.run_command([self.module.get_bin_path("userdel", required=True), name])
            if code:
                raise tree.TreeError("userdel %s: %s" % (name, err.strip()))


def empty(path: str, keep: str) -> None:
    """Remove a folder except for `keep` and what leads to it."""
    for name in sorted(os.listdir(path), key=lambda name: (name in ("etc", MARKER), name)):
        each = os.path.join(path, name)
        if os.path.islink(each) or not os.path.isdir(each):
            os.unlink(each)
        elif keep.startswith(each + os.sep):
            empty(each, keep)
        elif each != keep:
            shutil.rmtree(each)
    if not keep.startswith(path + os.sep):
        os.rmdir(path)


def me() -> str:
    """Name of this process's user."""
    return pwd.getpwuid(os.geteuid()).pw_name


def login_user() -> str:
    """The user who logged in: behind sudo or doas the one who called it."""
    return os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER") or me()


def expand(path: str, owner: tree.Owner) -> str:
    """A path with its leading ~ replaced by the owner's home: for this process's user, the one it was given."""
    if not path.startswith("~/"):
        return path
    return os.path.expanduser(path) if owner.is_me else owner.home + path[1:]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "required": True, "choices": ["look", "converge", "status", "remove"]},
            "fleet": {"type": "str", "required": True},
            "scope": {"type": "str", "required": True, "choices": ["system", "user"]},
            "user": {"type": "str", "default": ""},
            "paths": {"type": "dict", "required": True},
            "python": {"type": "path", "default": ""},
            "lock": {"type": "str", "default": ""},
            "entries": {"type": "list", "elements": "dict", "default": []},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "prune": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "dict", "default": []},
            "archive": {"type": "dict"},
            "probe": {"type": "dict", "default": {}},
            "keep_data": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    phase = module.params["phase"]
    wanted_check = module.check_mode
    module.check_mode = wanted_check or phase == "look"
    result: Dict[str, Any] = {}
    host = Host(module)
    try:
        with contextlib.nullcontext() if module.check_mode else held(host.lock_file):
            host.carry_out(phase, result)
    except (tree.TreeError, env.EnvironmentFailure, SupervisorError, BusyError) as error:
        module.fail_json(msg=str(error), changes=host.changes)
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or phase, error.strerror or error), changes=host.changes)
    module.exit_json(changed=bool(host.changes) and phase != "look", changes=host.changes, **result)


if __name__ == "__main__":
    main()
