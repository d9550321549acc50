# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values without what Ansible wraps around them."""

from __future__ import annotations

from collections.abc import Mapping


def plain(value: object) -> object:
    """A value without Ansible's own types around it."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, str):
        return "".join(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return [plain(each) for each in value]  # type: ignore[attr-defined]  # a list, by now
