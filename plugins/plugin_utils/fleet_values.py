# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Single values of a fleet file, checked: each is what it should be, or one of the problems that are told together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import limits, names
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import Positions
from packaging.requirements import InvalidRequirement, Requirement

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a fleet file."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {where}{self.text}"


def shown(value: object) -> str:
    """A value as a message shows it: short, and told apart from a string of the same look."""
    if value is None:
        return "nothing"
    text = repr(str(value)) if isinstance(value, str) else str(value)
    kinds = ((bool, "the boolean "), (Mapping, "the mapping "), (list, "the list "))
    kind = next((name for each, name in kinds if isinstance(value, each)), "")
    return kind + (text if len(text) <= 60 else text[:57] + "...")


@dataclass
class Values:
    """Checks values of one file.

    :param file: its name, for messages.
    :param where: lines of its keys.
    """

    file: str
    where: Positions
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, path: Sequence[str], text: str, line: int | None = None) -> None:
        """Note a problem, once."""
        found = Problem(self.file, line or self.where.line(tuple(path)), ".".join(path), text)
        if found not in self.problems:
            self.problems.append(found)

    def expected(self, path: Sequence[str], what: str, got: object) -> None:
        """Note that something else was expected."""
        self.wrong(path, f"expected {what}, got {shown(got)}")

    def known(self, path: Sequence[str], keys: Mapping[str, Any], allowed: Sequence[str]) -> None:
        """Note keys that mean nothing."""
        for key in keys:
            if key not in allowed:
                near = names.nearest(str(key), allowed)
                hint = f"did you mean `{near}`?" if near else f"expected one of {', '.join(allowed)}"
                self.wrong((*path, str(key)), f"unknown key; {hint}")

    def mapping(self, path: Sequence[str], value: object, what: str) -> dict[str, Any]:
        """A mapping, with its keys as text."""
        if isinstance(value, Mapping):
            return {str(key): each for key, each in value.items()}
        self.expected(path, what, value)
        return {}

    def integer(self, path: Sequence[str], value: object, low: int, high: int, what: str) -> int:
        """A number between two others."""
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return int(value)
        self.expected(path, what, value)
        return low

    def boolean(self, path: Sequence[str], value: object) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            self.expected(path, "true or false", value)
        return value is True

    def text(self, path: Sequence[str], value: object, form: re.Pattern[str], what: str) -> str:
        """Text of a form."""
        if isinstance(value, str) and form.fullmatch(value):
            return value
        self.expected(path, what, value)
        return ""

    def choice(self, path: Sequence[str], value: object, allowed: Sequence[str]) -> str:
        """One of a few words."""
        if value not in allowed:
            self.expected(path, " or ".join(f"`{each}`" for each in allowed), value)
        return str(value)

    def options(self, path: Sequence[str], value: object) -> list[str]:
        """Options of a command line."""
        if not isinstance(value, list) or not all(isinstance(each, str) and each.startswith("-") for each in value):
            self.expected(path, "a list of options of ipengine, such as --IPEngine.timeout=60", value)
            return []
        return list(value)

    def packages(self, path: Sequence[str], value: object) -> list[str]:
        """Python requirements."""
        if not isinstance(value, list):
            self.expected(path, "a list of Python requirements such as numpy>=2", value)
            return []
        for number, each in enumerate(value):
            try:
                Requirement(each)
            except (InvalidRequirement, TypeError):
                self.expected((*path, str(number)), "a Python requirement such as numpy>=2", each)
        return list(value)

    def gpus(self, path: Sequence[str], value: object) -> int:
        """The number of GPUs, of a number or of their names."""
        if not isinstance(value, list):
            return self.integer(path, value, 0, limits.MOST_GPUS, limits.GPUS)
        try:
            return len(limits.gpu_names(value))
        except ValueError as error:
            self.expected(path, str(error), value)
            return 0

    def gpus_per_slot(self, path: Sequence[str], value: object, gpus: object) -> int:
        """The number of GPUs that one slot sees."""
        there = len(gpus) if isinstance(gpus, list) else gpus if isinstance(gpus, int) else 1
        return self.integer(path, value, 1, max(1, there), f"a number from 1 to the host's {there} GPUs")

    def gpu_variable(self, path: Sequence[str], value: object) -> str:
        """The variable by which libraries are told which GPUs to see."""
        if value not in limits.GPU_VARIABLES:
            self.expected(path, f"one of {', '.join(limits.GPU_VARIABLES)}", value)
        return str(value)

    def cores(self, path: Sequence[str], value: object) -> str:
        """A list of cores, or how they are shared out."""
        try:
            limits.core_list(value)
        except ValueError as error:
            self.expected(path, str(error), value)
        return str(value)

    def environment(self, path: Sequence[str], value: object) -> dict[str, str]:
        """Environment variables."""
        entries = self.mapping(path, value, "a mapping of environment variables")
        for key, each in entries.items():
            if not VARIABLE.fullmatch(key):
                self.expected((*path, key), "the name of an environment variable", key)
            if isinstance(each, (Mapping, list, bool)) or each is None:
                self.expected((*path, key), "a string", each)
        return {key: str(each) for key, each in entries.items()}

    def megabytes(self, path: Sequence[str], value: object, least: int = 1) -> int:
        """A size, in MiB."""
        what = f"a size such as 2G or 512M, from {least}M on"
        try:
            size: int = human_to_bytes(value, default_unit="M") if not isinstance(value, bool) else 0
        except (ValueError, TypeError):
            size = 0
        if size < least << 20:
            self.expected(path, what, value)
            return 1
        return size >> 20

    def slots(self, path: Sequence[str], value: object) -> int | str:
        """The number of slots, or `auto`."""
        if value == "auto":
            return "auto"
        return self.integer(path, value, 1, 4096, "a number of slots from 1 on, or `auto`")
