# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of Python expressions, found by reading them: nothing of a file is ever run.

Literals, names, arithmetic, text and the few functions without side effects that configuration files
are written with. Everything else is `CannotTell`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_containers import Lost
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_functions import BINARY, BUILTINS, COMPARE, FUNCTIONS, METHODS
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import (
    LARGEST,
    CannotTell,
    Imported,
    Table,
    Unknown,
    check_fields,
    check_made,
    check_percent,
    is_large,
    parts,
    settled,
    source,
    weight,
)

# a file that takes more of them is no configuration
STEPS = 200_000
# parts of values that are looked at in the time of a step
PARTS_PER_STEP = 10


class Values:
    """The values of names so far, and of expressions made of them.

    :param names: names that are bound from the start.
    :param attribute: what an attribute or item of something that is no plain value is.
    :param failed: called with each expression of which the value cannot be told, whether the value is kept, and why.
    """

    def __init__(
        self, names: Mapping[str, Any], attribute: Callable[[Any, str], Any], failed: Callable[[ast.expr, bool, CannotTell], None]
    ) -> None:
        self.names = dict(names)
        self.attribute = attribute
        self.failed = failed
        self.lost = Lost()
        self.steps = 0

    def step(self, node: ast.AST, count: int = 1) -> None:
        """Count what is done.

        :raises CannotTell: when it has become more than any configuration needs.
        """
        self.steps += count
        if self.steps > STEPS:
            raise CannotTell(source(node))

    def value(self, node: ast.expr) -> Any:
        """The value of an expression.

        :raises CannotTell: when it has to be run for that, fails, or takes too long.
        """
        self.step(node)
        find = getattr(self, f"_{type(node).__name__.lower()}", None)
        if find is None:
            raise CannotTell(source(node))
        try:
            found = find(node)
            large = is_large(found)
        except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
            raise CannotTell(source(node)) from error
        if large:
            raise CannotTell(source(node))
        text = found.text if isinstance(found, Unknown) else self.lost.text(found)
        if text is not None:
            raise CannotTell(text or source(node))
        return found

    def part(self, node: ast.expr, kept: bool = True) -> Any:
        """The value of a part of a list or dict, which may be unknown for itself.

        :param kept: whether it goes into something, or is only looked at.
        """
        try:
            found = self.value(node)
        except CannotTell as error:
            self.failed(node, kept, error)
            return Unknown(str(error))
        return found if isinstance(found, (str, bytes, int, float, list, tuple, dict, range, type(None))) else Unknown(source(node))

    def known(self, node: ast.expr) -> Any:
        """A value without anything unknown in it.

        :raises CannotTell: when there is.
        """
        found = self.part(node, kept=False)
        self.check_known(node, found)
        return found

    def check_known(self, node: ast.expr | ast.stmt, found: Any) -> None:
        """See that nothing in a value is unknown, nor too much in it.

        :raises CannotTell: when there is.
        """
        count = 0
        try:
            for each in parts(found):
                count += 1
                text = each.text if isinstance(each, Unknown) else self.lost.text(each)
                if text is not None:
                    raise CannotTell(text)
        except ValueError as error:
            raise CannotTell(source(node)) from error
        finally:
            self.steps += count // PARTS_PER_STEP

    def bind(self, target: ast.expr, value: Any) -> None:
        """Give names of an assignment or a loop their values.

        :raises CannotTell: when the target is something else.
        """
        self.step(target)
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
            return self.names[node.id]
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
        return self._without_doubles(node, self._list(ast.List(node.elts)))

    def _without_doubles(self, node: ast.expr, found: list[Any]) -> list[Any]:
        self.check_known(node, found)
        return list(dict.fromkeys(found))

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
        value = self.known(node.value)
        check_made(node, weight(value))
        return format(kinds[node.conversion](value), width)

    def _binop(self, node: ast.BinOp) -> Any:
        if type(node.op) not in BINARY:
            raise CannotTell(source(node))
        left, right = self.value(node.left), self.value(node.right)
        return self.combined(node, node.op, left, right)

    def combined(self, node: ast.expr | ast.stmt, operator: ast.operator, left: Any, right: Any) -> Any:
        """What an operator makes of two values.

        :raises CannotTell: when that would be very much, or the operator is none for configurations.
        """
        if isinstance(operator, ast.Mult):
            for some, times in ((left, right), (right, left)):
                if isinstance(some, (str, bytes, list, tuple)) and isinstance(times, int) and len(some) * times > LARGEST:
                    raise CannotTell(source(node))
        if isinstance(operator, ast.Mod) and isinstance(left, (str, bytes)):
            check_percent(node, left)
            self.check_known(node, right)
            check_made(node, len(left) * weight(right))
        if type(operator) not in BINARY or isinstance(left, Imported) or isinstance(right, Imported):
            raise CannotTell(source(node))
        found = BINARY[type(operator)](left, right)
        if is_large(found):
            raise CannotTell(source(node))
        return found

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
        return whole[key] if isinstance(whole, (str, list, tuple, dict, range)) else self.attribute(whole, key)

    def _attribute(self, node: ast.Attribute) -> Any:
        whole = self.value(node.value)
        if isinstance(whole, Imported):
            return Imported(f"{whole.name}.{node.attr}")
        return self.attribute(whole, node.attr)

    def _listcomp(self, node: ast.ListComp) -> list[Any]:
        with self.scope(node.generators):
            return [self.part(node.elt) for _ in self.rounds(node.generators)]

    def _generatorexp(self, node: ast.GeneratorExp) -> list[Any]:
        return self._listcomp(ast.ListComp(node.elt, node.generators))

    def _setcomp(self, node: ast.SetComp) -> list[Any]:
        return self._without_doubles(node, self._listcomp(ast.ListComp(node.elt, node.generators)))

    def _dictcomp(self, node: ast.DictComp) -> Table:
        found = Table()
        with self.scope(node.generators):
            for _ in self.rounds(node.generators):
                name = self.known(node.key)
                found[name] = self.part(node.value)
                found.lines[name] = node.key.lineno
        return found

    @contextmanager
    def scope(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """Have the names of a comprehension's loops for itself."""
        mine = {each.id for one in generators for each in ast.walk(one.target) if isinstance(each, ast.Name)}
        before = {name: self.names[name] for name in mine & self.names.keys()}
        try:
            yield
        finally:
            for name in mine:
                self.names.pop(name, None)
            self.names |= before

    def rounds(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """Go through the loops of a comprehension, its names bound in each round."""
        first, *rest = generators
        for each in self.items(first.iter):
            self.bind(first.target, each)
            if all(self.known(test) for test in first.ifs):
                if rest:
                    yield from self.rounds(rest)
                else:
                    yield

    def items(self, node: ast.expr) -> Iterable[Any]:
        """What a loop goes through; a list as it is, since a loop may change it on its way.

        :raises CannotTell: when it is too much, or nothing to go through.
        """
        found = self.value(node)
        if not isinstance(found, (str, list, tuple, dict, range)):
            raise CannotTell(source(node))
        return found

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
        name, arguments = function.name.removeprefix("builtins."), self._arguments(node)
        check_made(node, weight(arguments) * (len(arguments[0]) if name == "sum" and isinstance(arguments[0], (list, tuple)) else 1))
        found = FUNCTIONS[function.name](*arguments, **self._keywords(node, self.part if name == "dict" else self.known))
        return settled(found, name == "dict", node.lineno)

    def _method(self, node: ast.Call, whole: Any, name: str) -> Any:
        if name not in METHODS[dict if isinstance(whole, dict) else type(whole)]:
            raise CannotTell(source(node))
        arguments, keywords = self._arguments(node), self._keywords(node, self.known)
        if isinstance(whole, str):
            self.step(node, len(whole) // PARTS_PER_STEP)
            if name == "format":
                check_fields(node, whole)
            # each letter may stand for a field, or be replaced
            made = (len(whole) + 1) * weight(arguments, keywords) if name in ("format", "join", "replace") else len(whole)
            check_made(node, made)
        elif name in ("count", "index"):
            self.check_known(node, whole)
        if any(isinstance(each, int) and each > LARGEST for each in arguments):
            raise CannotTell(source(node))
        return settled(getattr(whole, name)(*arguments, **keywords), isinstance(whole, dict), node.lineno)

    def _arguments(self, node: ast.Call) -> list[Any]:
        if any(isinstance(each, ast.Starred) for each in node.args):
            raise CannotTell(source(node))
        return [self.known(each) for each in node.args]

    def _keywords(self, node: ast.Call, value: Callable[[ast.expr], Any]) -> dict[str, Any]:
        if any(each.arg is None for each in node.keywords):
            raise CannotTell(source(node))
        return {str(each.arg): value(each.value) for each in node.keywords}
