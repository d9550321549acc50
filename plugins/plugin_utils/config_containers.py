# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lists and dicts of configuration files in Python: how they are changed in place, and which are not known any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import LARGEST, Table, Unknown, parts

LIST_METHODS = frozenset({"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"})
DICT_METHODS = frozenset({"clear", "pop", "setdefault", "update"})
# what a list or dict that has not been set begins as, by the method that it is changed with
BEGUN: dict[str, type[list[Any]] | type[Table]] = {"append": list, "extend": list, "update": Table}


class Lost:
    """Lists and dicts that something which is not run may have changed, whoever has them."""

    def __init__(self) -> None:
        # the objects are kept too, so that none of another gets the same id
        self._texts: dict[int, tuple[Any, str]] = {}

    def add(self, value: Any, text: str, inside: bool = False) -> bool:
        """Forget what a list or dict holds, and all that are in it; returns whether there are any.

        :param text: the expression that may have changed it.
        :param inside: whether only those that are in it.
        """
        waiting, seen, found = [value], set(), False
        while waiting:
            each = waiting.pop()
            if id(each) in seen or not isinstance(each, (list, tuple, dict)):
                continue
            seen.add(id(each))
            if not isinstance(each, tuple) and not (inside and each is value):
                self._texts.setdefault(id(each), (each, text))
                found = True
            waiting += [*each, *each.values()] if isinstance(each, dict) else each
        return found

    def text(self, value: Any) -> str | None:
        """The expression that may have changed a list or dict; None when it is known."""
        found = self._texts.get(id(value))
        return found[1] if found else None

    def without(self, value: Any, text: str) -> Any:
        """A value with `Unknown` for all that is lost in it.

        :param text: what is said of a value that holds more than configurations do.
        """
        try:
            lost = any(self.text(each) is not None for each in parts(value))
        except ValueError:
            return Unknown(text)
        return self._replaced(value) if lost else value

    def _replaced(self, value: Any) -> Any:
        if (text := self.text(value)) is not None:
            return Unknown(text)
        if isinstance(value, Table):
            table = Table({key: self._replaced(each) for key, each in value.items()})
            table.lines = value.lines
            return table
        if isinstance(value, (list, tuple)):
            return type(value)(self._replaced(each) for each in value)
        return value


def change(whole: Any, method: str, arguments: Sequence[Any], keywords: Table, line: int) -> bool:
    """Call a method that changes a list or dict in place; false when there is none that is known here.

    :param line: the line of the call, for keys that it adds.
    :raises LookupError, TypeError, ValueError: what Python raises too.
    """
    if isinstance(whole, Table) and method == "update":
        for each in (*arguments, keywords):
            add(whole, Table(each), line)
    elif isinstance(whole, Table) and method in DICT_METHODS and not keywords:
        before = whole.keys() | ()
        getattr(whole, method)(*arguments)
        whole.lines |= dict.fromkeys(whole.keys() - before, line)
    elif isinstance(whole, list) and method == "extend" and len(arguments) == 1 and not keywords:
        extend(whole, arguments[0])
    elif isinstance(whole, list) and method in LIST_METHODS and not keywords:
        getattr(whole, method)(*arguments)
    else:
        return False
    return True


def add(whole: Table, more: Table, line: int) -> None:
    """Add keys to a dict, of which those without a line of their own stand on this one."""
    whole.update(more)
    whole.lines |= dict.fromkeys(more, line) | more.lines


def extend(whole: list[Any], more: Any) -> None:
    """Add items to a list.

    :raises ValueError: when these are none, or more than a configuration has.
    """
    if not isinstance(more, (list, tuple, range)) or len(whole) + len(more) > LARGEST:
        raise ValueError("expected a list, and no long one")
    whole.extend(more)


def remove(whole: Any, key: Any) -> None:
    """Remove an item or a key.

    :raises LookupError, TypeError: what Python raises too.
    """
    del whole[key]
    if isinstance(whole, Table):
        whole.lines.pop(key, None)
