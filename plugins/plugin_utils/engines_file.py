# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A file of the inventory plugin `engines`, read and checked: data in, a `Source` or every problem out."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import CONSTRUCTED, FleetFileError
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import Values
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import Positions

PLUGIN_NAMES = ("engines", "ipyfleet.cluster.engines")
# ways to say which controller is asked
WAYS = ("connection_file", "profile", "fleet")
CACHE = ("cache", "cache_plugin", "cache_timeout", "cache_connection", "cache_prefix")
TOP = ("plugin", *WAYS, "timeout", "engine_timeout", *CACHE, *CONSTRUCTED)
TIMEOUT_SECONDS, ENGINE_SECONDS, LONGEST_SECONDS = 10.0, 5.0, 3600.0


@dataclass(frozen=True)
class Source:
    """Which controller is asked, and for how long.

    :param way: one of `WAYS`; empty for the fleet that the run has anyway.
    :param value: the file or the profile.
    :param timeout: seconds that the controller has to answer.
    :param engine_timeout: seconds that idle engines have to answer, together.
    """

    way: str
    value: str
    timeout: float
    engine_timeout: float


def read_source(data: object, file: str, where: Positions) -> Source:
    """Turn the data of a file into a source.

    :param data: what the YAML loader made of the file.
    :param file: the file's path, for messages; paths in it are relative to its folder.
    :param where: lines of the file's keys.
    :raises FleetFileError: with every problem found.
    """
    values = Values(file, where)
    top = values.mapping((), data, "a mapping of keys such as `plugin`, `fleet`, `connection_file`")
    for path, first, line in where.duplicates:
        values.wrong(path, f"stands twice, on lines {first} and {line}", line)
    values.known((), top, TOP)
    if top.get("plugin") not in PLUGIN_NAMES:
        values.expected(("plugin",), " or ".join(f"`{name}`" for name in PLUGIN_NAMES), top.get("plugin"))
    ways = [way for way in WAYS if way in top]
    if len(ways) > 1:
        values.wrong((ways[1],), f"expected one of {', '.join(WAYS)}, got {' and '.join(ways)}")
    for way in ways:
        if not isinstance(top[way], str) or not top[way]:
            values.expected((way,), "the name of a profile" if way == "profile" else "a file", top[way])
    seconds = {
        key: _seconds(values, key, top.get(key, default))
        for key, default in (("timeout", TIMEOUT_SECONDS), ("engine_timeout", ENGINE_SECONDS))
    }
    if values.problems:
        raise FleetFileError(values.problems)
    way = ways[0] if ways else ""
    value = top[way] if way else ""
    if way in ("connection_file", "fleet"):
        value = os.path.join(os.path.dirname(os.path.abspath(file)), os.path.expanduser(value))
    return Source(way, value, **seconds)


def _seconds(values: Values, key: str, value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= LONGEST_SECONDS:
        return float(value)
    values.expected((key,), f"a number of seconds above 0, up to {LONGEST_SECONDS:.0f}", value)
    return 0.0
