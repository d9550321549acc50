# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters for the roles' templates."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import lines_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.database_files import allowed, memory, value
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.limits import core_list
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.places import fill
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain


def fleet_python(value: object) -> str:
    """A value as Python source."""
    return repr(plain(value))


def fleet_exec(words: object) -> str:
    """A command as ExecStart of a systemd unit has it; `%i`, the number of an instance, is left alone at the end of a file's name."""
    return " ".join(map(_exec_word, plain(words)))  # type: ignore[call-overload]  # a list stays one


def _exec_word(word: str) -> str:
    text = re.sub(r"%(?!i\.json$)", "%%", word).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./*-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def fleet_filled(value: object, words: object) -> object:
    """A value with the places in braces filled in."""
    return fill(plain(value), plain(words))  # type: ignore[arg-type]  # a mapping stays one


def fleet_pg_hba(entries: object, where: str) -> list[str]:
    """Entries of rules as lines of pg_hba.conf; `where` is the variable that they are in."""
    return lines_of(plain(entries), where)  # type: ignore[arg-type]  # a list stays one


class FilterModule:
    """Ansible's way to find the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "fleet_cores": core_list,
            "fleet_exec": fleet_exec,
            "fleet_filled": fleet_filled,
            "fleet_python": fleet_python,
            "fleet_pg_allow": allowed,
            "fleet_pg_hba": fleet_pg_hba,
            "fleet_pg_memory": memory,
            "fleet_pg_value": value,
        }
