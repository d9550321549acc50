# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet file, read and checked: from YAML data to a `Fleet`, or to every problem it has.

No function here touches a host or a file: data in, dataclasses or `FleetFileError` out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import limits, names
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import VARIABLE, Problem, Values
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import Positions
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import BLOCK, FIRST, LAST

PLUGIN_NAMES = ("fleet", "ipyfleet.cluster.fleet")
# groups whose hosts are the fleet's own: all that they hold is brought about in one pass
MEMBERS = ("ipp_controller", "ipp_engine", "ipp_client", "jupyterlab")
GROUPS = (*MEMBERS, "postgresql")
# roles whose hosts run what connects to the database
DATABASE_CLIENTS = ("ipp_engine", "ipp_client", "jupyterlab")
CONSTRUCTED = ("strict", "compose", "groups", "keyed_groups", "use_extra_vars", "leading_separator")
TOP = (
    "plugin", "name", "scope", "controller", "engines", "postgresql", "jupyterlab", "clients",
    "hosts", "defaults", "python_packages", "ports", "secrets_dir", *CONSTRUCTED,
)  # fmt: skip
ENGINE_KEYS = (
    "slots", "gpus", "gpus_per_slot", "gpu_variable", "cpus", "memory_max", "env", "user_python_packages", "reserve_cores",
    "memory_per_engine", "args", "location", "tunnel", "launcher",
)  # fmt: skip
CONTROLLER_KEYS = ("host", "location", "ip", "launcher")
CLIENT_KEYS = ("host", "engines")
# beside the host, the variables of the role postgresql without their prefix
POSTGRESQL_KEYS = (
    "host", "location", "port", "version", "cluster", "databases", "users", "privileges", "user", "allow", "hba",
    "replace_hba", "allow_insecure", "client_certificates", "listen_addresses", "settings", "memory_mb", "max_connections",
    "allow_restart", "binaries", "backup", "backup_dir", "backup_keep", "backup_calendar", "drill", "python_packages", "templates_dir",
)  # fmt: skip
JUPYTERLAB_KEYS = (
    "host", "port", "user", "data_dir", "python_packages", "memory_max", "cpu_quota", "tasks_max", "cluster_tab",
    "tunnel_keys", "tunnel_user", "verify_timeout", "templates_dir",
)  # fmt: skip
# The connection variables that people set by hand; a near miss of one of them is a typo.
CONNECTION_VARS = (
    "ansible_host", "ansible_port", "ansible_user", "ansible_connection", "ansible_password",
    "ansible_ssh_private_key_file", "ansible_ssh_common_args", "ansible_ssh_extra_args",
    "ansible_become", "ansible_become_method", "ansible_become_user", "ansible_become_password",
    "ansible_python_interpreter", "ansible_remote_tmp", "ansible_ssh_pipelining",
    "ansible_ssh_executable", "ansible_shell_executable", "ansible_host_key_checking",
    "ansible_ssh_host", "ansible_ssh_port", "ansible_ssh_user", "ansible_ssh_pass", "ansible_ssh_args",
    "ansible_become_pass", "ansible_become_flags", "ansible_become_exe",
)  # fmt: skip
NAME = re.compile(r"[a-z][a-z0-9-]{0,18}[a-z0-9]|[a-z]")
ADDRESS = re.compile(r"[A-Za-z0-9_.:*-]+")


