# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host cannot do of the limits that its engines are to have."""

from __future__ import annotations

import grp
import os
import platform
from typing import Any, Dict, Iterator, List


def problems(wanted: Dict[str, Any]) -> Iterator[str]:
    """One line for each thing that is wrong.

    :param wanted: `cpus`, numbers of cores; `spread`, whether engines share out those that there are; `memory_max`; and
        `groups` that engines are to be in.
    """
    system = platform.system()
    for key, asked in (("cpus", wanted["cpus"] or wanted["spread"]), ("memory_max", wanted["memory_max"])):
        if asked and system != "Linux":
            yield "expected Linux, for the %s of its engines, got %s; leave %s out" % (key, system, key)
    if wanted["cpus"] and system == "Linux":
        there = os.sched_getaffinity(0)
        if missing := [core for core in wanted["cpus"] if core not in there]:
            got = ", ".join(map(str, missing))
            yield "expected cores that the host has for the cpus of its engines, got %s; it has %s" % (got, ranges(sorted(there)))
    known = {entry.gr_name for entry in grp.getgrall()} if wanted["groups"] else set()
    for name in wanted["groups"]:
        if name not in known:
            yield "expected the group %s, whose members may use GPUs, got no such group; install their driver first" % name


def ranges(cores: List[int]) -> str:
    """Numbers in ascending order, as ranges: ``0-3,8``."""
    found: List[List[int]] = []
    for core in cores:
        if found and core == found[-1][1] + 1:
            found[-1][1] = core
        else:
            found.append([core, core])
    return ",".join(str(first) if first == last else "%d-%d" % (first, last) for first, last in found)
