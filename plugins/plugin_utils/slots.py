# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which engine id belongs to which slot of which host, and stays so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def allocate(wanted: Mapping[str, int], kept: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Engine ids of each host's slots, in the order of the slots.

    A slot keeps the id it had, so that adding or removing hosts touches no other host's engines;
    a new one gets the lowest id that is free, hosts in their order.

    :param wanted: number of slots by host.
    :param kept: ids by host, as allocated before.
    """
    found: dict[str, list[int]] = {}
    used: set[int] = set()
    for host, count in wanted.items():
        # a list edited by hand may give an id twice: then the first host has it
        ids = [number for number in dict.fromkeys(kept.get(host, ())[:count]) if number not in used]
        used.update(ids)
        found[host] = ids
    free = _free(used)
    for host, count in wanted.items():
        found[host] += [next(free) for _ in range(count - len(found[host]))]
    return found


def _free(used: set[int]) -> Iterator[int]:
    number = 0
    while True:
        if number not in used:
            yield number
        number += 1


def auto_slots(cores: int, memory_mb: int, reserve_cores: int, memory_per_engine_mb: int) -> int:
    """Slots of a host that asks for `auto`: its cores less the reserve, capped by memory; at least one.

    :param memory_mb: memory of the host in MiB.
    :param memory_per_engine_mb: what one engine may need, in MiB.
    """
    return max(1, min(cores - reserve_cores, memory_mb // max(1, memory_per_engine_mb)))
