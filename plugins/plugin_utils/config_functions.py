# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Functions, methods and operators without side effects that configuration files in Python are written with."""

from __future__ import annotations

import ast
import os.path
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import Table

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
