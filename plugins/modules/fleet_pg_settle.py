#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Give a PostgreSQL server a configuration, see that it has taken it, and go back when it has not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_pg_settle
short_description: Give a PostgreSQL server its configuration, and see that it has taken it
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Puts settings, rules of access and certificate in place, has the server read them, and compares
    what the server does with what was asked for - settings, rules, sockets, and the certificate that it shows.
  - Restarts the server only where that is allowed, or disturbs nobody. When the server does not take a
    configuration, the files that last worked are put back.
options:
  fleet:
    description: Name of the fleet.
    required: true
    type: str
  version:
    description: Major version of the cluster.
    required: true
    type: str
  cluster:
    description: Name of the cluster.
    type: str
    default: main
  state:
    description: V(absent) takes the fleet's files away, and puts the first pg_hba.conf back.
    choices: [present, absent]
    type: str
    default: present
  conf:
    description: The drop-in with the fleet's settings.
    type: str
    default: ""
  hba:
    description: The whole pg_hba.conf.
    type: str
    default: ""
  pem:
    description: The server's key and certificate, with those that lead to the authority. Secret.
    type: str
    default: ""
  ca:
    description: Certificate of the authority.
    type: str
    default: ""
  port:
    description: Port that the server shall listen on.
    type: int
    default: 5432
  listen:
    description: Addresses that it shall listen on.
    type: list
    elements: str
    default: []
  allow_restart:
    description: Whether the server may be restarted though that ends connections.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: "Says what it would change, and whether that takes a restart."}
  diff_mode: {support: full, description: "Files as differences; the key, and passwords for other servers, are never shown."}
"""

EXAMPLES = r"""
- name: Put the configuration in place
  ipyfleet.cluster.fleet_pg_settle:
    fleet: lab
    version: "15"
    conf: "{{ conf }}"
    hba: "{{ hba }}"
"""

RETURN = r"""
changes:
  description: What was changed, or would be - each with C(path), C(what) and for files C(diff).
  returned: always
  type: list
  elements: dict
pending:
  description: Settings that wait for a restart.
  returned: always
  type: list
  elements: str
waits:
  description: What to say of them, when a restart is not allowed; else empty. It is no failure, because the server serves.
  returned: success
  type: str
port:
  description: Port of the server now; 0 when it does not run.
  returned: success
  type: int
