# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of configuration files in Python - `c.Class.trait = value` - read without running them.

What cannot be known without running a file is kept as such, with its line, never guessed.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import CannotTell, Imported, Table, Unknown, source
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_values import Values

# what a file calls to get its configuration; a loader has it in the name `c` as well
GETTER = "get_config"


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


class NotPython(ValueError):
    """A file that Python itself would not read.

    :param line: where it ceases to be Python, from 1 on.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Section:
    """The configuration, or a part of it by its path."""

    path: tuple[str, ...] = ()


@dataclass
class Settings:
    """Everything that files set, in the order in which they are read; the last one wins."""

    found: dict[tuple[str, str], Setting] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)

    def read(self, file: str, content: bytes, path: str) -> None:
        """Add the settings of a file.

        :param file: its name in messages.
        :param path: what it may know as ``__file__``.
        :raises NotPython: when it has a mistake of syntax, or is written for Python 2.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = ast.parse(content)
        except SyntaxError as error:
            raise NotPython(error.lineno or 1, str(error.msg)) from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise NotPython(1, str(error) or "an expression that is nested too deeply") from error
        try:
            _Reader(self, file, path).block(module.body)
        except RecursionError as error:
            raise NotPython(1, "an expression that is nested too deeply") from error


class _Reader:
    """Goes through one file's statements as Python would, as far as values can be told."""

    def __init__(self, settings: Settings, file: str, path: str) -> None:
        self.settings = settings
        self.file = file
        names = {"c": Section(), GETTER: Imported(GETTER), "__file__": path}
        self.values = Values(names, self.attribute)

    # -- statements

    def block(self, body: Sequence[ast.stmt]) -> None:
        for each in body:
            handle = getattr(self, f"_{type(each).__name__.lower()}", self.opaque)
            try:
                handle(each)
            except CannotTell as error:
                self.give_up([each], f"`{error}` would have to be run")

    def _import(self, node: ast.Import) -> None:
        for each in node.names:
            name = each.asname or each.name.split(".")[0]
            self.values.names[name] = Imported(each.name if each.asname else name)

    def _importfrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            self.values.names[each.asname or each.name] = Imported(f"{node.module}.{each.name}")

    def _assign(self, node: ast.Assign) -> None:
        value = self.config_or_part(node.value)
        for target in node.targets:
            self.assign(target, value, node)

    def _annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.config_or_part(node.value), node)

    def _augassign(self, node: ast.AugAssign) -> None:
        before = self.values.value(node.target)
        try:
            value = self.values.combined(node, node.op, before, self.values.value(node.value))
        except (TypeError, ValueError, ArithmeticError):
            value = Unknown(source(node))
        self.assign(node.target, value, node)

    def _delete(self, node: ast.Delete) -> None:
        for each in node.targets:
            path = self.path(each)
            if path is not None and len(path) > 1:
                self.settings.found.pop((path[-2], path[-1]), None)

    def _for(self, node: ast.For) -> None:
        if any(isinstance(each, (ast.Break, ast.Continue, ast.Return)) for each in ast.walk(node)):
            raise CannotTell(source(node.iter))
        for each in self.values.items(node.iter):
            self.values.bind(node.target, each)
            self.block(node.body)
        self.block(node.orelse)

    def _if(self, node: ast.If) -> None:
        try:
            taken = bool(self.values.known(node.test))
        except CannotTell:
            self.give_up([*node.body, *node.orelse], f"depends on `{source(node.test)}`, which would have to be run")
            return
        self.block(node.body if taken else node.orelse)

    def _expr(self, node: ast.Expr) -> None:
        call = node.value
        if not isinstance(call, ast.Call):
            return
        if isinstance(call.func, ast.Name) and call.func.id == "load_subconfig":
            self.miss(node, source(call), "another file; import that one by itself")
        elif isinstance(call.func, ast.Attribute):
            self.change(call, call.func)
        elif any(self.path(each) is not None for each in call.args):
            self.miss(node, source(call), "a function, which would have to be run")

    def opaque(self, node: ast.stmt) -> None:
        """A statement that is not gone through: what is set and bound in it is unknown."""
        words = {ast.FunctionDef: "a function", ast.ClassDef: "a class", ast.With: "`with`", ast.While: "`while`", ast.Try: "`try`"}
        self.give_up([node], f"stands in {words.get(type(node), 'a statement')}, which would have to be run")

    # -- assignments

    def config_or_part(self, node: ast.expr) -> Any:
        """The value of an expression, which may be the configuration or a part of it."""
        if isinstance(node, ast.Call) and not node.args:
            function = self.value_or_none(node.func)
            if isinstance(function, Imported) and function.name.split(".")[-1] == GETTER:
                return Section()
        found = self.value_or_none(node)
        return found if isinstance(found, Section) else self.values.part(node)

    def assign(self, target: ast.expr, value: Any, node: ast.stmt) -> None:
        path = None if isinstance(target, ast.Name) else self.path(target)
        if path is not None:
            self.set(path, value, node)
        elif isinstance(target, ast.Subscript) and isinstance(self.value_or_none(target.value), (list, dict)):
            container = self.values.value(target.value)
            container[self.values.known(target.slice)] = value
            if isinstance(container, Table):
                container.lines[self.values.known(target.slice)] = target.lineno
        elif isinstance(target, (ast.Attribute, ast.Subscript)):
            self.miss(target, source(target), f"expected a setting of what {GETTER}() gives")
        elif isinstance(value, Unknown):
            self.forget(target, value)
        else:
            self.values.bind(target, value)

    def value_or_none(self, node: ast.expr) -> Any:
        try:
            return self.values.value(node)
        except CannotTell:
            return None

    def set(self, path: tuple[str, ...], value: Any, node: ast.AST) -> None:
        """Set a trait by its path, a key of one, or several at once."""
        if isinstance(value, Section):
            raise CannotTell(source(node))
        names = [number for number, part in enumerate(path) if not is_section(part)]
        line = getattr(node, "lineno", 1)
        if not names:
            self.set_section(path, value, node)
        elif names[0] == 0:
            self.miss(node, ".".join(map(str, path)), "expected Class.trait")
        elif names[0] == len(path) - 1:
            cls, trait = path[-2:]
            self.settings.found[cls, trait] = Setting(cls, trait, value, Place(self.file, line))
        else:
            cls, trait, *keys = path[names[0] - 1 :]
            key: Any = keys[0]
            kept = self.settings.found.setdefault((cls, trait), Setting(cls, trait, Table(), Place(self.file, line)))
            whole: Any = kept.value
            if len(keys) > 1 or not isinstance(whole, (list, dict)):
                raise CannotTell(source(node))
            whole[key] = value
            if isinstance(whole, Table):
                whole.lines[key] = line

    def set_section(self, path: tuple[str, ...], value: Any, node: ast.AST) -> None:
        if not isinstance(value, dict):
            self.miss(node, ".".join(path), "expected Class.trait = value")
            return
        for key, each in value.items():
            self.set((*path, str(key)), each, node)

    def change(self, call: ast.Call, function: ast.Attribute) -> None:
        """A method that changes a list or dict in place, of the configuration or of a name."""
        path = self.path(function.value)
        if path is not None and len(path) < 2:
            self.miss(call, source(call), "expected Class.trait = value")
            return
        if path is not None:
            empty: Any = Table() if function.attr in ("update", "setdefault") else []
            cls, trait = path[-2:]
            new = Setting(cls, trait, empty, Place(self.file, call.lineno))
            whole = self.settings.found.setdefault((cls, trait), new).value
        else:
            whole = self.value_or_none(function.value)
        arguments = [self.values.part(each) for each in call.args]
        if isinstance(whole, dict) and function.attr == "update" and all(isinstance(each, dict) for each in arguments):
            for each in [*arguments, Table({word.arg: self.values.part(word.value) for word in call.keywords})]:
                whole.update(each)
                if isinstance(whole, Table):
                    whole.lines |= dict.fromkeys(each, call.lineno) | getattr(each, "lines", {})
        elif isinstance(whole, list) and function.attr == "append" and len(arguments) == 1:
            whole.append(arguments[0])
        elif isinstance(whole, list) and function.attr == "extend" and len(arguments) == 1 and isinstance(arguments[0], (list, tuple)):
            whole.extend(arguments[0])
        elif path is not None:
            raise CannotTell(source(call))

    # -- the configuration as a value

    def path(self, node: ast.expr) -> tuple[str, ...] | None:
        """Path of a part of the configuration; None when the expression is none."""
        if isinstance(node, ast.Name):
            found = self.values.names.get(node.id)
            return found.path if isinstance(found, Section) else None
        if isinstance(node, ast.Attribute):
            whole = self.path(node.value)
            return None if whole is None else (*whole, node.attr)
        if isinstance(node, ast.Subscript):
            whole = self.path(node.value)
            return None if whole is None else (*whole, self.values.known(node.slice))
        return None

    def attribute(self, whole: Any, name: Any) -> Any:
        """What a part of the configuration holds; unknown when nothing has been set there."""
        if not isinstance(whole, Section):
            return Unknown("")
        path = (*whole.path, name)
        if is_section(name):
            return Section(path)
        kept = self.settings.found.get((path[-2], path[-1])) if len(path) > 1 else None
        return kept.value if kept else Unknown("")

    # -- what cannot be told

    def miss(self, node: ast.AST, name: str, why: str) -> None:
        self.settings.unread.append(Unread(Place(self.file, getattr(node, "lineno", 1)), name, why))

    def forget(self, target: ast.AST, value: Unknown) -> None:
        for each in ast.walk(target):
            if isinstance(each, ast.Name):
                self.values.names[each.id] = value

    def give_up(self, body: Sequence[ast.stmt], why: str) -> None:
        """Note every setting in these statements as one that is not known, and forget the names that they bind."""
        for node in body:
            for each in ast.walk(node):
                if isinstance(each, (ast.FunctionDef, ast.ClassDef)):
                    self.values.names[each.name] = Unknown(each.name)
                elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                    self.values.names[each.id] = Unknown(each.id)
            for target in targets(node):
                if self.path_or_none(target):
                    self.miss(target, source(target), why)

    def path_or_none(self, node: ast.expr) -> tuple[str, ...] | None:
        try:
            return self.path(node)
        except CannotTell:
            return ("?",)


def targets(node: ast.stmt) -> Iterator[ast.expr]:
    """What a statement, or one in it, assigns to or changes in place."""
    for each in ast.walk(node):
        if isinstance(each, ast.Assign):
            yield from each.targets
        elif isinstance(each, (ast.AugAssign, ast.AnnAssign)):
            yield each.target
        elif isinstance(each, ast.Expr) and isinstance(each.value, ast.Call) and isinstance(each.value.func, ast.Attribute):
            yield each.value.func.value


def is_section(name: object) -> bool:
    """Whether a name of the configuration is a class's, by its first letter."""
    return isinstance(name, str) and name[:1].isalpha() and name[:1].isupper()
