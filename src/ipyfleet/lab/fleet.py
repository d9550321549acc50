"""A fleet on hosts of a lab: what `ipyfleet lab` does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ipyfleet.errors import InputError
from ipyfleet.lab import hosts
from ipyfleet.lab.engine import Engine, LabError, Say, find_engine, known_engine, quiet
from ipyfleet.lab.image import RELEASE, RELEASES, remove_images

if TYPE_CHECKING:
    from ipyfleet.runner import OnProgress

HEAD = "head"
USER = "ops"
ENGINES = 2
SLOTS = 2
# of a lab's size: so many hosts and engines are more than a machine of today can take
MOST = 64
NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


@dataclass(frozen=True)
class Shape:
    """What a lab is made of.

    :param engines: number of engine hosts.
    :param slots: number of engines on each.
    :param release: Debian's name for the release that hosts run.
    :param engine: the container engine that they are made with.
    """

    engines: int = ENGINES
    slots: int = SLOTS
    release: str = RELEASE
    engine: str = ""

    @property
    def hosts(self) -> list[str]:
        """Names of all hosts, the controller's first."""
        return [HEAD, *(f"node{number}" for number in range(1, self.engines + 1))]


@dataclass(frozen=True)
class LabStatus:
    """How a lab does.

    :param hosts: its hosts with the states of their containers; those that are gone are ``absent``.
    :param fleet_file: its fleet file, for every other verb.
    """

    name: str
    engine: str
    release: str
    fleet_file: Path
    hosts: tuple[hosts.Host, ...]

    @property
    def ok(self) -> bool:
        """Whether every host runs."""
        return all(host.ok for host in self.hosts)


