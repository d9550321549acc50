# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters for the roles' templates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain


def fleet_python(value: object) -> str:
    """A value as Python source."""
    return repr(plain(value))


class FilterModule:
    """Ansible's way to find the filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"fleet_python": fleet_python}
