"""Which fleet is meant, where none is named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ipyfleet.errors import InputError

SUFFIXES = (".fleet.yml", ".fleet.yaml")
VARIABLE = "IPYFLEET_INVENTORY"


def chosen(given: Sequence[str] | None, option: str = "-i") -> list[str]:
    """The inventory sources to use: those that are given, or the only fleet file of this folder.

    :param option: by which one can be chosen.
    :raises InputError: when none is given and it is not clear which one is meant.
    """
    if given:
        return list(given)
    found = fleet_files("")
    if len(found) == 1:
        return found
    if not found:
        raise InputError([f"{option}: expected a fleet file, got none in {Path.cwd()}; make one with `ipyfleet init`"])
    raise InputError([f"{option}: expected one fleet file, got {', '.join(found)}; choose one with {option}"])


def fleet_files(incomplete: str) -> list[str]:
    """Fleet files of this folder whose names begin so."""
    folder, _, start = incomplete.rpartition(os.sep)
    found = [path for path in Path(folder or ".").glob("*") if path.name.startswith(start) and path.name.endswith(SUFFIXES)]
    # a hidden one is about to take the place of another
    found = [path for path in found if start or not path.name.startswith(".")]
    return sorted(os.path.join(folder, path.name) for path in found if path.is_file())