class Lab:
    """A throw-away fleet in containers on this machine: ``Lab().up()``.

    :param name: tells several labs apart; it is their fleet's name too.
    :raises InputError: when it cannot be a fleet's name.
    """

    def __init__(self, name: str = "lab") -> None:
        if not NAME.fullmatch(name):
            raise InputError([f"--name: expected lower-case letters, digits and dashes, at most 20, a letter first, got {name!r}"])
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        self.name = name
        self.prefix = f"ipyfleet-{name}"
        self.folder = state.absolute() / "ipyfleet" / "lab" / name
        self.fleet_file = self.folder / f"{name}.fleet.yml"

    @property
    def shape(self) -> Shape | None:
        """What it is made of; None when there is no such lab.

        :raises LabError: when its record was damaged.
        """
        path = self.folder / "lab.json"
        try:
            return Shape(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise LabError(
                f"{path}: expected what `ipyfleet lab` wrote, got something else; remove it, then `ipyfleet lab down`"
            ) from error

    def start(
        self, *, engines: int | None = None, slots: int | None = None, release: str | None = None, say: Say = quiet
    ) -> dict[str, hosts.Host]:
        """Start the hosts that do not run, and write the fleet file, if there is none; nothing is deployed.

        :param engines: number of engine hosts.
        :param slots: number of engines on each.
        :param release: ``bookworm`` or ``trixie``.
        :param say: called with a line about each thing that takes its time.
        :raises InputError: when there is such a lab of another shape.
        :raises LabError: when a host does not come up; what came up stays, for another try or `down`.
        """
        asked = {key: each for key, each in (("engines", engines), ("slots", slots), ("release", release)) if each is not None}
        check_shape(asked)
        with self._locked():
            shape, engine = self._settled(asked)
            way = hosts.Way(self.folder / "id_ed25519", self.folder / "known_hosts", USER)
            wanted = dict.fromkeys(shape.hosts, shape.release)
            started, engine = hosts.up(engine, self.prefix, wanted, way, say=say)
            # a user's own changes to it are left alone
            if not self.fleet_file.exists():
                self._write(self.fleet_file.name, self._fleet_text(shape, engine, way))
        return started

    def _settled(self, asked: Mapping[str, int | str]) -> tuple[Shape, Engine]:
        """The shape that a lab has, or gets; and its container engine."""
        shape = self.shape
        engine = find_engine(shape.engine if shape else None)
        if shape and all(getattr(shape, key) == each for key, each in asked.items()):
            return shape, engine
        if shape and hosts.states(engine, self.prefix):
            has = ", ".join(f"{key} {getattr(shape, key)}" for key in asked)
            got = ", ".join(f"{key} {each}" for key, each in asked.items())
            raise InputError([f"lab {self.name}: expected {has}, as it has, got {got}; take it away first, with `ipyfleet lab down`"])
        shape = Shape(**asked, engine=engine.name)  # type: ignore[arg-type]  # each has the type of its name
        self.fleet_file.unlink(missing_ok=True)
        self._write("lab.json", json.dumps(asdict(shape)) + "\n")
        return shape, engine

    def up(
        self,
        *,
        engines: int | None = None,
        slots: int | None = None,
        release: str | None = None,
        say: Say = quiet,
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Start the hosts and deploy the fleet; returns the path of its fleet file. A second call changes nothing.

        :param on_progress: called for everything that happens in the deployment.
        :raises InputError: when there is such a lab of another shape.
        :raises LabError: when a host does not come up.
        :raises RunError: when the deployment does not get every engine to answer.
        """
        from ipyfleet.cluster import Cluster

        self.start(engines=engines, slots=slots, release=release, say=say)
        Cluster(self.fleet_file, on_progress=on_progress).up().check_ok()
        return self.fleet_file

    def status(self) -> LabStatus | None:
        """How its hosts do; None when there is no such lab.

        :raises LabError: when the container engine does not answer.
        """
        shape = self.shape
        if shape is None:
            return None
        there = {host.name: host for host in hosts.states(known_engine(shape.engine), self.prefix)}
        found = tuple(there.get(name) or hosts.Host(name, f"{self.prefix}-{name}", "absent") for name in shape.hosts)
        return LabStatus(self.name, shape.engine, shape.release, self.fleet_file, found)

    def down(self, *, images: bool = False) -> list[str]:
        """Remove hosts, network and state; returns the names of the hosts that there were.

        :param images: the images that hosts are made from as well.
        :raises LabError: when the container engine does not answer.
        """
        shape = self.shape
        try:
            engine = known_engine(shape.engine) if shape else find_engine()
        except LabError:
            if shape is None:
                return []
            raise
        with self._locked():
            gone = hosts.down(engine, self.prefix)
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if images:
            remove_images(engine)
        return gone

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from working on the same lab; its folder is made, and does not stay when it is empty."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"{self.folder}: expected a folder that can be written to, got: {error.strerror}") from error
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LabError(f"lab {self.name}: another `ipyfleet lab` is at work on it; try again when that is done") from error
            try:
                yield
            finally:
                # and of the folders above it, those that are ours
                with contextlib.suppress(OSError):
                    for folder in (self.folder, *list(self.folder.parents)[:2]):
                        folder.rmdir()
        finally:
            os.close(handle)

    def _write(self, name: str, text: str) -> None:
        """Write a file of the lab's as a whole, so that an interruption leaves no half."""
        half = self.folder / f".{name}.half"
        half.write_text(text, encoding="utf-8")
        half.replace(self.folder / name)

    def _fleet_text(self, shape: Shape, engine: Engine, way: hosts.Way) -> str:
        from ipyfleet.description import Description, fleet_text

        number = shape.engines
        return fleet_text(
            Description(
                name=self.name,
                controller=HEAD,
                location=HEAD,
                engines={f"node[1:{number}]" if number > 1 else "node1": shape.slots},
                clients=[HEAD],
                hosts={name: {"ansible_host": f"{self.prefix}-{name}"} for name in shape.hosts},
                defaults=hosts.connection(engine, way),
                about=(
                    "A fleet in containers on this machine, for trying. Change it as you would change your own,",
                    f"and deploy it with `ipyfleet up -i {self.fleet_file}`.",
                    f"`ipyfleet lab down{'' if self.name == 'lab' else f' --name {self.name}'}` removes the containers, and this folder.",
                ),
            )
        )


def check_shape(asked: Mapping[str, int | str]) -> None:
    """See that a lab can be of a shape.

    :raises InputError: when it cannot.
    """
    problems = [
        f"--{key}: expected a number from 1 to {MOST}, got {asked[key]}"
        for key in ("engines", "slots")
        if key in asked and not 1 <= int(asked[key]) <= MOST
    ]
    if "release" in asked and asked["release"] not in RELEASES:
        problems.append(f"--release: expected {' or '.join(RELEASES)}, got {asked['release']}")
    if problems:
        raise InputError(problems)