"""

import contextlib
import time
from typing import Any, Callable, Dict, Iterator, List, Set

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_pg_server as server
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_pg_state as state
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_lock import BusyError, held
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_files import Files
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_tree import TreeError, diff_of

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.1
# options of which differences are shown, though they are in no log
SHOWN_MASKED = ("conf", "hba")


class Refused(Exception):
    """The server did not take what it was given; the message is one line."""


class Settling:
    """One cluster on its way to the configuration that the module's parameters want."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.wanted = dict(module.params)
        kind = server.family(server.read_text("/etc/os-release"))
        self.where = server.layout(kind, module.params["version"], module.params["cluster"])
        self.present = module.params["state"] == "present"
        self.files = Files(module, self.where)
        self.database = server.Database(self.where)
        self.unit = server.Unit(self.where)
        self.changes: List[Dict[str, Any]] = []
        self.pending: List[str] = []
        self.waits = ""
        # settings that are the fleet's, or were when the server last started
        self.ours: Set[str] = set()

    def note(self, what: str) -> None:
        """Note a change of the unit."""
        self.changes.append({"path": self.where.unit, "what": what})

    def carry_out(self) -> None:
        """Settle, or say what that would change.

        :raises Refused: when the server does not take it.
        """
        before = server.read_text(self.where.drop_in)
        last_good = self.files.kept().get(self.where.drop_in) or ""
        self.ours = {name for text in (before, last_good, self.wanted["conf"]) for name in server.settings_in(text)}
        if not self.module.check_mode and self.present:
            self.files.keep(only_first=True)
        wanted = {name: self.wanted[name] for name in ("conf", "hba", "pem", "ca")}
        self.changes += self.files.put(self.files.present(**wanted) if self.present else self.files.absent())
        for each in self.changes:
            # a copy of what was there before: that it differs from nothing says nothing
            if each["path"] == self.where.first_hba:
                each.pop("diff", None)
        runs = server.postmaster(self.where) is not None
        if self.module.check_mode:
            if runs:
                self.foresee(before)
            elif self.present:
                self.note("start")
            return
        if not (runs or self.present):
            return
        self.activate()
        self.pending = self.waiting()
        if self.pending:
            self.restart_for(self.pending)
        if self.present and not self.pending:
            self.files.keep()

    def foresee(self, before: str) -> None:
        """Say whether the changes take a reload or a restart of a server that runs."""
        only = {row["name"] for row in self.database.rows(state.RESTART_ONLY)}
        self.pending = sorted({*state.changed_settings(before, self.wanted["conf"]) & only, *self.waiting()})
        if self.pending and self.may_restart():
            self.note("restart, for %s" % ", ".join(self.pending))
            return
        if self.changes or self.stale():
            self.note("reload")
        if self.pending:
            self.module.warn(self.asks_for_restart(self.pending) if self.present else self.stays(self.pending))

    # -- having the server read its files

    def activate(self) -> None:
        """Have a server that runs read its files, start one that does not, and see that it took them."""
        mark = self.unit.log_mark()
        if server.postmaster(self.where) is None:
            self.note("start")
            why = self.unit.systemctl("start")
            if why or not until(self.database.answers):
                self.go_back("start", mark.reason() or why)
        elif self.stale():
            self.note("reload")
            at = state.loaded_at(self.database)
            why = self.unit.systemctl("reload")
            if why or not until(lambda: state.loaded_at(self.database) > at):
                self.go_back("reload", next(self.faults(), "") or mark.reason() or why)
        fault = next(self.faults(), "")
        if fault:
            self.go_back("reload", fault)

    def stale(self) -> bool:
        """Whether there are files that the server has not read yet, whoever changed them and when."""
        if state.touched_at(state.our_files(self.where)) > state.loaded_at(self.database):
            return True
        return any("certificate" in fault for fault in self.certificate_faults())

    def faults(self) -> Iterator[str]:
        """What a server that runs has not taken of its files."""
        yield from state.file_faults(self.database.rows(state.FILES), self.where.drop_in)
        yield from state.rule_faults(self.database.rows(state.RULES))
        yield from self.certificate_faults()

    def certificate_faults(self) -> Iterator[str]:
        """Whether clients see another certificate than the one of the file."""
        process = server.postmaster(self.where)
        address = state.reachable(self.heard(process.port)) if process else ""
        wanted = state.first_certificate(self.wanted["pem"])
        if process and address and wanted and state.served_certificate(address, process.port) != wanted:
            yield "expected the certificate of %s to be shown at %s port %d, got another one" % (self.where.pem, address, process.port)

    # -- restarting

    def waiting(self) -> List[str]:
        """What waits for a restart: settings, and addresses that the server could not listen on."""
        found = [row["name"] for row in self.database.rows(state.PENDING)]
        theirs = state.theirs(self.database.rows(state.FILES), self.ours)
        found = [name for name in found if name not in theirs]
        unheard = self.unheard() if self.present and "listen_addresses" not in found and "port" not in found else []
        return found + (["listen_addresses (%s)" % ", ".join(unheard)] if unheard else [])

    def unheard(self) -> List[str]:
        """Addresses on which the server should listen, and does not."""
        return state.unheard(self.wanted["listen"], self.heard(self.wanted["port"]))

    def heard(self, port: int) -> Set[str]:
        """Addresses on which the server itself listens on a port."""
        process = server.postmaster(self.where)
        return state.listening(port, state.sockets_of(process.pid, self.where.user)) if process else set()

    def may_restart(self) -> bool:
        """Whether a restart is allowed, or disturbs nobody."""
        found = state.disturbed(self.database)
        return bool(self.wanted["allow_restart"]) or not (found.databases or found.clients)

    def asks_for_restart(self, names: List[str]) -> str:
        """What to say when a restart is not allowed."""
        what = "%s take%s a restart of cluster %s" % (", ".join(names), "s" if len(names) == 1 else "", self.where.name)
        why = "postgresql_allow_restart: expected true, because %s that would disturb %s" % (what, state.disturbed(self.database))
        done = "" if self.module.check_mode else "all else is in place, and the server serves: "
        return "%s; %srun again with -e postgresql_allow_restart=true" % (why, done)

    def stays(self, names: List[str]) -> str:
        """What to say of a removal that waits for a restart."""
        return "cluster %s: %s stay as they are until its next restart" % (self.where.name, ", ".join(names))

    def restart_for(self, names: List[str]) -> None:
        """Restart the server, if that may be, and see that it took what waited."""
        if not self.may_restart():
            if self.present:
                self.waits = self.asks_for_restart(names)
            else:
                self.module.warn(self.stays(names))
            return
        self.note("restart, for %s" % ", ".join(names))
        mark = self.unit.log_mark()
        why = self.unit.systemctl("restart")
        if why or not until(self.database.answers):
            self.go_back("restart", mark.reason() or why)
        fault = next(self.faults(), "")
        waiting = self.waiting() if not fault else []
        if fault or waiting:
            self.go_back("restart", fault or "%s still wait: %s" % (", ".join(waiting), mark.reason()))
        self.pending = []

    def go_back(self, verb: str, why: str) -> None:
        """Put the files back that last worked, and have the server use them.

        :raises Refused: always, with why, and how the server is now.
        """
        reason = "cluster %s: expected the server to take its configuration on %s, got: %s" % (self.where.name, verb, why or "no reason")
        if not self.present:
            raise Refused(reason)
        changed = self.files.put_back()
        running = server.postmaster(self.where) is not None and verb == "reload"
        failed = self.unit.systemctl("reload" if running else "restart")
        if failed or not until(self.database.answers):
            raise Refused("%s; it does not start with the files that last worked either: %s" % (reason, failed or "no answer"))
        end = "the files that last worked are back, and the server serves" if changed else "the server serves"
        raise Refused("%s; %s" % (reason, end))


