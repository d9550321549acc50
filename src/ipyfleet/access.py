"""What this machine has to know to be a client of a fleet, and how to get there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONNECTION, TOKEN = "client.json", "token"
NOTEBOOK, DATABASE, CONTROLLER = "jupyterlab", "postgresql", "registration"
# of the client's connection file
PORTS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")


@dataclass(frozen=True)
class Target:
    """Something that listens in a fleet.

    :param name: ``jupyterlab``, ``postgresql``, or a port of the client's connection file.
    :param address: as seen from the host that leads there.
    """

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Way:
    """The way into a fleet.

    :param host: the host that leads there.
    :param reach: how that is reached, as Ansible's variables without their prefix.
    :param targets: what is reached from there.
    :param tunnel_user: its account that may do nothing but forward; empty where there is none.
    :param client: whether its users are clients of the fleet by themselves.
    """

    host: str
    reach: dict[str, Any]
    targets: tuple[Target, ...]
    tunnel_user: str = ""
    client: bool = False

    @property
    def over_ssh(self) -> bool:
        """Whether it takes ssh to get there; else it is this machine."""
        return str(self.reach.get("connection", "ssh")) == "ssh"

    def target(self, name: str) -> Target | None:
        """What has that name."""
        return next((each for each in self.targets if each.name == name), None)


@dataclass(frozen=True)
class Engine:
    """A slot as the inventory has it, and what is remembered of its engine id."""

    id: int
    host: str
    number: int

    @property
    def slot(self) -> str:
        """What it is called among services."""
        return f"{self.host}/{self.number}"


@dataclass(frozen=True)
class Access:
    """How to be a client of a fleet.

    :param info: the client's connection file; it holds the key.
    :param host: the controller's host.
    :param reach: how that is reached, as Ansible's variables without their prefix.
    :param name: the fleet's name.
    :param way: the way to all that it has.
    :param engines: that are wanted, by their ids.
    :param secrets_dir: folder of the fleet's keys on this machine.
    :param files: texts of the files that a client needs, by name; some hold secrets.
    """

    info: dict[str, Any]
    host: str
    reach: dict[str, Any]
    name: str
    way: Way
    engines: tuple[Engine, ...]
    secrets_dir: Path
    files: dict[str, str] = field(repr=False)

    @property
    def token(self) -> str:
        """JupyterLab's; empty where there is none."""
        return self.files.get(TOKEN, "")


def read_access(folder: Path, data: Mapping[str, Any]) -> Access:
    """What the playbook ``client`` made.

    :param folder: where it put the files.
    :param data: its report.
    """
    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    reach = {str(each["name"]): dict(each["reach"]) for each in data["hosts"]}
    host, way = str(data["controller"]), data["way"]
    found = Way(str(way["host"]), reach[way["host"]], targets_of(way["targets"]), str(way["tunnel_user"]), bool(way["client"]))
    engines = engines_of(data["hosts"])
    return Access(json.loads(files[CONNECTION]), host, reach[host], str(data["name"]), found, engines, Path(data["secrets_dir"]), files)


def engines_of(hosts: Sequence[Mapping[str, Any]]) -> tuple[Engine, ...]:
    """The slots of a report's hosts."""
    found = [Engine(int(each), str(host["name"]), number) for host in hosts for number, each in enumerate(host["ids"])]
    return tuple(sorted(found, key=lambda each: each.id))


def targets_of(targets: Mapping[str, Any]) -> tuple[Target, ...]:
    """Each port of what a report says is there, JupyterLab first."""
    found = [Target(name, str(targets[name][0]), int(targets[name][1])) for name in (NOTEBOOK, DATABASE) if name in targets]
    address, ports = targets["controller"]
    found += [Target(name, str(address), int(ports[name])) for name in PORTS if name in ports]
    return tuple(sorted(found, key=lambda each: each.name != NOTEBOOK))
