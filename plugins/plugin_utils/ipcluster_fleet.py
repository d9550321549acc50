# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet that ipyparallel's configuration files describe, as the data of a fleet file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_names as known
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_words as words
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_source import Settings
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ipcluster_engines import LOCAL, PLACEHOLDER, Engines
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ipcluster_notes import Conversion, Found, Notebook, adapted, has_template
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.names import is_loopback

EVERYWHERE = ("*", "0.0.0.0")
# keys of a fleet file of which each entry counts by itself
MERGED = ("engines", "hosts", "defaults")


def convert(settings: Settings, given: Mapping[str, Any], file: str) -> Conversion:
    """Turn settings into the data of a fleet file; what it has no place for is noted with the reason.

    :param given: keys of a fleet file that are wanted as they are; of `engines`, `hosts`, `defaults` and
        `controller` each key by itself.
    :param file: what to name in messages about something that is missing.
    """
    return _Converter(settings, given, file).convert()


class _Converter:
    def __init__(self, settings: Settings, given: Mapping[str, Any], file: str) -> None:
        self.book = Notebook(settings, file)
        self.given = given
        wish = given.get("controller")
        # as the mapping that a fleet file may have; what was given counts
        self.controller: dict[str, Any] = dict(mapping(wish)) or ({"host": wish} if wish else {})

    def convert(self) -> Conversion:
        self.arguments()
        host, by_ssh = self.controller_host()
        self.address()
        addresses = [str(self.controller[key]) for key in ("location", "ip") if self.controller.get(key)]
        engines = Engines(self.book, host, [each for each in addresses if not is_loopback(each)], host == LOCAL or by_ssh)
        engines.read(bool(self.given.get("engines")))
        if not engines.shared:
            engines.defaults = {name: value for name, value in engines.defaults.items() if not name.startswith("ansible_")}
        self.traits(engines)
        self.check_texts(engines)
        data = self.merged(host, engines)
        self.check_reach(host, mapping(data["engines"]))
        self.controller = {"host": self.controller["host"], **self.controller}
        data["controller"] = self.controller if len(self.controller) > 1 else self.controller["host"]
        self.book.leave_the_rest()
        return self.book.conversion(data)

    # -- command lines

    def arguments(self) -> None:
        """Let settings count that stand as options in the arguments of a program."""
        for trait, classes, table in (
            ("controller_args", ("Cluster", *known.CONTROLLER_LAUNCHERS), words.CONTROLLER),
            ("controller_cmd", known.CONTROLLER_LAUNCHERS, words.CONTROLLER),
            ("engine_args", known.ENGINE_LAUNCHERS, words.ENGINE),
        ):
            found = self.book.inherited(trait, classes)
            if found is None:
                continue
            listed = words.as_words(found.value)
            if listed is None:
                self.book.leave(found, words.no_words(found.value))
                continue
            if trait == "controller_cmd":
                self.book.leave(found, known.OWN_ENVIRONMENT)
                listed = listed[next((number for number, word in enumerate(listed) if word.startswith("--")), len(listed)) :]
            settings, unknown = words.options(listed, table)
            for word, name, value in settings:
                self.book.override(name, Found(f"{found.name}: {word}", value, found.place))
            for word in unknown:
                self.book.leave(Found(f"{found.name}: {word}", None, found.place), "no option that is known here")

    # -- the controller

    def controller_host(self) -> tuple[str, bool]:
        """The controller's host, and whether it is reached as the engines' hosts are."""
        book = self.book
        found = book.take("Cluster.controller_launcher_class", str)
        kind = known.launcher(found.value) if found else "local"
        if kind == "ssh":
            self.host_by_ssh()
        host = self.controller.setdefault("host", LOCAL)
        if found and host == LOCAL and kind not in ("local", "mpi"):
            book.wrong(
                found.place,
                "controller",
                f"expected the controller's host, got none for the launcher {kind!r}; set `controller` (--controller)",
            )
        elif found and kind not in ("local", "ssh"):
            book.leave(found, "the controller is a service on its host")
        elif found:
            book.carry(found, ("controller",), f"controller.host: {host}")
        return str(host).rpartition("@")[2], kind == "ssh"

    def host_by_ssh(self) -> None:
        book = self.book
        mine = ("SSHControllerLauncher",)
        where = book.inherited("location", mine, str) or book.inherited("hostname", (*mine, "SSHLauncher"), str)
        user = book.inherited("user", mine, str)
        if where and "host" not in self.controller:
            self.controller["host"] = where.value if not user or "@" in where.value else f"{user.value}@{where.value}"
            for each in (where, user):
                if each:
                    book.carry(each, ("controller", "host"), f"controller.host: {self.controller['host']}")

    def address(self) -> None:
        """Find where the controller listens, and by which name it is reached."""
        ip = self.first("ip", ("Cluster.controller_ip", "IPController.ip", "IPController.engine_ip", "IPController.client_ip"))
        self.first("location", ("Cluster.controller_location", "IPController.location", "IPEngine.location"))
        if ip and ip.value not in EVERYWHERE and not is_loopback(ip.value):
            self.controller.setdefault("location", ip.value)
            self.book.origins.setdefault(("controller", "location"), ip.place)

    def first(self, key: str, names: tuple[str, ...]) -> Found | None:
        """Take the first of several settings for one address; what was given counts before all of them."""
        there = [each for name in names if (each := self.book.take(name, str)) and each.value]
        if key in self.controller:
            for each in there:
                self.book.leave(each, f"controller.{key} is given")
            return None
        for each in there[1:]:
            if each.value == there[0].value:
                self.book.carry(each, ("controller", key), f"controller.{key}: {each.value}")
            else:
                self.book.leave(each, f"there is one address; that of {there[0].name} is taken")
        if not there:
            return None
        self.controller[key] = there[0].value
        self.book.carry(there[0], ("controller", key), f"controller.{key}: {there[0].value}")
        return there[0]

    def check_reach(self, host: str, engines: Mapping[str, Any]) -> None:
        """See that other hosts can reach the controller, as far as that is known here."""
        book = self.book
        others = [name for each in engines if (name := str(each).rpartition("@")[2]) != host]
        mine = mapping(self.given.get("controller"))
        ip, location = self.controller.get("ip"), self.controller.get("location")
        ip_here, location_here = is_loopback(str(ip)), is_loopback(str(location))
        place = book.origins.get(("controller", "location")) or book.origins.get(("controller", "ip"))
        if ip_here and others and "ip" not in mine:
            book.uncarry(("controller", "ip"), "no other host could reach it; the controller listens on all addresses")
        if "ip" not in mine and (ip in EVERYWHERE or ip_here):
            # what a fleet does by itself: on all addresses, or on loopback when there is no other host
            self.controller.pop("ip", None)
            book.retell(("controller", "ip"), "a fleet's controller listens so by itself")
        if location and PLACEHOLDER.fullmatch(str(location)):
            book.wrong(place, "controller.location", f"expected the controller's name or address, got the placeholder {location!r}")
        elif others and (location_here or (not location and host == LOCAL)):
            book.wrong(
                place or book.origins.get(("engines", next(iter(engines)))),
                "controller.location",
                f"expected this machine's name or address as {others[0]} reaches it, got {location or 'none'};"
                " set c.IPController.location, or `location` of `controller` (--location)",
            )

    # -- everything else

    def traits(self, engines: Engines) -> None:
        """Take the settings of controller and engines that a fleet has too."""
        for name, taken in known.TAKEN.items():
            found = self.book.take(name)
            if found is None:
                continue
            value, variable = adapted(name, found.value), taken.variable or taken.group
            if not self.book.accepted(found, taken, value):
                continue
            if taken.group:
                engines.defaults.setdefault(variable, {})[name] = value
            else:
                engines.defaults[variable] = value
            self.book.carry(found, ("defaults", variable, *((name,) if taken.group else ())), f"defaults.{variable}")
        for mine in engines.hosts.values():
            for variable, value in mine.items():
                if isinstance(value, dict):
                    # a host's mapping replaces that for all hosts
                    mine[variable] = {**engines.defaults.get(variable, {}), **value}

    def check_texts(self, engines: Engines) -> None:
        """See that nothing of the files can be taken for a template, whatever it was made of."""
        given = {"host"} if isinstance(self.given.get("controller"), str) else mapping(self.given.get("controller")).keys()
        mine = {key: value for key, value in self.controller.items() if key not in given}
        found = {"controller": mine, "engines": engines.engines, "hosts": engines.hosts, "defaults": engines.defaults}
        for key, value in found.items():
            if has_template(value):
                self.book.wrong(None, key, "expected text without {{ and {%, which would begin a template in a fleet file, got some")

    def merged(self, host: str, engines: Engines) -> dict[str, Any]:
        """All keys, with those that were given in their places."""
        data: dict[str, Any] = {"engines": engines.engines, "clients": [host]}
        data |= {key: value for key, value in (("hosts", engines.hosts), ("defaults", engines.defaults)) if value}
        for key, value in self.given.items():
            data[key] = {**data.get(key, {}), **value} if key in MERGED and isinstance(value, Mapping) else value
        hosts = {host, *(str(each).rpartition("@")[2] for each in mapping(data["engines"]))}
        return {"scope": "user" if hosts == {LOCAL} else "system"} | data


def mapping(value: Any) -> Mapping[Any, Any]:
    """A value if it is a mapping, as it should be; that it is not is told when all of the fleet's data is checked."""
    return value if isinstance(value, Mapping) else {}
