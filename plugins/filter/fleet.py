# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters for the roles' templates and the playbooks' messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import (
    states_of,
    status_text,
    verify_text,
)


def fleet_python(value: object) -> str:
    """A value as Python source."""
    return repr(plain(value))


def fleet_status(result: Mapping[str, Any], fleet: Mapping[str, Any], hostvars: Mapping[str, Any]) -> str:
    """The state of every slot as text."""
    return status_text(result, fleet, states_of(fleet, hostvars))


def fleet_verify(result: Mapping[str, Any], fleet: Mapping[str, Any], hostvars: Mapping[str, Any]) -> str:
    """The outcome of a verification as text."""
    return verify_text(result, fleet, states_of(fleet, hostvars))


class FilterModule:
    """Ansible's way to find the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "fleet_python": fleet_python,
            "fleet_status": fleet_status,
            "fleet_verify": fleet_verify,
        }
