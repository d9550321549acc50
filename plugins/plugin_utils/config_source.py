# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings of configuration files in Python - `c.Class.trait = value` - read without running them.

What cannot be known without running a file is kept as such, with its line, never guessed.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_containers import BEGUN, add, change, extend, remove
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_effects import (
    HARMLESS,
    READING,
    Change,
    Effects,
    Kind,
    effects,
    is_fixed,
    root,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_settings import (
    Place,
    Section,
    Setting,
    Unread,
    is_section,
    parted,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import CannotTell, Imported, Table, Unknown, source
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_values import Values

# what a file calls to get its configuration; a loader has it in the name `c` as well
GETTER = "get_config"
# as many steps as it takes about as long as
GIVING_UP = 10
FUNCTION = "a function, which would have to be run"


class NotPython(ValueError):
    """A file that Python itself would not read.

    :param line: where it ceases to be Python, from 1 on.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


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
            reader = _Reader(self, file, path)
            reader.block(module.body)
        except RecursionError as error:
            raise NotPython(1, "an expression that is nested too deeply") from error
        for key, each in self.found.items():
            self.found[key] = replace(each, value=reader.values.lost.without(each.value, each.name))


class _Reader:
    """Goes through one file's statements as Python would, as far as values can be told."""

    def __init__(self, settings: Settings, file: str, path: str) -> None:
        self.settings = settings
        self.file = file
        names = {"c": Section(), GETTER: Imported(GETTER), "__file__": path}
        self.values = Values(names, self.attribute, self.failed)
        self.effects: dict[tuple[ast.AST, bool], Effects] = {}
        # what functions and classes of the file do
        self.functions: dict[str, Effects] = {}
        self.giving_up = False

    # -- statements

    def block(self, body: Sequence[ast.stmt]) -> None:
        for each in body:
            handle = getattr(self, f"_{type(each).__name__.lower()}", self.opaque)
            try:
                self.values.step(each)
                handle(each)
            except CannotTell as error:
                self.give_up([each], f"`{error}` would have to be run")
            except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
                self.miss(each, source(each), f"expected what Python can run, got: {error}")
                self.give_up([each], "stands in a statement that fails")

    def _import(self, node: ast.Import) -> None:
        for each in node.names:
            name = each.asname or each.name.split(".")[0]
            self.values.names[name] = Imported(each.name if each.asname else name)

    def _importfrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            if each.name == "*":
                # any name may be another's from here on
                plain = [name for name, value in self.values.names.items() if not isinstance(value, (Section, Imported))]
                self.values.names |= dict.fromkeys(plain, Unknown(source(node)))
            else:
                self.values.names[each.asname or each.name] = Imported(f"{node.module}.{each.name}")

    def _assign(self, node: ast.Assign) -> None:
        value = self.config_or_part(node.value)
        for target in node.targets:
            self.assign(target, value, node)

    def _annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.config_or_part(node.value), node)

    def _augassign(self, node: ast.AugAssign) -> None:
        value, more = self.values.value(node.target), self.values.value(node.value)
        # these are changed in place, whatever other names they have
        if isinstance(value, list) and isinstance(node.op, ast.Add):
            extend(value, more)
        elif isinstance(value, Table) and isinstance(node.op, ast.BitOr):
            add(value, Table(more), node.lineno)
        elif isinstance(value, (list, dict)):
            raise CannotTell(source(node))
        else:
            try:
                value = self.values.combined(node, node.op, value, more)
            except (ArithmeticError, TypeError, ValueError) as error:
                raise CannotTell(source(node)) from error
        self.assign(node.target, value, node)

    def _delete(self, node: ast.Delete) -> None:
        for each in node.targets:
            path = self.path(each)
            trait, keys = parted(path or ())
            if isinstance(each, ast.Name):
                self.values.names.pop(each.id, None)
            elif path is not None and not keys:
                # a trait, or all of a class
                for key in [key for key in self.settings.found if key == trait or (trait is None and key[0] == path[-1])]:
                    del self.settings.found[key]
            elif isinstance(each, ast.Subscript):
                remove(self.values.value(each.value), self.values.known(each.slice))
            else:
                raise CannotTell(source(each))

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
        if not isinstance(call, ast.Call) or (isinstance(call.func, ast.Name) and call.func.id in HARMLESS):
            self.values.part(call)
        elif isinstance(call.func, ast.Name) and call.func.id == "load_subconfig":
            self.miss(node, source(call), "another file; import that one by itself")
        elif isinstance(call.func, ast.Attribute):
            self.change(call, call.func)
        else:
            self.give_up([node], FUNCTION)

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
        elif isinstance(target, ast.Subscript) and isinstance(self.values.names.get(root(target) or ""), (list, dict)):
            container, key = self.values.value(target.value), self.values.known(target.slice)
            container[key] = value
            if isinstance(container, Table):
                container.lines[key] = target.lineno
        elif isinstance(target, (ast.Attribute, ast.Subscript)):
            self.miss(target, source(target), f"expected a setting of what {GETTER}() gives")
        elif isinstance(value, Unknown) and isinstance(target, ast.Name):
            self.values.names[target.id] = value
        else:
            self.values.bind(target, value)

    def value_or_none(self, node: ast.expr) -> Any:
        try:
            return self.values.value(node)
        except CannotTell:
            return None

    def set(self, path: tuple[Any, ...], value: Any, node: ast.AST) -> None:
        """Set a trait by its path, a key of one, or several at once."""
        if isinstance(value, Section):
            raise CannotTell(source(node))
        line = getattr(node, "lineno", 1)
        place = Place(self.file, line)
        trait, keys = parted(path)
        if all(map(is_section, path)):
            self.set_section(path, value, node)
        elif trait is None:
            self.miss(node, ".".join(map(str, path)), "expected Class.trait")
        elif not keys:
            self.settings.found[trait] = Setting(*trait, value, place)
        else:
            *before, key = keys
            whole: Any = self.settings.found.setdefault(trait, Setting(*trait, Table(), place)).value
            for each in before:
                whole = whole[each]
            if not isinstance(whole, (list, dict)):
                raise CannotTell(source(node))
            whole[key] = value
            if isinstance(whole, Table):
                whole.lines[key] = line

    def set_section(self, path: tuple[Any, ...], value: Any, node: ast.AST) -> None:
        if not isinstance(value, dict):
            self.miss(node, ".".join(path), "expected Class.trait = value")
            return
        for key, each in value.items():
            self.set((*path, str(key)), each, node)

    def change(self, call: ast.Call, function: ast.Attribute) -> None:
        """A method that changes a list or dict in place, of the configuration or of a name."""
        path = self.path(function.value)
        trait, keys = parted(path or ())
        if path is not None and trait is None:
            self.miss(call, source(call), "expected Class.trait = value")
            return
        if trait and not keys and function.attr in BEGUN:
            self.settings.found.setdefault(trait, Setting(*trait, BEGUN[function.attr](), Place(self.file, call.lineno)))
        whole = self.values.value(function.value)
        arguments = [self.values.part(each) for each in call.args]
        if function.attr not in ("append", "insert", "setdefault", "update"):
            for node, each in zip(call.args, arguments, strict=True):
                self.values.check_known(node, each)
        keywords = Table({word.arg: self.values.part(word.value) for word in call.keywords})
        if function.attr not in READING and not change(whole, function.attr, arguments, keywords, call.lineno):
            raise CannotTell(source(call))

    # -- the configuration as a value

    def path(self, node: ast.expr) -> tuple[Any, ...] | None:
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

    def give_up(self, nodes: Sequence[ast.AST], why: str, kept: bool = False) -> None:
        """Leave out parts of the program: what they may bind or change is not known any more, and settings among it are noted.

        :param kept: whether the value of an expression is kept.
        """
        self.values.steps += GIVING_UP
        done: set[str] = set()
        waiting = [self.effects_of(node, kept) for node in nodes]
        outermost, self.giving_up = not self.giving_up, True
        while waiting:
            found = waiting.pop()
            for each in found.changes:
                self.lose(each, why)
            self.functions |= found.defined
            calls = self.functions_among(found.used) - done
            waiting += [self.functions[name] for name in calls]
            done |= calls
            for name in found.bound:
                self.values.names[name] = Unknown(name, maybe=self.maybe(name))
        self.giving_up = not outermost

    def failed(self, node: ast.expr, kept: bool, error: CannotTell) -> None:
        """Give up an expression, unless all that it is in is given up anyway."""
        if not self.giving_up:
            self.give_up([node], f"`{error}` would have to be run", kept)

    def effects_of(self, node: ast.AST, kept: bool) -> Effects:
        if (node, kept) not in self.effects:
            self.effects[node, kept] = effects(node, kept)
        return self.effects[node, kept]

    def functions_among(self, names: AbstractSet[str]) -> AbstractSet[str]:
        """Functions of the file that whoever has these names can call: all of them, when one of the names may be any."""
        unknown = any(isinstance(self.values.names.get(name), Unknown) for name in names - self.functions.keys())
        return set(self.functions) if unknown else names & self.functions.keys()

    def maybe(self, name: str) -> tuple[Any, ...]:
        """Lists and dicts that a name may stand for."""
        found = self.values.names.get(name)
        return found.maybe if isinstance(found, Unknown) else (found,)

    def lose(self, change: Change, why: str) -> None:
        """Forget what may have been changed, and note it if it is a setting."""
        path, text = self.longest_path(change.target), source(change.node)
        if path is None:
            whole = self.value_or_none(change.target) if change.kind is Kind.GIVEN and is_fixed(change.target) else None
            for each in self.maybe(change.name) if whole is None else [whole]:
                self.values.lost.add(each, text, change.inside)
            return
        trait, _ = parted(path)
        setting = self.settings.found.get(trait) if trait else None
        lost = setting is not None and change.kind is not Kind.SET and self.values.lost.add(setting.value, text, change.inside)
        if change.kind is not Kind.GIVEN:
            self.miss(change.target, source(change.target), why)
        elif lost or trait is None:
            self.miss(change.node, text, FUNCTION if isinstance(change.node, ast.Call) else why)

    def longest_path(self, node: ast.expr) -> tuple[Any, ...] | None:
        """Path of a part of the configuration as far as it is known."""
        try:
            return self.path(node)
        except CannotTell:
            return self.longest_path(node.value) if isinstance(node, (ast.Attribute, ast.Subscript)) else None
