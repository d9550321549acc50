# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of each setting of ipyparallel's configuration files, with its line: nothing gets lost unsaid."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import ipcluster_names as known
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_settings import Place
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_source import Settings
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import Unknown, parts
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import Problem, shown
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import Path

# in a fleet file these would begin a template
TEMPLATE = re.compile(r"\{[{%#]")
AS_TEMPLATE = "in a fleet file, {{ or {% would begin a template"
# levels of a log by the numbers of Python's
LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "ERROR"}
LEVEL_NAMES = {"WARNING": "WARN", "CRITICAL": "ERROR"} | {name: name for name in LEVELS.values()}
KINDS: Mapping[type, str] = {int: "a number", float: "a number", str: "text", bool: "True or False"}
LEAST_AND_MOST = {
    "ipp_controller_heartbeat_period": (1, 3_600_000),
    "ipp_controller_heartbeat_misses": (1, 1_000_000),
    "ipp_controller_broadcast_depth": (0, 4),
    "ipp_engine_registration_timeout": (1, 86_400),
}


@dataclass(frozen=True)
class Found:
    """A setting under the name that its file has for it; the value may be `Unknown`."""

    name: str
    value: Any
    place: Place
    lines: Mapping[Any, int] = field(default_factory=dict)

    def key(self, key: Any, value: Any) -> Found:
        """One of its keys as a setting."""
        return Found(f"{self.name}[{key!r}]", value, Place(self.place.file, self.lines.get(key, self.place.line)))


@dataclass(frozen=True)
class Note:
    """What became of a setting.

    :param name: the setting, as its file writes it.
    :param text: where it is now, or why it is not.
    """

    place: Place
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.place.file.rpartition('/')[2]}:{self.place.line}: {one_line(self.name)}: {one_line(self.text)}"

    def one_line(self) -> Note:
        """The same, fit for a terminal and for a comment."""
        return Note(self.place, one_line(self.name), one_line(self.text))


@dataclass(frozen=True)
class Conversion:
    """The data of a fleet file, and how it came about.

    :param origins: where each of its keys comes from, by path.
    :param carried: settings that it has.
    :param left: settings that it does not have.
    :param problems: what has to be put right before it is a fleet file.
    """

    data: dict[str, Any]
    origins: dict[Path, Place]
    carried: tuple[Note, ...]
    left: tuple[Note, ...]
    problems: tuple[Problem, ...]


