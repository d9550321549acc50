# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From ipyparallel's configuration files on disk to a fleet: read, converted and checked like a fleet file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_settings import Place
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_source import NotPython, Settings
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import PLUGIN_NAMES, Fleet, FleetFileError, read_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_values import Problem
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import Path, Positions
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ipcluster_fleet import convert
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ipcluster_notes import Conversion, one_line

CLUSTER = "ipcluster_config.py"
# what stands beside it; later files count where both set the same
BESIDE = ("ipcontroller_config.py", "ipengine_config.py")
PROFILE = "profile_"
# a name for a fleet whose profile has none that could be its own
NAME = "lab"


def read(path: str, given: Mapping[str, Any], origins: Mapping[Path, Place] | None = None) -> tuple[Fleet, Conversion]:
    """Read a configuration, with the files beside it.

    :param path: an ``ipcluster_config.py``, or the folder of its profile.
    :param given: keys of a fleet file that are wanted as they are.
    :param origins: where each of these stands.
    :raises FleetFileError: with every problem found.
    """
    file = config_file(path)
    settings_ = settings(file)
    try:
        found = convert(settings_, {"name": name_of(file), **given}, file)
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        text = one_line(f"expected settings of ipcluster, got such as cannot be converted: {error}")
        raise FleetFileError([Problem(file, 1, "", text)]) from error
    found = replace(found, data={"plugin": PLUGIN_NAMES[0], **found.data}, origins={**found.origins, **(origins or {})})
    places = [Place(file, 1), *found.origins.values()]
    lines = {path: number for number, path in enumerate(found.origins, 2)}
    wrong = list(found.problems)
    try:
        # every place a number, since there are several files with lines
        fleet = read_fleet(found.data, file, Positions(lines))
    except FleetFileError as error:
        # what is missing because of a problem is none of its own
        mine = [each for each in error.problems if not wrong or each.key not in ("engines", "controller")]
        wrong += [replace(each, file=places[each.line - 1].file, line=places[each.line - 1].line) for each in mine]
    if wrong:
        raise FleetFileError(wrong)
    return fleet, found


def config_file(path: str) -> str:
    """The file that a path leads to.

    :raises FleetFileError: when there is none.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        path = os.path.join(path, CLUSTER)
    if not os.path.isfile(path):
        raise FleetFileError([Problem(path, 1, "", f"expected an {CLUSTER}, got no such file")])
    return path


def settings(file: str) -> Settings:
    """All settings of a file and of those beside it.

    :raises FleetFileError: when one cannot be read, or is not Python.
    """
    found = Settings()
    folder, name = os.path.split(file)
    # a copy such as old_ipcluster_config.py has its neighbours under the same first part
    first = name.removesuffix(CLUSTER)
    there = [each for each in (os.path.join(folder, first + other) for other in BESIDE) if os.path.isfile(each) and name.endswith(CLUSTER)]
    problems = []
    for each in [file, *there]:
        try:
            with open(each, "rb") as stream:
                found.read(each, stream.read(), os.path.abspath(each))
        except OSError as error:
            problems.append(Problem(each, 1, "", f"expected a file that can be read, got: {error.strerror}"))
        except NotPython as error:
            problems.append(Problem(each, error.line, "", one_line(f"expected Python 3, got: {error}")))
    if problems:
        raise FleetFileError(problems)
    return found


def name_of(file: str) -> str:
    """A name for the fleet of a profile, from its folder: `ssh` of ``profile_ssh``."""
    folder = os.path.basename(os.path.dirname(os.path.abspath(file)))
    name = re.sub(r"[^a-z0-9]+", "-", folder.removeprefix(PROFILE).lower()).strip("-")[:20].strip("-")
    return name if folder.startswith(PROFILE) and name[:1].isalpha() else NAME
