# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What values of configuration files in Python are made of, when nothing of them is run."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# more than any configuration has; a file that asks for more is not worth its memory
LARGEST = 10_000
BITS = 256
# a width that would make a text of megabytes
WIDE = re.compile(r"\d{4}")


class CannotTell(Exception):
    """An expression whose value only running it would tell; the message is its text."""


@dataclass(frozen=True)
class Unknown:
    """What a name or key holds whose value cannot be told.

    :param text: the expression, on one line; empty for whoever made it to say.
    """

    text: str


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


def check_percent(node: ast.AST, template: str) -> None:
    """See that a ``%`` template makes no text of megabytes.

    :raises CannotTell: when it does.
    """
    if re.search(r"%[^a-zA-Z%]*\d{4}", template):
        raise CannotTell(source(node))


def check_fields(node: ast.AST, template: str) -> None:
    """See that a template of `str.format` fills in values and no attributes of them, and not very wide.

    :raises CannotTell: when it does more.
    """
    for _, name, width, _ in string.Formatter().parse(template):
        if not re.fullmatch(r"\w*", name or "") or "{" in (width or "") or WIDE.search(width or ""):
            raise CannotTell(source(node))


def parts(value: Any) -> Iterator[Any]:
    """A value, and all that it holds."""
    yield value
    if isinstance(value, dict):
        for key, each in value.items():
            yield from parts(key)
            yield from parts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from parts(each)


def is_large(value: Any) -> bool:
    """Whether a value is larger than one of a configuration would be."""
    if isinstance(value, int):
        return value.bit_length() > BITS
    return isinstance(value, (str, bytes, list, tuple, dict, range)) and len(value) > LARGEST
