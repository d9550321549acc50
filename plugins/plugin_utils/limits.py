# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the engines of a host may use: GPUs, cores and memory. Read and checked, before any host is touched."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

SPREAD = "spread"
CORES = '`spread`, or cores of the host such as "0-3,8", each once'
GPUS = "a number of GPUs, 0 to 64, or a list of their numbers or UUIDs such as [0, 2], each once"
MOST_GPUS = 64
# who reads them: CUDA; ROCm, below HIP and OpenCL; HIP; oneAPI's Level Zero
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
GPU_KINDS = (re.compile(r"[0-9]{1,4}"), re.compile(r"(GPU|MIG)-[A-Za-z0-9/-]+"))
LAST_CORE = 8191
# MiB; an engine without a task has two thirds of it
LEAST_MEMORY = 256


def core_list(text: object) -> list[int]:
    """Cores that are named one by one, in the order they are named; none for `spread` and for nothing.

    :param text: such as ``0-3,8``.
    :raises ValueError: with what was expected.
    """
    if not isinstance(text, str):
        raise ValueError(CORES)
    found: list[int] = []
    for part in text.split(",") if text not in ("", SPREAD) else []:
        match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last > LAST_CORE:
            raise ValueError(CORES)
        found += range(first, last + 1)
    if len(set(found)) != len(found):
        raise ValueError(CORES)
    return found


def gpu_names(value: object) -> list[str]:
    """GPUs that are named one by one.

    :raises ValueError: with what was expected.
    """
    found = [str(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    one_kind = any(all(kind.fullmatch(each) for each in found) for kind in GPU_KINDS)
    if not found or len(set(found)) != len(found) or not one_kind:
        raise ValueError(GPUS)
    return found


def problems(variables: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the variables of an engine host; they have the types that the role's specs want."""
    names, count = variables.get("ipp_engine_gpu_names") or [], int(variables.get("ipp_engine_gpus", 0))
    if names:
        try:
            gpu_names(names)
        except ValueError:
            yield f"ipp_engine_gpu_names: expected numbers or UUIDs of GPUs, each once, got {', '.join(map(str, names))}"
    if not 0 <= count <= MOST_GPUS:
        yield f"ipp_engine_gpus: expected a number of GPUs, 0 to {MOST_GPUS}, got {count}"
    if names and count not in (0, len(names)):
        yield f"ipp_engine_gpus: expected the number of ipp_engine_gpu_names, {len(names)}, got {count}"
    each, there = int(variables.get("ipp_engine_gpus_per_slot", 1)), len(names) or count
    if not 1 <= each <= max(1, there):
        yield f"ipp_engine_gpus_per_slot: expected a number from 1 to the host's {there} GPUs, got {each}"
    try:
        core_list(variables.get("ipp_engine_cpus", ""))
    except ValueError as error:
        yield f"ipp_engine_cpus: expected {error}, got {variables['ipp_engine_cpus']!r}"
    memory = int(variables.get("ipp_engine_memory_max_mb", 0))
    if memory and memory < LEAST_MEMORY:
        yield f"ipp_engine_memory_max_mb: expected 0 for none, or a size from {LEAST_MEMORY} on, got {memory}"
