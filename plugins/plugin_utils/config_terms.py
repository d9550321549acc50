# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What values of configuration files in Python are made of, when nothing of them is run."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

# more than any configuration has; a file that asks for more is not worth its memory
LARGEST = 10_000
BITS = 256
# all that a value holds, with each character of its text; how deep lists and dicts stand in each other
ROOM = 100_000
DEEPEST = 20
# characters that a function makes, items that it copies
MOST_MADE = 1_000_000
# a width that would make a text of megabytes
WIDE = re.compile(r"\d{4}")


class CannotTell(Exception):
    """An expression whose value only running it would tell; the message is its text."""


@dataclass(frozen=True)
class Unknown:
    """What a name or key holds whose value cannot be told.

    :param text: the expression, on one line; empty for whoever made it to say.
    :param maybe: lists and dicts that it may be.
    """

    text: str
    maybe: tuple[Any, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Imported:
    """What an import has bound a name to, by its full name."""

    name: str


class Table(dict[Any, Any]):
    """A dict that knows on which line each of its keys stands."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lines: dict[Any, int] = {}
        for each in args:
            self.lines |= getattr(each, "lines", {})

    def joined(self, other: Any) -> Table:
        """This and another dict, whose values count."""
        both = Table(self)
        both.update(other)
        both.lines |= getattr(other, "lines", {})
        return both


@lru_cache(maxsize=1000)
def source(node: ast.AST, most: int = 60) -> str:
    """The text of a part of the program, on one line and not too long."""
    try:
        text = " ".join(ast.unparse(node).split())
    except (RecursionError, ValueError):
        text = type(node).__name__
    return text if len(text) <= most else text[: most - 3] + "..."


def settled(found: Any, mapping: bool, line: int) -> Any:
    """What a function gave, in a form that does not change and that is written down on this line."""
    if isinstance(found, dict) and mapping:
        table = Table(found)
        table.lines = dict.fromkeys(table, line) | table.lines
        return table
    return found if isinstance(found, (str, int, float, list, tuple, range, Table, type(None))) else list(found)


def check_percent(node: ast.AST, template: str | bytes) -> None:
    """See that a ``%`` template makes no text of megabytes.

    :raises CannotTell: when it does.
    """
    text = template.decode("latin-1") if isinstance(template, bytes) else template
    if re.search(r"%[^a-zA-Z%]*(\*|\d{4})", text):
        raise CannotTell(source(node))


def check_fields(node: ast.AST, template: str) -> None:
    """See that a template of `str.format` fills in values and no attributes of them, and not very wide.

    :raises CannotTell: when it does more.
    """
    for _, name, width, _ in string.Formatter().parse(template):
        if not re.fullmatch(r"\w*", name or "") or "{" in (width or "") or WIDE.search(width or ""):
            raise CannotTell(source(node))


def check_made(node: ast.AST, made: int) -> None:
    """See that a function does not make more than any configuration needs.

    :param made: characters or items.
    :raises CannotTell: when it does.
    """
    if made > MOST_MADE:
        raise CannotTell(source(node))


def parts(value: Any) -> Iterator[Any]:
    """A value, and all that it holds.

    :raises ValueError: when that is more than any configuration has, or a list or dict is in itself.
    """
    room, waiting = ROOM, [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        room -= 1 + (len(each) if isinstance(each, (str, bytes, list, tuple, dict)) else 0)
        if room < 0 or depth > DEEPEST:
            raise ValueError("a value with more in it than configurations have")
        yield each
        inside: list[Any] = []
        if isinstance(each, dict):
            inside = [part for item in each.items() for part in item]
        elif isinstance(each, (list, tuple)):
            inside = list(each)
        waiting += [(part, depth + 1) for part in reversed(inside)]


def weight(*values: Any) -> int:
    """How much values hold: each item and each character counts one.

    :raises ValueError: as `parts` does.
    """
    return sum(1 + (len(each) if isinstance(each, (str, bytes)) else 0) for value in values for each in parts(value))


def is_large(value: Any) -> bool:
    """Whether a value is larger than one of a configuration would be."""
    if isinstance(value, int):
        return value.bit_length() > BITS
    return isinstance(value, (str, bytes, list, tuple, dict, range)) and len(value) > LARGEST
