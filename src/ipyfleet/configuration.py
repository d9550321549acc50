"""An existing ipcluster_config.py as the description of a fleet; the file is parsed, never executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipyfleet import content
from ipyfleet.description import Description
from ipyfleet.errors import InputError


@dataclass(frozen=True)
class Note:
    """What became of one setting.

    :param file: path of the file that has it.
    :param line: its line there.
    :param setting: its name, as the file writes it.
    :param text: where it is in the fleet file, or why it is not, and what is there instead.
    """

    file: str
    line: int
    setting: str
    text: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}: {self.setting}: {self.text}"


@dataclass(frozen=True)
class Configuration:
    """A configuration as a fleet.

    :param carried: settings that the fleet has.
    :param left: settings that it does not have.
    """

    description: Description
    carried: tuple[Note, ...]
    left: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        """The notes in the form of JSON."""
        notes = {"carried": [asdict(each) for each in self.carried], "left": [asdict(each) for each in self.left]}
        return {"name": self.description.name, **notes}


def read_configuration(path: str | Path, given: Mapping[str, Any]) -> Configuration:
    """Read an ``ipcluster_config.py``, with the files beside it.

    :param path: the file, or the folder of its profile.
    :param given: keys of a fleet file that count before what the files say.
    :raises InputError: with everything that has to be put right first.
    :raises InstallationError: when Ansible is not there.
    """
    files = content.plugin_util("ipcluster_files")
    try:
        _, found = files.read(str(path), given)
    except files.FleetFileError as error:
        raise InputError([str(problem) for problem in error.problems]) from error
    carried, left = (tuple(note_of(each) for each in notes) for notes in (found.carried, found.left))
    return Configuration(described(found, str(path), left), carried, left)


def note_of(note: Any) -> Note:
    """The collection's note as one of ours."""
    line = note.one_line()
    return Note(line.place.file, line.place.line, line.name, line.text)


def described(found: Any, path: str, left: tuple[Note, ...]) -> Description:
    """The fleet file's data as what is written from it."""
    data = found.data
    controller = data["controller"] if isinstance(data["controller"], Mapping) else {"host": data["controller"]}
    sources: dict[tuple[str, ...], list[str]] = {}
    for key, place in found.origins.items():
        # the lines of a fleet file: one for the controller, one for each entry of the others
        sources.setdefault(key[: 1 if key[0] == "controller" else 2], []).append(f"{Path(place.file).name}:{place.line}")
    about = [f"Made by `ipyfleet import` from {path}."]
    if left:
        about += ["What it does not have, and why:", *(f"  {each}" for each in left)]
    return Description(
        name=data["name"],
        scope=data["scope"],
        controller=controller["host"],
        location=controller.get("location", ""),
        ip=controller.get("ip", ""),
        engines=data["engines"],
        clients=data["clients"],
        hosts=data.get("hosts", {}),
        defaults=data.get("defaults", {}),
        about=about,
        sources={key: ", ".join(dict.fromkeys(places)) for key, places in sources.items()},
    )