class Notebook:
    """All settings, each of which is taken or left, and what is wrong."""

    def __init__(self, settings: Settings, file: str) -> None:
        self.start = Place(file, 1)
        self.pending: dict[str, Found] = {}
        self.used: set[str] = set()
        self.origins: dict[Path, Place] = {}
        self.carried: list[tuple[Path, Note]] = []
        self.left: list[Note] = []
        self.problems: list[Problem] = []
        for each in settings.found.values():
            now = known.today(each.cls, each.trait)
            found = Found(each.name, each.value, each.place, getattr(each.value, "lines", {}))
            before = self.pending.get(".".join(now))
            if before and (each.cls, each.trait) != now:
                # as ipyparallel does: today's name counts
                self.leave(found, f"{before.name} is set too")
            else:
                self.pending[".".join(now)] = found
                if before:
                    self.leave(before, f"{found.name} is set too")
        self.left += [Note(each.place, each.name, each.why) for each in settings.unread]

    # -- taking

    def override(self, name: str, found: Found) -> None:
        """Let a setting count instead of the one of the same name."""
        if before := self.pending.get(name):
            self.leave(before, f"{found.name} is set too")
        self.pending[name] = found
        self.used.discard(name)

    def take(self, name: str, kind: type | None = None) -> Found | None:
        """A setting by its name of today, once; None when it is not set, or of no use, which is noted then.

        :param kind: type of its value.
        """
        found = self.pending.get(name)
        if found is None or name in self.used:
            return None
        self.used.add(name)
        return found if self.usable(found, kind) else None

    def inherited(self, trait: str, classes: Sequence[str], kind: type | None = None) -> Found | None:
        """A trait of the first class that has it; other classes may ask for it again."""
        there = [name for cls in dict.fromkeys(classes) if (name := f"{cls}.{trait}") in self.pending]
        if not there:
            return None
        first, fresh = self.pending[there[0]], there[0] not in self.used
        for name in there[1:]:
            if name not in self.used:
                self.leave(self.pending[name], f"{first.name} is set too")
        self.used.update(there)
        return first if self.usable(first, kind, silent=not fresh) else None

    def usable(self, found: Found, kind: type | None = None, silent: bool = False) -> bool:
        """Whether a setting has a value that can be taken; if it has not, that is noted.

        :param kind: type of the value. Each entry of a `dict` is for the caller to see to, and all of an `object`.
        :param silent: whether that has been noted before.
        """
        if kind is object or (kind is dict and isinstance(found.value, dict)):
            return True
        why = ""
        unknown = next((each for each in parts(found.value) if isinstance(each, Unknown)), None)
        if unknown:
            why = f"`{unknown.text}` would have to be run"
        elif has_template(found.value):
            why = AS_TEMPLATE
        elif kind is not None and not isinstance(found.value, kind):
            why = f"expected {'text' if kind is str else 'a mapping'}, got {shown(found.value)}"
        if why and not silent:
            self.leave(found, why)
        return not why

    def accepted(self, found: Found, taken: known.Taken, value: Any) -> bool:
        """Whether a value is one that the fleet's setting may have; if it is not, that is noted."""
        low, high = LEAST_AND_MOST.get(taken.variable, (None, None))
        right = isinstance(value, taken.types) and (bool in taken.types or not isinstance(value, bool))
        if isinstance(value, float):
            right = right and math.isfinite(value)
        if low is not None and high is not None:
            right = right and low <= value <= high
        if taken.variable.endswith("log_level"):
            right = value in LEVELS.values()
        if not right:
            what = f"a whole number, {low} to {high}" if low is not None else KINDS[taken.types[0]]
            what = "a level such as INFO" if taken.variable.endswith("log_level") else what
            self.leave(found, f"expected {what}, got {shown(value)}")
        return right

    # -- what became of it

    def leave(self, found: Found, why: str) -> None:
        """Note that a setting is not carried over."""
        self.left.append(Note(found.place, found.name, why))

    def carry(self, found: Found, path: Path, text: str) -> None:
        """Note where in the fleet file a setting is now."""
        self.origins.setdefault(path, found.place)
        self.carried.append((path, Note(found.place, found.name, text)))

    def retell(self, path: Path, text: str) -> None:
        """Say otherwise where settings are now."""
        self.carried = [(each, replace(note, text=text) if each == path else note) for each, note in self.carried]

    def uncarry(self, path: Path, why: str) -> None:
        """Take notes back: the settings are not carried over after all."""
        self.left += [replace(note, text=why) for each, note in self.carried if each == path]
        self.carried = [(each, note) for each, note in self.carried if each != path]
        self.origins.pop(path, None)

    def wrong(self, place: Place | None, key: str, text: str) -> None:
        """Note something that has to be put right first."""
        where = place or self.start
        self.problems.append(Problem(where.file, where.line, key, one_line(text)))

    def leave_the_rest(self) -> None:
        """Note all that has not been taken, with what is there instead."""
        for name, found in self.pending.items():
            if name not in self.used:
                self.leave(found, known.replacement(name))

    def conversion(self, data: dict[str, Any]) -> Conversion:
        """What came of it all."""
        return Conversion(data, self.origins, in_order(note for _, note in self.carried), in_order(self.left), tuple(self.problems))


def has_template(value: Any) -> bool:
    """Whether a text in a value, a key or an item at any depth, would begin a template in a fleet file."""
    return any(isinstance(each, str) and TEMPLATE.search(each) for each in parts(value))


def in_order(notes: Iterable[Note]) -> tuple[Note, ...]:
    """Notes by file and line, each once."""
    return tuple(sorted(dict.fromkeys(notes), key=lambda note: (note.place.file, note.place.line)))


def adapted(name: str, value: Any) -> Any:
    """The value of a setting in the form that a fleet has it in.

    :param name: ``Class.trait``.
    """
    if name.endswith(".log_level"):
        text = LEVELS.get(value, "") if isinstance(value, int) else str(value).upper()
        return LEVEL_NAMES.get(text, value)
    if name == "IPController.db_class" and isinstance(value, str):
        return known.DATABASES.get(re.split(r"[.:]", value)[-1].lower(), value)
    if name == "IPEngine.timeout" and isinstance(value, float) and math.isfinite(value):
        return max(1, round(value))
    return value


def one_line(text: str) -> str:
    """A text without line ends and whatever else a terminal or a file would take for more than text."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
