# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of Python expressions, found by reading them: nothing of a file is ever run.

Literals, names, arithmetic, text and the few functions without side effects that configuration files
are written with. Everything else is `CannotTell`.
"""

from __future__ import annotations

import ast
import os.path
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import (
    LARGEST,
    CannotTell,
    Imported,
    Table,
    Unknown,
    check_fields,
    check_percent,
    is_large,
    parts,
    settled,
    source,
)

# a file that takes more of them is no configuration
STEPS = 200_000
BUILTINS: Mapping[str, Callable[..., Any]] = {
    each.__name__: each for each in (bool, dict, enumerate, float, int, len, list, max, min, range, reversed, sorted, str, sum, tuple, zip)
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    f"os.path.{each.__name__}": each for each in (os.path.basename, os.path.dirname, os.path.expanduser, os.path.join, os.path.normpath)
} | {f"builtins.{name}": each for name, each in BUILTINS.items()}
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        {
            "format",
            "join",
            "split",
            "splitlines",
            "strip",
            "lstrip",
            "rstrip",
            "lower",
            "upper",
            "replace",
            "zfill",
            "startswith",
            "endswith",
        }
    ),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
}
BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Mod: lambda a, b: a % b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.BitOr: lambda a, b: Table(a).joined(b) if isinstance(a, dict) else a | b,
}
COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
}


class Values:
    """The values of names so far, and of expressions made of them.

    :param names: names that are bound from the start.
    :param attribute: what an attribute or item of something that is no plain value is.
    """

    def __init__(self, names: Mapping[str, Any], attribute: Callable[[Any, str], Any]) -> None:
        self.names = dict(names)
        self.attribute = attribute
        self.steps = 0

    def value(self, node: ast.expr) -> Any:
        """The value of an expression.

        :raises CannotTell: when it has to be run for that, fails, or takes too long.
        """
        self.steps += 1
        find = getattr(self, f"_{type(node).__name__.lower()}", None)
        if find is None or self.steps > STEPS:
            raise CannotTell(source(node))
        try:
            found = find(node)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise CannotTell(source(node)) from error
        if is_large(found):
            raise CannotTell(source(node))
        return found

    def part(self, node: ast.expr) -> Any:
        """The value of a part of a list or dict, which may be unknown for itself."""
        try:
            found = self.value(node)
        except CannotTell as error:
            return Unknown(str(error))
        return found if isinstance(found, (str, bytes, int, float, list, tuple, dict, range, type(None))) else Unknown(source(node))

    def known(self, node: ast.expr) -> Any:
        """A value without anything unknown in it.

        :raises CannotTell: when there is.
        """
        found = self.part(node)
        for each in parts(found):
            if isinstance(each, Unknown):
                raise CannotTell(each.text)
        return found

    def bind(self, target: ast.expr, value: Any) -> None:
        """Give names of an assignment or a loop their values.

        :raises CannotTell: when the target is something else.
        """
        self.steps += 1
        if self.steps > STEPS:
            raise CannotTell(source(target))
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (list, tuple)) and len(value) == len(target.elts):
            for each, one in zip(target.elts, value, strict=True):
                self.bind(each, one)
        else:
            raise CannotTell(source(target))

    # -- kinds of expressions, by the names of their nodes

    def _constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, (str, bytes, int, float, type(None))):
            return node.value
        raise CannotTell(source(node))

    def _name(self, node: ast.Name) -> Any:
        if node.id in self.names:
            found = self.names[node.id]
            if isinstance(found, Unknown):
                raise CannotTell(found.text)
            return found
        if node.id in BUILTINS:
            return Imported(f"builtins.{node.id}")
        raise CannotTell(node.id)

    def _list(self, node: ast.List) -> list[Any]:
        found: list[Any] = []
        for each in node.elts:
            if isinstance(each, ast.Starred):
                found += self.value(each.value)
            else:
                found.append(self.part(each))
        return found

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._list(ast.List(node.elts)))

    def _set(self, node: ast.Set) -> list[Any]:
        # no setting has a use for a set; in this order it can be written down
        return list(dict.fromkeys(self._list(ast.List(node.elts))))

    def _dict(self, node: ast.Dict) -> Table:
        found = Table()
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                found = found.joined(self.value(value))
                continue
            name = self.known(key)
            found[name] = self.part(value)
            found.lines[name] = key.lineno
        return found

    def _joinedstr(self, node: ast.JoinedStr) -> str:
        return "".join(str(self.known(each)) for each in node.values)

    def _formattedvalue(self, node: ast.FormattedValue) -> str:
        kinds: dict[int, Callable[[Any], Any]] = {-1: lambda value: value, ord("s"): str, ord("r"): repr, ord("a"): ascii}
        width = str(self.known(node.format_spec)) if node.format_spec else ""
        check_fields(node, "{:" + width + "}")
        return format(kinds[node.conversion](self.known(node.value)), width)

    def _binop(self, node: ast.BinOp) -> Any:
        if type(node.op) not in BINARY:
            raise CannotTell(source(node))
        left, right = self.value(node.left), self.value(node.right)
        return self.combined(node, node.op, left, right)

    def combined(self, node: ast.AST, operator: ast.operator, left: Any, right: Any) -> Any:
        """What an operator makes of two values.

        :raises CannotTell: when that would be very much, or the operator is none for configurations.
        """
        if isinstance(operator, ast.Mult):
            for some, times in ((left, right), (right, left)):
                if isinstance(some, (str, bytes, list, tuple)) and isinstance(times, int) and len(some) * times > LARGEST:
                    raise CannotTell(source(node))
        if isinstance(operator, ast.Mod) and isinstance(left, str):
            check_percent(node, left)
            if any(isinstance(each, Unknown) for each in parts(right)):
                raise CannotTell(source(node))
        if type(operator) not in BINARY or isinstance(left, Imported) or isinstance(right, Imported):
            raise CannotTell(source(node))
        return BINARY[type(operator)](left, right)

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        value = self.known(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, ast.USub):
            return -value
        raise CannotTell(source(node))

    def _boolop(self, node: ast.BoolOp) -> Any:
        stops = isinstance(node.op, ast.Or)
        found: Any = None
        for each in node.values:
            found = self.known(each)
            if bool(found) is stops:
                break
        return found

    def _compare(self, node: ast.Compare) -> bool:
        left = self.known(node.left)
        for operator, each in zip(node.ops, node.comparators, strict=True):
            right = self.known(each)
            if not COMPARE[type(operator)](left, right):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.known(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        whole = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            ends = [None if each is None else self.known(each) for each in (node.slice.lower, node.slice.upper, node.slice.step)]
            return whole[slice(*ends)]
        key = self.known(node.slice)
        found = whole[key] if isinstance(whole, (str, list, tuple, dict, range)) else self.attribute(whole, key)
        if isinstance(found, Unknown):
            raise CannotTell(found.text or source(node))
        return found

    def _attribute(self, node: ast.Attribute) -> Any:
        whole = self.value(node.value)
        if isinstance(whole, Imported):
            return Imported(f"{whole.name}.{node.attr}")
        found = self.attribute(whole, node.attr)
        if isinstance(found, Unknown):
            raise CannotTell(found.text or source(node))
        return found

    def _listcomp(self, node: ast.ListComp) -> list[Any]:
        return [self.part(node.elt) for _ in self.rounds(node.generators)]

    def _generatorexp(self, node: ast.GeneratorExp) -> list[Any]:
        return self._listcomp(ast.ListComp(node.elt, node.generators))

    def _setcomp(self, node: ast.SetComp) -> list[Any]:
        return list(dict.fromkeys(self._listcomp(ast.ListComp(node.elt, node.generators))))

    def _dictcomp(self, node: ast.DictComp) -> Table:
        found = Table()
        for _ in self.rounds(node.generators):
            name = self.known(node.key)
            found[name] = self.part(node.value)
            found.lines[name] = node.key.lineno
        return found

    def rounds(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """Go through the loops of a comprehension, its names bound in each round; as they were afterwards."""
        before = dict(self.names)
        yield from self._rounds(generators)
        self.names = before

    def _rounds(self, generators: list[ast.comprehension]) -> Iterator[None]:
        first, *rest = generators
        for each in self.items(first.iter):
            self.bind(first.target, each)
            if all(self.known(test) for test in first.ifs):
                if rest:
                    yield from self._rounds(rest)
                else:
                    yield

    def items(self, node: ast.expr) -> Iterable[Any]:
        """What a loop goes through.

        :raises CannotTell: when it is too much, or nothing to go through.
        """
        found = self.value(node)
        if not isinstance(found, (str, list, tuple, dict, range)):
            raise CannotTell(source(node))
        return list(found)

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Attribute):
            whole = self.value(node.func.value)
            if type(whole) is Table or type(whole) in METHODS:
                return self._method(node, whole, node.func.attr)
        try:
            function = self.value(node.func)
        except CannotTell as error:
            raise CannotTell(source(node)) from error
        if not isinstance(function, Imported) or function.name not in FUNCTIONS:
            raise CannotTell(source(node))
        found = FUNCTIONS[function.name](*self._arguments(node), **self._keywords(node))
        return settled(found, function.name == "builtins.dict", node.lineno)

    def _method(self, node: ast.Call, whole: Any, name: str) -> Any:
        if name not in METHODS[dict if isinstance(whole, dict) else type(whole)]:
            raise CannotTell(source(node))
        if name == "format":
            check_fields(node, whole)
        arguments = self._arguments(node)
        if any(isinstance(each, int) and each > LARGEST for each in arguments):
            raise CannotTell(source(node))
        return settled(getattr(whole, name)(*arguments, **self._keywords(node)), isinstance(whole, dict), node.lineno)

    def _arguments(self, node: ast.Call) -> list[Any]:
        plain = [each for each in node.args if not isinstance(each, ast.Starred)]
        if len(plain) < len(node.args):
            raise CannotTell(source(node))
        return [self.known(each) for each in plain]

    def _keywords(self, node: ast.Call) -> dict[str, Any]:
        if any(each.arg is None for each in node.keywords):
            raise CannotTell(source(node))
        return {str(each.arg): self.part(each.value) for each in node.keywords}
