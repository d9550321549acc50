# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of configuration files in Python, and where in the configuration they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Setting:
    """A trait of a class, as a file sets it; the value may be `Unknown`, or hold something that is."""

    cls: str
    trait: str
    value: Any
    place: Place

    @property
    def name(self) -> str:
        """As files write it."""
        return f"{self.cls}.{self.trait}"


@dataclass(frozen=True)
class Unread:
    """A setting that is made in a way that only running the file would tell."""

    place: Place
    name: str
    why: str


@dataclass(frozen=True)
class Section:
    """The configuration, or a part of it by its path."""

    path: tuple[Any, ...] = ()


def parted(path: tuple[Any, ...]) -> tuple[tuple[str, str] | None, tuple[Any, ...]]:
    """Class and trait of a path, and the keys that it leads on to in the trait's value.

    There is no trait when it leads to a class, or to all of the configuration.
    """
    first = next((number for number, part in enumerate(path) if not is_section(part)), 0)
    found = isinstance(path[first], str) if first else False
    return (path[first - 1 : first + 1], path[first + 1 :]) if found else (None, ())


def is_section(name: object) -> bool:
    """Whether a name of the configuration is a class's, by its first letter."""
    return isinstance(name, str) and name[:1].isalpha() and name[:1].isupper()
