# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a part of a program may change that is not gone through: found by reading it, and rather too much than too little."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_functions import BUILTINS, METHODS

# functions whose result holds nothing of what they are given
PLAIN = frozenset(
    {"abs", "all", "any", "bool", "bytes", "float", "hash", "int", "isinstance", "len", "print", "range", "repr", "round", "str"}
)
# functions and methods that change nothing of what they are given
HARMLESS = PLAIN | BUILTINS.keys() | {"filter", "frozenset", "map", "open", "set", "type"}
READING = frozenset().union(*METHODS.values())
# methods that at most add something, and keep their arguments as they are
ADDING = frozenset({"add", "append", "extend", "insert", "setdefault", "update"})


class Kind(Enum):
    """How something is changed."""

    SET = "set or added to"
    CHANGED = "changed in any way"
    GIVEN = "given to something that may change it"


@dataclass(frozen=True)
class Change:
    """What may be changed: a name, or an attribute or item of one.

    :param node: the part of the program that may do it.
    :param inside: whether only what is in it may be changed, not the list or dict itself.
    """

    target: ast.expr
    node: ast.AST
    kind: Kind
    inside: bool = False

    @property
    def name(self) -> str:
        """The name at the root of the target."""
        return root(self.target) or ""


@dataclass
class Effects:
    """What a part of a program may do to names, and to what they hold.

    :param bound: names that get another value.
    :param used: names whose value it needs; what functions among them do comes on top.
    :param defined: what functions and classes do that it defines, once they are called.
    """

    bound: set[str] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    defined: dict[str, Effects] = field(default_factory=dict)


def effects(node: ast.AST, kept: bool = False) -> Effects:
    """What a statement or an expression may do, if it is run.

    :param kept: whether the expression's value gets a name, by which all that it may be can be changed from then on.
    """
    finder = _Finder()
    try:
        finder.visit(node)
        if kept:
            finder.change(node, held(node), Kind.GIVEN)
        return finder.closed(())
    except RecursionError:
        names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
        return Effects(
            {each.id for each in names if not isinstance(each.ctx, ast.Load)}, [Change(each, each, Kind.CHANGED) for each in names]
        )


def root(node: ast.expr) -> str | None:
    """The name that an expression is an attribute or item of; None when it is of no name."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def held(node: ast.AST | None, inside: bool = False) -> Iterator[tuple[ast.expr, bool]]:
    """Names, and attributes and items of them, that the value of an expression may be or hold.

    :param inside: whether only what is in the value counts; returned with each name in the same meaning.
    """
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and root(node) is not None:
        yield node, inside
    elif isinstance(node, (ast.Attribute, ast.Subscript)):
        yield from held(node.value, inside)
    elif isinstance(node, ast.Call):
        yield from _held_by_result(node, inside)
    elif isinstance(node, ast.comprehension):
        yield from held(node.iter, True)
    elif node is not None and not isinstance(node, (ast.Compare, ast.JoinedStr)):
        # an operator makes something new of what is in its operands; a list or dict that is written out holds its parts themselves
        inside = isinstance(node, (ast.BinOp, ast.Starred)) or (inside and isinstance(node, (ast.BoolOp, ast.IfExp, ast.NamedExpr)))
        for each in ast.iter_child_nodes(node):
            if each is not getattr(node, "test", None):
                yield from held(each, inside)


def _held_by_result(node: ast.Call, inside: bool) -> Iterator[tuple[ast.expr, bool]]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in PLAIN:
        return
    inside = inside or is_harmless(node)
    for each in ([function.value] if isinstance(function, ast.Attribute) else []) + node.args:
        yield from held(each, inside)
    for word in node.keywords:
        yield from held(word.value)


def is_harmless(node: ast.Call) -> bool:
    """Whether a call changes nothing of what it is given."""
    function = node.func
    return (isinstance(function, ast.Name) and function.id in HARMLESS) or (
        isinstance(function, ast.Attribute) and function.attr in READING
    )


def is_fixed(node: ast.expr) -> bool:
    """Whether an expression is a name, or an attribute or item of one by keys that are written out."""
    while isinstance(node, ast.Attribute) or (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)):
        node = node.value
    return isinstance(node, ast.Name)


def names_in(node: ast.AST | None) -> set[str]:
    """All names in an expression."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} if node else set()


