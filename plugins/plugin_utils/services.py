# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of a fleet's services a run is about, where it is not about all of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

# what starts engines that are no services, and its unit on the controller's host
STARTERS = {"ssh": ("ipcluster", "controller"), "mpi": ("mpiexec", "mpi")}


class ServiceError(Exception):
    """A word names no service of the fleet.

    :param problems: one line each.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def words_of(given: object) -> list[str]:
    """What was given as a list, or as text with commas."""
    words = given if isinstance(given, (list, tuple)) else str(given).split(",")
    return [text for word in words if (text := str(word).strip())]


def known_services(fleet: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Host and unit of each word that names a service: a slot, an engine's id, or what there is one of."""
    found = {"controller": (str(fleet["controller"]), "controller")}
    if fleet["jupyterlab"]:
        found["jupyterlab"] = (str(fleet["jupyterlab"]["host"]), "jupyterlab")
    if fleet["launcher"] == "mpi":
        found["mpi"] = (str(fleet["controller"]), "mpi")
    return found if fleet["launcher"] != "service" else found | _slots(fleet)


def _slots(fleet: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Host and unit of each slot, by its name and its engine's id."""
    found: dict[str, tuple[str, str]] = {}
    for host, each in fleet["hosts"].items():
        for slot in each["slots"]:
            unit = (host, f"engine@{slot['number']}")
            found |= {f"{host}/{slot['number']}": unit, str(slot["id"]): unit}
    return found


def chosen(fleet: Mapping[str, Any], given: object) -> dict[str, list[str]]:
    """Names of units by host; nothing when all are meant.

    :param fleet: as the roles see it; `asked` has the hosts within the run's limit.
    :param given: words, as a list or with commas between them.
    :raises ServiceError: when one names no service, or one beyond the limit.
    """
    known = known_services(fleet)
    found: dict[str, list[str]] = {}
    wrong = []
    for word in words_of(given):
        host, unit = known.get(word, ("", ""))
        if not unit and word in _slots(fleet):
            why = "engines are no services here, {} ({}) starts them".format(*STARTERS[fleet["launcher"]])
            wrong.append(f"chosen_services: expected {' or '.join(known)}, got {word}; {why}")
        elif not unit:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            wrong.append(f"chosen_services: expected controller, jupyterlab, a slot such as HOST/0, or an engine's id, got {word}{hint}")
        elif host not in fleet["asked"]:
            wrong.append(f"chosen_services: expected a service on a host within --limit, got {word}")
        elif unit not in found.setdefault(host, []):
            found[host].append(unit)
    if wrong:
        raise ServiceError(wrong)
    return found


def is_chosen(fleet: Mapping[str, Any], host: str, unit: str) -> bool:
    """Whether a run is about a unit."""
    services = fleet.get("services")
    if services and fleet["launcher"] != "service" and unit.startswith("engine@"):
        host, unit = fleet["controller"], STARTERS[fleet["launcher"]][1]
    return not services or unit in services.get(host, [])


def units_of(fleet: Mapping[str, Any], host: str, phase: str) -> list[str] | None:
    """Units of a host that a phase is about: nothing when it is all of them, None when it is none.

    A signal goes to engines where nothing is chosen.
    """
    services = fleet.get("services")
    if not services and phase != "signal":
        return []
    units = services.get(host, []) if services else [f"engine@{slot['number']}" for slot in fleet["hosts"][host]["slots"]]
    return list(units) or None
