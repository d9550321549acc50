# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check the variables that an inventory sets against the argument specs of the roles.

Ansible would check them role by role and host by host, in a task each, and stop at the first
that fails. Here all are read at once, and only those that somebody has set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
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


def check(variables: Mapping[str, Any], specs: Mapping[str, Options]) -> Iterator[str]:
    """One line for each variable of ours that is unknown or has a value it cannot have.

    :param variables: what is set for a host, by name.
    :param specs: options by role.
    """
    options = {name: option for role in specs.values() for name, option in role.items()}
    ours = {name: value for name, value in variables.items() if owned(name, tuple(specs))}
    for name in sorted(set(ours) - set(options)):
        near = nearest(name, options)
        yield f"{name}: unknown variable" + (f"; did you mean `{near}`?" if near else "")
    for name in sorted(set(ours) & set(options)):
        spec = {key: value for key, value in options[name].items() if key not in ("description", "required", "default")}
        result = ArgumentSpecValidator({name: _without_texts(spec)}).validate({name: ours[name]})
        for message in result.error_messages:
            yield f"{name}: {message}"


def _without_texts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as the validator takes it: without descriptions, at any depth."""
    kept = {key: value for key, value in spec.items() if key != "description"}
    if "options" in kept:
        kept["options"] = {name: _without_texts(option) for name, option in kept["options"].items()}
    return kept