class _Finder(ast.NodeVisitor):
    """Goes through one scope; those in it have a finder of their own."""

    def __init__(self) -> None:
        self.found = Effects()
        self.outer: set[str] = set()
        # names that may stand for the same list or dict as something else, or for one in it
        self.others: list[tuple[str, Change]] = []

    def closed(self, local: Iterable[str]) -> Effects:
        """What the scope does to names that are not its own."""
        local = set(local)
        changes = self.found.changes
        # whoever has these names can change it later on
        names = {each.name for each in changes} | (self.found.bound - local)
        while found := [change for name, change in self.others if name in names]:
            self.others = [(name, change) for name, change in self.others if name not in names]
            changes += found
            names |= {each.name for each in found}
        self.found.changes = [each for each in changes if each.name not in local]
        for name in self.found.used & self.found.defined.keys() & local:
            self.found.bound |= self.found.defined[name].bound
        self.found.bound -= local
        self.found.used -= local
        return self.found

    def join(self, inner: Effects) -> None:
        self.found.bound |= inner.bound
        self.found.changes += inner.changes
        self.found.used |= inner.used
        self.found.defined |= inner.defined

    def change(self, node: ast.AST, targets: Iterable[tuple[ast.expr, bool]], kind: Kind) -> None:
        self.found.changes += [Change(each, node, kind, inside) for each, inside in targets]

    def same(self, node: ast.AST, target: ast.AST | None, values: Iterable[tuple[ast.expr, bool]]) -> None:
        found = [Change(each, node, Kind.GIVEN, inside) for each, inside in values]
        self.others += [(name, each) for name in names_in(target) for each in found]

    def visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for each in filter(None, nodes):
            self.visit(each)

    # -- names, and what they hold

    def visit_Name(self, node: ast.Name) -> None:
        (self.found.used if isinstance(node.ctx, ast.Load) else self.found.bound).add(node.id)

    def _item(self, node: ast.Attribute | ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.change(node, held(node), Kind.SET if isinstance(node.ctx, ast.Store) else Kind.CHANGED)
        self.generic_visit(node)

    visit_Attribute = visit_Subscript = _item  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        method = function.attr if isinstance(function, ast.Attribute) else ""
        arguments = [each for word in (*node.args, *(each.value for each in node.keywords)) for each in held(word)]
        if isinstance(function, ast.Attribute) and method not in READING:
            self.change(node, held(function.value), Kind.SET if method in ADDING else Kind.CHANGED)
        if isinstance(function, ast.Attribute) and method in ADDING:
            self.same(node, function.value, arguments)
        elif not is_harmless(node):
            self.change(node, arguments, Kind.GIVEN)
        self.generic_visit(node)

    # -- statements that bind names

    def visit_Assign(self, node: ast.Assign) -> None:
        for each in node.targets:
            self.same(node, each, held(node.value))
        self.generic_visit(node)

    def _binding(self, node: ast.AnnAssign | ast.NamedExpr) -> None:
        self.same(node, node.target, held(node.value))
        self.generic_visit(node)

    visit_AnnAssign = visit_NamedExpr = _binding  # noqa: N815

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.same(node, node.target, held(node.value))
        if isinstance(node.target, ast.Name):
            self.change(node, held(node.target), Kind.SET)
        self.generic_visit(node)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        self.same(node.iter, node.target, held(node.iter, True))
        self.generic_visit(node)

    visit_For = visit_AsyncFor = visit_comprehension = _loop  # noqa: N815

    def visit_withitem(self, node: ast.withitem) -> None:
        self.same(node.context_expr, node.optional_vars, held(node.context_expr))
        self.generic_visit(node)

    def visit_alias(self, node: ast.alias) -> None:
        self.found.bound.add(node.asname or node.name.split(".")[0])

    def _named(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self.found.bound.add(node.name)
        self.generic_visit(node)

    visit_ExceptHandler = visit_MatchAs = visit_MatchStar = _named  # noqa: N815

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self.found.bound.add(node.rest)
        self.generic_visit(node)

    # -- scopes

    def _global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.outer |= set(node.names)

    visit_Global = visit_Nonlocal = _global  # noqa: N815

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        inner = _Finder()
        inner.visit_all(ast.iter_child_nodes(node))
        self.join(inner.closed(set().union(*(names_in(each.target) for each in node.generators))))

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension  # noqa: N815

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        self.visit_all([*node.args.defaults, *node.args.kw_defaults, *getattr(node, "decorator_list", ())])
        inner = _Finder()
        inner.visit_all(node.body if isinstance(node.body, list) else [node.body])
        mine = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)} | (inner.found.bound - inner.outer)
        self._defined(node, inner.closed(mine))

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all([*node.bases, *node.keywords, *node.decorator_list])
        inner = _Finder()
        inner.visit_all(node.body)
        mine = inner.found.bound - inner.outer
        # methods do not see the names of their class; those of the same name are others
        found = inner.closed(())
        # whoever has an instance may call all methods
        found.bound = (found.bound - mine).union(*(each.bound for each in found.defined.values()))
        self._defined(node, found)

    def _defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef, found: Effects) -> None:
        # names of others are bound when it is called, not before
        self.join(replace(found, bound=set()))
        if isinstance(node, ast.Lambda):
            self.found.defined[f"lambda {node.lineno}:{node.col_offset}"] = found
        else:
            self.found.bound.add(node.name)
            self.found.defined[node.name] = found
