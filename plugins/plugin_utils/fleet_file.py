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

from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import names
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import Positions
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ports import BLOCK, FIRST, LAST
from packaging.requirements import InvalidRequirement, Requirement

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
ENGINE_KEYS = ("slots", "gpus", "env", "user_python_packages", "reserve_cores", "memory_per_engine")
CONTROLLER_KEYS = ("host", "location", "ip")
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
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ADDRESS = re.compile(r"[A-Za-z0-9_.:*-]+")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a fleet file."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {where}{self.text}"


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


def shown(value: object) -> str:
    """A value as a message shows it: short, and told apart from a string of the same look."""
    if value is None:
        return "nothing"
    text = repr(str(value)) if isinstance(value, str) else str(value)
    kinds = ((bool, "the boolean "), (Mapping, "the mapping "), (list, "the list "))
    kind = next((name for each, name in kinds if isinstance(value, each)), "")
    return kind + (text if len(text) <= 60 else text[:57] + "...")


@dataclass
class Checker:
    """Collects what is wrong with the values of a YAML file.

    :param file: its name, for messages.
    :param where: lines of its keys.
    """

    file: str
    where: Positions
    problems: list[Problem] = field(default_factory=list)

    # -- saying what is wrong

    def wrong(self, path: Sequence[str], text: str, line: int | None = None) -> None:
        """Note what is wrong at a key."""
        found = Problem(self.file, line or self.where.line(tuple(path)), ".".join(path), text)
        if found not in self.problems:
            self.problems.append(found)

    def expected(self, path: Sequence[str], what: str, got: object) -> None:
        """Note that a value is not what was expected."""
        self.wrong(path, f"expected {what}, got {shown(got)}")

    def known(self, path: Sequence[str], keys: Mapping[str, Any], allowed: Sequence[str]) -> None:
        """Note keys that are none of the allowed ones."""
        for key in keys:
            if key not in allowed:
                near = names.nearest(str(key), allowed)
                hint = f"did you mean `{near}`?" if near else f"expected one of {', '.join(allowed)}"
                self.wrong((*path, str(key)), f"unknown key; {hint}")

    # -- values

    def mapping(self, path: Sequence[str], value: object, what: str) -> dict[str, Any]:
        """The value as a mapping; an empty one when it is none."""
        if isinstance(value, Mapping):
            return {str(key): each for key, each in value.items()}
        self.expected(path, what, value)
        return {}

    def integer(self, path: Sequence[str], value: object, low: int, high: int, what: str) -> int:
        """The value as a number from `low` to `high`; `low` when it is none."""
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return int(value)
        self.expected(path, what, value)
        return low

    def boolean(self, path: Sequence[str], value: object) -> bool:
        """The value as true or false; false when it is neither."""
        if not isinstance(value, bool):
            self.expected(path, "true or false", value)
        return value is True

    def text(self, path: Sequence[str], value: object, form: re.Pattern[str], what: str) -> str:
        """The value as text of a form; empty when it is none."""
        if isinstance(value, str) and form.fullmatch(value):
            return value
        self.expected(path, what, value)
        return ""


@dataclass
class _Reader(Checker):
    users: dict[str, str] = field(default_factory=dict)

    def packages(self, path: Sequence[str], value: object) -> list[str]:
        if not isinstance(value, list):
            self.expected(path, "a list of Python requirements such as numpy>=2", value)
            return []
        for number, each in enumerate(value):
            try:
                Requirement(each)
            except (InvalidRequirement, TypeError):
                self.expected((*path, str(number)), "a Python requirement such as numpy>=2", each)
        return list(value)

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

    def slots(self, path: Sequence[str], value: object) -> int | str:
        if value == "auto":
            return "auto"
        return self.integer(path, value, 1, 4096, "a number of slots from 1 on, or `auto`")

    def engine_host(self, path: Sequence[str], value: object) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {"ipp_engine_slots": self.slots(path, value)}
        self.known(path, value, ENGINE_KEYS)
        variables: dict[str, Any] = {"ipp_engine_slots": self.slots((*path, "slots"), value.get("slots", "auto"))}
        checks: dict[str, tuple[str, Callable[[Sequence[str], Any], Any]]] = {
            "gpus": ("ipp_engine_gpus", lambda at, v: self.integer(at, v, 0, 64, "a number of GPUs, 0 to 64")),
            "env": ("ipp_engine_env", self.environment),
            "user_python_packages": ("ipp_node_python_packages", self.packages),
            "reserve_cores": ("ipp_engine_reserve_cores", lambda at, v: self.integer(at, v, 0, 4096, "a number of cores")),
            "memory_per_engine": ("ipp_engine_memory_mb", self.megabytes),
        }
        for key, (variable, check) in checks.items():
            if key in value:
                variables[variable] = check((*path, key), value[key])
        return variables

    def environment(self, path: Sequence[str], value: object) -> dict[str, str]:
        entries = self.mapping(path, value, "a mapping of environment variables")
        for key, each in entries.items():
            if not VARIABLE.fullmatch(key):
                self.expected((*path, key), "the name of an environment variable", key)
            if isinstance(each, (Mapping, list, bool)) or each is None:
                self.expected((*path, key), "a string", each)
        return {key: str(each) for key, each in entries.items()}

    def megabytes(self, path: Sequence[str], value: object) -> int:
        what = "a size such as 2G or 512M, from 1M on"
        try:
            size: int = human_to_bytes(value, default_unit="M") if not isinstance(value, bool) else 0
        except (ValueError, TypeError):
            size = 0
        if size < 1 << 20:
            self.expected(path, what, value)
            return 1
        return size >> 20

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