def until(test: Callable[[], bool]) -> bool:
    """Wait until something is so; returns whether it is in the end."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        # a server between two states does not answer
        with contextlib.suppress(server.ServerError):
            if test():
                return True
        time.sleep(POLL_SECONDS)
    return False


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fleet": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "cluster": {"type": "str", "default": "main"},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            # either may have a password for another server in it
            "conf": {"type": "str", "default": "", "no_log": True},
            "hba": {"type": "str", "default": "", "no_log": True},
            "pem": {"type": "str", "default": "", "no_log": True},
            "ca": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 5432},
            "listen": {"type": "list", "elements": "str", "default": []},
            "allow_restart": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        settling = Settling(module)
    except TreeError as error:
        module.fail_json(msg=str(error), changes=[], pending=[])
    # Ansible would hide whole files from --diff, which has them without what is secret
    module.no_log_values -= {module.params[name] for name in SHOWN_MASKED}
    module.params.update(dict.fromkeys(SHOWN_MASKED, ""))
    try:
        lock = "/run/.ipyfleet-postgresql-%s-%s.lock" % (settling.where.version, settling.where.cluster)
        with contextlib.nullcontext() if module.check_mode else held(lock):
            settling.carry_out()
    except (Refused, TreeError, BusyError, server.ServerError) as error:
        module.fail_json(msg=str(error), changed=bool(settling.changes), changes=settling.changes, pending=settling.pending)
    process = server.postmaster(settling.where)
    module.exit_json(
        changed=bool(settling.changes),
        changes=settling.changes,
        pending=settling.pending,
        waits=settling.waits,
        port=process.port if process else 0,
        diff=diff_of(settling.changes),
    )


if __name__ == "__main__":
    main()