class FleetFileError(ValueError):
    """Everything that is wrong with a fleet file, in the file's order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class Fleet:
    """A fleet as its file describes it: variables by host and for all, and groups of hosts."""

    name: str
    scope: str
    groups: dict[str, tuple[str, ...]]
    all_vars: dict[str, Any]
    host_vars: dict[str, dict[str, Any]]


def read_fleet(data: object, file: str, where: Positions) -> Fleet:
    """Turn the data of a fleet file into a fleet.

    :param data: what the YAML loader made of the file.
    :param file: the file's name, for messages.
    :param where: lines of the file's keys.
    :raises FleetFileError: with every problem found.
    """
    reader = _Reader(file, where)
    fleet = reader.read(data)
    if reader.problems:
        raise FleetFileError(reader.problems)
    return fleet


@dataclass
class _Reader(Values):
    users: dict[str, str] = field(default_factory=dict)

    def hosts(self, path: Sequence[str], pattern: object) -> list[str]:
        """Expand one `host`, `user@host` or range, noting its user."""
        if not isinstance(pattern, str):
            self.expected(path, "a host name", pattern)
            return []
        user, rest = names.split_user(pattern)
        if user is not None and not names.USER.fullmatch(user):
            self.expected(path, "HOST or USER@HOST", pattern)
            return []
        try:
            found = names.expand(rest)
        except ValueError as error:
            self.expected(path, str(error), pattern)
            return []
        for host in found:
            if host in GROUPS:
                self.wrong(path, f"expected a host name that is not a group's, got {host!r}")
            if user and self.users.setdefault(host, user) != user:
                self.wrong(path, f"expected one user for {host}, got {self.users[host]} and {user}")
        return found

    def one_host(self, path: Sequence[str], value: object) -> tuple[str, ...]:
        found = self.hosts(path, value)
        if len(found) > 1:
            self.expected(path, "a single host", value)
        return tuple(found[:1])

    # -- sections

    def read(self, data: object) -> Fleet:
        top = self.mapping((), data, "a mapping of keys such as `plugin`, `name`, `controller`")
        for path, first, line in self.where.duplicates:
            self.wrong(path, f"stands twice, on lines {first} and {line}", line)
        self.known((), top, TOP)
        if top.get("plugin") not in PLUGIN_NAMES:
            self.expected(("plugin",), " or ".join(f"`{name}`" for name in PLUGIN_NAMES), top.get("plugin"))
        what = "lower-case letters, digits and dashes, at most 20, a letter first"
        name = self.text(("name",), top.get("name"), NAME, what)
        scope = top.get("scope", "system")
        if scope not in ("system", "user"):
            self.expected(("scope",), "`system` or `user`", scope)
        everywhere: dict[str, Any] = {"fleet_name": name, "fleet_scope": scope}
        everywhere |= self.fleet_options(top)
        engines = self.engines(top.get("engines"))
        clients = self.clients(top.get("clients", []))
        groups = {
            "ipp_controller": self.controller(top.get("controller"), everywhere),
            "ipp_engine": tuple(engines),
            "ipp_client": tuple(clients),
            "postgresql": self.service(top, "postgresql", POSTGRESQL_KEYS, everywhere),
            "jupyterlab": self.service(top, "jupyterlab", JUPYTERLAB_KEYS, everywhere),
        }
        members = {host for hosts in groups.values() for host in hosts}
        variables = {host: {**engines.get(host, {}), **clients.get(host, {})} for host in sorted(members)}
        for host, user in self.users.items():
            variables.setdefault(host, {})["ansible_user"] = user
        everywhere |= self.variables(("defaults",), top.get("defaults", {}))
        for host, extra in self.host_section(top.get("hosts", {}), members):
            variables.setdefault(host, {}).update(extra)
        return Fleet(name, scope, groups, everywhere, variables)

    def fleet_options(self, top: Mapping[str, Any]) -> dict[str, Any]:
        """Options that concern the fleet as a whole, as variables."""
        options: dict[str, Any] = {}
        if "ports" in top:
            what = f"the first port of a block of {BLOCK}, {FIRST} to {LAST}"
            options["fleet_ports"] = self.integer(("ports",), top["ports"], FIRST, LAST, what)
        if "python_packages" in top:
            options["fleet_python_packages"] = self.packages(("python_packages",), top["python_packages"])
        if "secrets_dir" in top:
            options["fleet_secrets_dir"] = self.text(("secrets_dir",), top["secrets_dir"], re.compile(".+"), "a folder")
        return options

    def controller(self, value: object, everywhere: dict[str, Any]) -> tuple[str, ...]:
        path: tuple[str, ...] = ("controller",)
        if isinstance(value, Mapping):
            self.known(path, value, CONTROLLER_KEYS)
            if "launcher" in value:
                everywhere["ipp_controller_launcher"] = self.choice((*path, "launcher"), value["launcher"], ("service", "ssh"))
            for key in ("location", "ip"):
                if key in value:
                    what = "a name or address that engines and clients reach" if key == "location" else "an address to bind, or *"
                    everywhere[f"ipp_controller_{key}"] = self.text((*path, key), value[key], ADDRESS, what)
            path, value = (*path, "host"), value.get("host")
        return self.one_host(path, value)

    def engines(self, value: object) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        if not isinstance(value, Mapping) or not value:
            self.expected(("engines",), "a mapping of hosts to numbers of slots, such as `node[01:08]: 4`", value)
            return found
        origin: dict[str, str] = {}
        for key, content in value.items():
            path = ("engines", str(key))
            variables = self.engine_host(path, content)
            for host in self.hosts(path, key):
                if host in origin:
                    self.wrong(path, f"expected each host once, got {host} here and in engines.{origin[host]}")
                origin.setdefault(host, str(key))
                found[host] = variables
        return found

    def engine_host(self, path: Sequence[str], value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {"ipp_engine_slots": self.slots(path, value)}
        self.known(path, value, ENGINE_KEYS)
        variables: dict[str, Any] = {"ipp_engine_slots": self.slots((*path, "slots"), value.get("slots", "auto"))}
        checks: dict[str, tuple[str, Callable[[Sequence[str], Any], Any]]] = {
            "gpus": ("ipp_engine_gpus", self.gpus),
            "gpus_per_slot": ("ipp_engine_gpus_per_slot", lambda at, v: self.gpus_per_slot(at, v, value.get("gpus", 0))),
            "gpu_variable": ("ipp_engine_gpu_variable", self.gpu_variable),
            "cpus": ("ipp_engine_cpus", self.cores),
            "memory_max": ("ipp_engine_memory_max_mb", lambda at, v: self.megabytes(at, v, limits.LEAST_MEMORY)),
            "env": ("ipp_engine_env", self.environment),
            "user_python_packages": ("ipp_node_python_packages", self.packages),
            "reserve_cores": ("ipp_engine_reserve_cores", lambda at, v: self.integer(at, v, 0, 4096, "a number of cores")),
            "memory_per_engine": ("ipp_engine_memory_mb", self.megabytes),
            "args": ("ipp_engine_args", self.options),
            "location": (
                "ipp_engine_location",
                lambda at, v: self.text(at, v, ADDRESS, "a name or address that the controller's host reaches"),
            ),
            "tunnel": ("ipp_engine_tunnel", lambda at, v: self.choice(at, v, ("none", "ssh"))),
            "launcher": ("ipp_engine_launcher", lambda at, v: self.choice(at, v, ("service", "mpi"))),
        }
        for key, (variable, check) in checks.items():
            if key in value:
                variables[variable] = check((*path, key), value[key])
        if isinstance(value.get("gpus"), list):
            variables["ipp_engine_gpu_names"] = [str(each) for each in value["gpus"]]
        return variables

    def clients(self, value: object) -> dict[str, dict[str, Any]]:
        if not isinstance(value, list):
            self.expected(("clients",), "a list of hosts", value)
            return {}
        found: dict[str, dict[str, Any]] = {}
        for number, each in enumerate(value):
            path: tuple[str, ...] = ("clients", str(number))
            variables: dict[str, Any] = {}
            if isinstance(each, Mapping):
                self.known(path, each, CLIENT_KEYS)
                if "engines" in each:
                    variables["ipp_client_engine_file"] = self.boolean((*path, "engines"), each["engines"])
                path, each = (*path, "host"), each.get("host")
            for host in self.hosts(path, each):
                if host in found:
                    self.wrong(path, f"expected each host once, got {host} twice")
                found.setdefault(host, variables)
        return found

    def service(self, top: Mapping[str, Any], key: str, keys: Sequence[str], everywhere: dict[str, Any]) -> tuple[str, ...]:
        if key not in top:
            return ()
        path: tuple[str, ...] = (key,)
        value = top[key]
        if isinstance(value, Mapping):
            self.known(path, value, keys)
            everywhere |= {f"{key}_{each}": value[each] for each in keys if each != "host" and each in value}
            path, value = (*path, "host"), value.get("host")
        return self.one_host(path, value)

    def host_section(self, value: object, members: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for pattern, content in self.mapping(("hosts",), value, "a mapping of hosts to variables").items():
            path = ("hosts", pattern)
            variables = self.variables(path, content)
            for host in self.hosts(path, pattern):
                if host not in members:
                    near = names.nearest(host, members)
                    self.wrong(path, f"expected a host of the fleet, got {host}" + (f"; did you mean `{near}`?" if near else ""))
                yield host, variables

    def variables(self, path: Sequence[str], value: object) -> dict[str, Any]:
        found = self.mapping(path, value, "a mapping of variables")
        for key in found:
            if not VARIABLE.fullmatch(key):
                self.expected((*path, key), "the name of a variable", key)
            elif key not in CONNECTION_VARS and (near := names.nearest(key, CONNECTION_VARS, 0.9)):
                self.wrong((*path, key), f"unknown connection variable; did you mean `{near}`?")
        return found
