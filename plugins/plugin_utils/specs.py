# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check the variables that an inventory sets against the argument specs of the roles.

Ansible would check them role by role and host by host, in a task each, and stop at the first
that fails. Here all are read at once, and only those that somebody has set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import shown
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.names import nearest

Options = dict[str, dict[str, Any]]


def load_specs(roles: Path, names: Sequence[str]) -> dict[str, Options]:
    """Options of the main entry point of roles, by role."""
    found = {}
    for name in names:
        text = (roles / name / "meta" / "argument_specs.yml").read_text(encoding="utf-8")
        found[name] = dict(yaml.safe_load(text)["argument_specs"]["main"].get("options", {}))
    return found


def owned(name: str, roles: Sequence[str]) -> bool:
    """Whether a variable's name says that it is one of ours."""
    return name.startswith(("fleet_", *(f"{role}_" for role in roles)))


def check(variables: Mapping[str, Any], specs: Mapping[str, Options]) -> tuple[dict[str, Any], list[str]]:
    """The variables of ours as their types want them, and one line for each that is unknown or wrong.

    Numbers and booleans may be given as text, as ``-e name=value`` and INI inventories do.

    :param variables: what is set for a host, by name.
    :param specs: options by role.
    """
    options = {name: option for role in specs.values() for name, option in role.items()}
    good: dict[str, Any] = {}
    wrong: list[str] = []
    for name in sorted(variables):
        if not owned(name, tuple(specs)):
            continue
        if name not in options:
            near = nearest(name, options)
            wrong.append(f"{name}: unknown variable" + (f"; did you mean `{near}`?" if near else ""))
            continue
        try:
            good[name] = converted(variables[name], options[name])
        except ValueError as error:
            wrong.append(f"{name}: expected {error}, got {shown(variables[name])}")
    return good, wrong


def converted(value: Any, option: Mapping[str, Any]) -> Any:
    """A value as an option wants it.

    :raises ValueError: with what was expected, when it cannot be that.
    """
    kind = option["type"]
    words = {"int": "a number", "float": "a number", "bool": "a boolean", "str": "text", "path": "a path", "dict": "a mapping"}
    words["list"] = f"a list of {option.get('elements', 'str')}"
    # Ansible would take text apart at commas and equals signs
    plain = {"list": list, "dict": Mapping}.get(kind)
    if (plain and not isinstance(value, plain)) or (kind in ("int", "float") and isinstance(value, bool)):
        raise ValueError(words[kind])
    if kind in ("str", "path") and isinstance(value, (list, Mapping)):
        raise ValueError(words[kind])
    spec = {key: option[key] for key in ("type", "elements") if key in option}
    result = ArgumentSpecValidator({"value": spec}).validate({"value": value})
    if result.error_messages:
        raise ValueError(words[kind])
    found = result.validated_parameters["value"]
    if "choices" in option and found not in option["choices"]:
        raise ValueError(f"one of {', '.join(map(str, option['choices']))}")
    return found
