"""Accidents as data: what is broken, what is run, and what has to come of it.

A file of cases is a list; `Case` says what each may have. Hosts of a case are those of the scenario,
and `here` is the machine that the playbooks run on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "molecule" / "accidents" / "cases"

FLEETS = {
    # deployed already, on head, node1 and node2
    "lab": (ROOT / "molecule" / "accidents" / "inventory" / "lab.fleet.yml").read_text(),
    # the first one on the host spare
    "new": "plugin: fleet\nname: new\ncontroller: {host: spare, location: spare}\nengines:\n  spare: 1\nclients: [spare]\n",
    # engines on spare, and a controller where the fleet lab has one too
    "far": "plugin: fleet\nname: new\ncontroller: {host: head, location: head}\nengines:\n  spare: 1\n",
}
# what may come of a case
ENDS = (
    "untouched",  # nothing was changed anywhere
    "deployed",  # the fleet works
    "unfinished",  # the fleet does not work, says so, and works after another run
    "open",  # the fleet may work already, and works after another run
)


@dataclass(frozen=True)
class Meanwhile:
    """What happens while the command runs.

    :param at: what the command prints before it happens.
    :param do: shell commands by host.
    :param again: what the same command says when it is started once more at that moment; it ends with 2.
    """

    at: str
    do: Mapping[str, str] = field(default_factory=dict)
    again: str = ""


@dataclass(frozen=True)
class Case:
    """One accident.

    :param id: its name.
    :param says: what a line of the output has to contain.
    :param exits: the command's exit code.
    :param fleet: which of `FLEETS` it is about, or the text of a fleet file of its own.
    :param change: texts in the fleet file, and what stands there instead.
    :param hosts: Ansible's variables by host, stronger than the inventory's.
    :param ini: one more inventory.
    :param only_ini: whether there is no fleet file beside it.
    :param command: playbook and arguments.
    :param breaks: shell commands by host that bring the accident about.
    :param mends: shell commands by host that undo it, whatever came of it.
    :param meanwhile: what happens while the command runs.
    :param ends: which of `ENDS` comes of it.
    :param seconds: how long the command may take.
    """

    id: str
    says: str
    exits: int = 2
    fleet: str = "lab"
    change: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ini: str = ""
    only_ini: bool = False
    command: tuple[str, ...] = ("site.yml",)
    breaks: Mapping[str, str] = field(default_factory=dict)
    mends: Mapping[str, str] = field(default_factory=dict)
    meanwhile: Meanwhile | None = None
    ends: str = "untouched"
    seconds: float = 120

    @property
    def pristine(self) -> bool:
        """Whether the fleet is not deployed yet."""
        return self.fleet in ("new", "far")

    def text(self) -> str:
        """The fleet file."""
        text = FLEETS.get(self.fleet, self.fleet)
        for old, new in self.change.items():
            assert old in text, f"{self.id}: {old!r} is not in the fleet file"
            text = text.replace(old, new)
        return text


def read(path: Path) -> Iterator[Case]:
    """The cases of a file.

    :raises ValueError: for one that is not as `Case` says.
    """
    known = {each.name for each in fields(Case)}
    for entry in yaml.safe_load(path.read_text()):
        if unknown := set(entry) - known:
            raise ValueError(f"{path.name}: {entry.get('id')}: expected {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
        values = dict(entry)
        if "command" in values:
            values["command"] = tuple(str(word) for word in values["command"])
        if "meanwhile" in values:
            values["meanwhile"] = Meanwhile(**values["meanwhile"])
        case = Case(**values)
        if case.ends not in ENDS:
            raise ValueError(f"{path.name}: {case.id}: expected ends of {', '.join(ENDS)}, got {case.ends}")
        yield case


def all_cases() -> list[tuple[str, Case]]:
    """Every case, with the name of its file."""
    return [(path.stem, case) for path in sorted(CASES.glob("*.yml")) for case in read(path)]


def fill(value: Any, words: Mapping[str, str]) -> Any:
    """Put words in their @places@, at any depth."""
    if isinstance(value, Mapping):
        return {key: fill(each, words) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [fill(each, words) for each in value]
    if isinstance(value, str):
        return re.sub(r"@(\w+)@", lambda found: words[found[1]], value)
    return value
