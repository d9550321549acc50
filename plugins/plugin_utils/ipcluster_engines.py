# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Engine hosts of ipyparallel's launchers: how many engines on each, and how it is reached."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_names as known
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_words as words
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import Unknown
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import shown
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ipcluster_notes import (
    AS_TEMPLATE,
    Found,
    Notebook,
    adapted,
    has_template,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.names import is_loopback, split_user

LOCAL = "localhost"
# the variable for what is said of ssh and has none of its own
COMMON = "ansible_ssh_common_args"
SSH = ("SSHEngineSetLauncher", "SSHEngineLauncher", "SSHProxyEngineSetLauncher", "SSHLauncher")
# what stands in an example where an address has to be: xxx.xxx.xxx.x02, <host>, your-host
PLACEHOLDER = re.compile(r"(x+\.)+[x\d]*|.*[<>…].*|your[-_. ]?(host|server|node).*", re.IGNORECASE)
HOSTFILES = re.compile(r"-{1,2}(hostfile|machinefile|host|hosts|H|f)(=.*)?")


class Engines:
    """Engine hosts, as the keys of a fleet file; what it has no place for is noted in `book`.

    :param controller: the controller's host.
    :param addresses: names of that host by which it may be among the engines' hosts.
    :param shared: whether what is said of connections holds for the controller's host too.
    """

    def __init__(self, book: Notebook, controller: str, addresses: Sequence[str], shared: bool) -> None:
        self.book = book
        self.controller = controller
        self.addresses = tuple(addresses) if controller == LOCAL else ()
        self.shared = shared
        self.engines: dict[str, Any] = {}
        self.hosts: dict[str, dict[str, Any]] = {}
        self.defaults: dict[str, Any] = {}
        self.repeated: Counter[tuple[str, str]] = Counter()
        self.told: dict[tuple[str, str], Found] = {}

    def read(self, given: bool) -> None:
        """Find hosts and numbers of engines.

        :param given: whether hosts are named elsewhere, so that there need be none here.
        """
        book = self.book
        found = book.take("Cluster.engine_launcher_class", str)
        table = book.inherited("engines", SSH, object)
        kind = known.launcher(found.value) if found else "ssh" if table else "local"
        number = book.take("Cluster.n")
        self.variables()
        if kind == "ssh":
            self.by_ssh(table, found, number, given)
        elif kind == "sshproxy":
            self.by_proxy(found, number)
        elif kind in ("local", "mpi"):
            if table:
                book.leave(table, f"has no effect with the launcher {kind!r}")
            self.here(kind, found, number, given)
        elif not given:
            place = found.place if found else None
            book.wrong(place, "engines", f"expected engines on hosts that have names, got the launcher {kind!r}; set `engines` (--engine)")
        else:
            for each in filter(None, (found, number)):
                book.leave(each, "engines are services on hosts that are named")
        for key, each in self.told.items():
            more = self.repeated[key] - 1
            book.leave(each, key[1] + (f" (on {more} more host{'s' if more > 1 else ''} too)" if more else ""))

    # -- launchers

    def by_ssh(self, table: Found | None, found: Found | None, number: Found | None, given: bool) -> None:
        """Engines on hosts of a table."""
        book = self.book
        self.connections()
        if found:
            book.carry(found, ("engines",), "each engine is a service")
        if number:
            book.leave(number, "each host has as many engines as `engines` says")
        if table is None or not isinstance(table.value, dict):
            if not given:
                place = (table or found or Found("", None, book.start)).place
                got = f"`{table.value.text}`, which would have to be run" if table and isinstance(table.value, Unknown) else "none"
                book.wrong(
                    place, "engines", f"expected a mapping of hosts in c.SSHEngineSetLauncher.engines, got {got}; set `engines` (--engine)"
                )
            return
        ports = Counter(split_port(str(key))[0].rpartition("@")[2] for key in table.value)
        for key, value in table.value.items():
            self.host(table.key(key, value), key, value, ports)
        if not self.engines and not given and not book.problems:
            book.wrong(
                table.place, "engines", "expected a host with engines in c.SSHEngineSetLauncher.engines, got none; set `engines` (--engine)"
            )

    def by_proxy(self, found: Found | None, number: Found | None) -> None:
        """Engines on one host, where another ipcluster would start them."""
        book = self.book
        self.connections()
        where = book.inherited("location", SSH, str) or book.inherited("hostname", SSH, str)
        if where is None:
            place = found.place if found else None
            book.wrong(place, "engines", "expected the engines' host, got none; set c.SSHProxyEngineSetLauncher.hostname")
            return
        self.host(where, where.value, number.value if number else "auto", Counter())
        for each in filter(None, (found, number)):
            book.carry(each, ("engines", where.value), f"engines.{where.value}: {self.engines.get(where.value)}")

    def here(self, kind: str, found: Found | None, number: Found | None, given: bool) -> None:
        """Engines on the controller's host, which need no more than their number."""
        book = self.book
        for name in ("MPIEngineSetLauncher.mpi_args", "MPILauncher.mpi_args"):
            args = book.pending.get(name) if kind == "mpi" else None
            listed = words.as_words(args.value) if args else None
            if args and listed and any(HOSTFILES.fullmatch(word) for word in listed) and not given:
                book.wrong(args.place, "engines", "expected hosts of engines, got a list of hosts that is MPI's; set `engines` (--engine)")
                return
        if kind == "mpi" and found:
            book.leave(found, "engines are started one by one; MPI between them is set up by ipp_engine_launcher: mpi")
        if given and not found and not number:
            return
        slots = number.value if number else "auto"
        self.engines[self.controller] = slots
        for each in (number, found if kind == "local" else None):
            if each:
                book.carry(each, ("engines", self.controller), f"engines.{self.controller}: {slots}")

    # -- hosts

    def connections(self) -> None:
        """Variables for all engine hosts, from what is said of all of them."""
        book, where = self.book, "defaults" if self.shared else "hosts"
        user = book.inherited("user", SSH, str)
        if user and user.value:
            self.defaults["ansible_user"] = user.value
            book.carry(user, ("defaults", "ansible_user"), f"{where}.ansible_user")
        args = book.inherited("ssh_args", SSH)
        if args:
            for variable, value in self.arguments(args, ("defaults",), where).items():
                self.defaults.setdefault(variable, value)

    def variables(self) -> None:
        """Environment variables of all engines."""
        found = self.book.inherited("environment", (*SSH, *known.ENGINE_LAUNCHERS), dict)
        if found and (env := self.environment(found, found.value)):
            self.defaults["ipp_engine_env"] = env
            self.book.carry(found, ("defaults", "ipp_engine_env"), f"defaults.ipp_engine_env: {', '.join(env)}")

    def arguments(self, found: Found, path: tuple[str, ...], where: str) -> dict[str, Any]:
        """Arguments of ssh as variables.

        :param path: the mapping that they are for.
        :param where: how notes call it.
        """
        listed = words.as_words(found.value)
        if listed is None:
            self.book.leave(found, words.no_words(found.value))
            return {}
        connection = words.connection(listed)
        if has_template([listed, connection.variables]):
            # quotes may have kept it apart until now
            self.book.leave(found, AS_TEMPLATE)
            return {}
        for word, why in connection.left:
            self.leave_once(found, word, why)
        for variable in connection.variables:
            self.book.carry(found, (*path, variable), f"{where}.{variable}")
        for word, what in connection.noted:
            option = Found(f"{found.name}: {word}", None, found.place)
            self.book.carry(option, (*path, COMMON), f"{where}.{COMMON}; {what}")
        return connection.variables

    def environment(self, found: Found, value: Any) -> dict[str, str]:
        """Environment variables that are known, as text."""
        env: dict[str, str] = {}
        for name, each in value.items() if isinstance(value, dict) else ():
            one = Found(f"{found.name}[{name!r}]", each, found.place)
            if has_template(name):
                self.book.leave(one, AS_TEMPLATE)
            elif self.book.usable(one):
                env[str(name)] = str(each)
        return env

    def host(self, found: Found, key: Any, value: Any, ports: Counter[str]) -> None:
        """One host, with its number of engines or all that is said of them."""
        book = self.book
        if not isinstance(key, str) or not key or has_template(key):
            book.wrong(found.place, f"engines.{key}", f"expected HOST or USER@HOST, got {shown(key)}")
            return
        number, more = numbered(value)
        if PLACEHOLDER.fullmatch(split_user(split_port(key)[0])[1]):
            book.wrong(found.place, f"engines.{key}", f"expected the host's name or address, got the placeholder {key!r}")
        elif isinstance(number, Unknown):
            book.leave(found, f"`{number.text}` would have to be run")
        elif number == 0:
            book.leave(found, "no engine is asked for there")
        else:
            entry, name = self.named(found, key, ports)
            self.connect(name)
            env = self.details(found, name, more)
            before = self.engines.get(entry)
            total = before + number if isinstance(before, int) and isinstance(number, int) else number
            self.engines[entry] = {"slots": total, "env": env} if env else total
            book.carry(found, ("engines", entry), f"engines.{entry}: {number}")

    def named(self, found: Found, key: str, ports: Counter[str]) -> tuple[str, str]:
        """What a host is called in the fleet, with its user if it has one, and without."""
        user_host, port = split_port(key)
        user, address = split_user(user_host)
        if port is None and (is_loopback(address) or address in self.addresses):
            if user and self.controller == LOCAL:
                self.book.leave(Found(f"{found.name}: {user}", None, found.place), "this machine is reached without SSH")
            return self.controller, self.controller
        name = address
        if port is not None:
            if ports[address] > 1:
                # one address, several hosts behind its ports
                name = f"{address}-{port}"
                self.hosts.setdefault(name, {})["ansible_host"] = address
            self.hosts.setdefault(name, {})["ansible_port"] = int(port)
        return (name if user is None else f"{user}@{name}"), name

    def connect(self, name: str) -> None:
        """Give a host for itself what is said of connections, where that does not hold for all hosts."""
        if not self.shared and name != self.controller:
            mine = {variable: each for variable, each in self.defaults.items() if variable.startswith("ansible_")}
            if mine:
                self.hosts[name] = mine | self.hosts.get(name, {})

    def details(self, found: Found, name: str, more: dict[str, Any]) -> dict[str, str]:
        """What is said of one host's engines beside their number; returns their environment."""
        env: dict[str, str] = {}
        for key, value in more.items():
            one = Found(f"{found.name}[{key!r}]", value, found.place)
            if not isinstance(value, dict) and not self.book.usable(one):
                continue
            if key in ("engine_args", "args"):
                self.engine_arguments(one, name, value)
            elif key == "environment":
                env = self.environment(one, value)
            elif key == "ssh_args":
                if variables := self.arguments(one, ("hosts", name), f"hosts.{name}"):
                    self.hosts[name] = variables | self.hosts.get(name, {})
            else:
                self.leave_once(found, str(key), known.replacement(f"SSHEngineLauncher.{key}"))
        return env

    def engine_arguments(self, found: Found, name: str, value: Any) -> None:
        """Arguments of one host's engines, which are settings for them alone."""
        listed = words.as_words(value)
        if listed is None:
            self.book.leave(found, words.no_words(value))
            return
        settings, unknown = words.options(listed, words.ENGINE)
        for word, trait, raw in settings:
            one = Found(f"{found.name}: {word}", raw, found.place)
            taken, setting = known.TAKEN.get(trait), adapted(trait, raw)
            if taken is None or not (taken.group or taken.variable).startswith("ipp_engine"):
                why = "the controller has one location" if trait == "IPEngine.location" else known.replacement(trait)
                self.leave_once(found, word, why)
            elif self.book.usable(one) and self.book.accepted(one, taken, setting):
                mine = self.hosts.setdefault(name, {})
                if taken.group:
                    mine.setdefault(taken.group, {})[trait] = setting
                else:
                    mine[taken.variable] = setting
                self.book.carry(one, ("hosts", name, taken.group or taken.variable), f"hosts.{name}.{taken.group or taken.variable}")
        for word in unknown:
            self.leave_once(found, word, "no option that is known here")

    def leave_once(self, found: Found, word: str, why: str) -> None:
        """Note a word that is not carried over; many hosts may have the same."""
        self.repeated[word, why] += 1
        self.told.setdefault((word, why), Found(f"{found.name}: {word}", None, found.place))


def split_port(key: str) -> tuple[str, str | None]:
    """Split ``HOST:PORT``; without a port the second is None."""
    host, colon, port = key.rpartition(":")
    return (host, port) if colon and port.isdecimal() and ":" not in host else (key, None)


def numbered(value: Any) -> tuple[Any, dict[str, Any]]:
    """The number of engines of a host, and what else is said of them, from all forms that launchers take.

    A value of no such form is returned as the number, for the fleet file's check to refuse.
    """
    if isinstance(value, dict):
        rest = dict(value)
        return rest.pop("n", 1), rest
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], (list, tuple, str, Unknown)):
        return value[0], {"args": value[1]}
    return value, {}
