# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which lock belongs to which set of extra packages, and stays so from run to run.

A set without extra packages has the lock that comes with this collection. Others are locked when
first needed; the lock is kept beside the fleet's keys, so that a later run never upgrades by itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.environment import Builder, lock_digest


def lock_key(host: Mapping[str, Any]) -> str:
    """The extra packages of a host as one string: what its lock is found by."""
    return "\n".join(host["packages"])


def package_sets(fleet: Mapping[str, Any]) -> list[str]:
    """The different sets of extra packages that hosts of the fleet ask for, each as a lock's key."""
    return sorted({lock_key(each) for each in fleet["hosts"].values()})


def pins(text: str) -> dict[str, str]:
    """Versions by name, of packages that a lock has for every machine."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+) *\\?$", text, re.MULTILINE)
    return {re.sub(r"[._-]+", "-", name).lower(): version for name, version in found}


class Locks:
    """Locks of one fleet.

    :param folder: the folder of the fleet's keys.
    :param builder: makes new locks; its cache has them until they are kept.
    """

    def __init__(self, folder: str, builder: Builder) -> None:
        self.kept = Path(folder) / "locks"
        self.cached = builder.cache / "locks"
        self.builder = builder

    def name(self, key: str, python: str) -> str:
        """File name of a lock."""
        return f"{self.builder.wanted_key(key.splitlines())}-{python}.txt"

    def known_digest(self, key: str) -> str:
        """Digest of the lock that is kept for a set, whatever the Python version; empty when there is none."""
        text = self.known_text(key)
        return lock_digest(text) if text else ""

    def known_text(self, key: str) -> str:
        """The lock that is kept for a set, whatever the Python version; empty when there is none."""
        if not key:
            return self.builder.lock.read_text()
        made = sorted(self.kept.glob(self.name(key, "*")))
        return made[-1].read_text() if made else ""

    def text(self, key: str, python: str) -> str:
        """The lock for a set, made now if there is none.

        :raises EnvironmentProblem: when the packages do not go together.
        """
        if not key:
            return self.builder.lock.read_text()
        for folder in (self.kept, self.cached):
            path = folder / self.name(key, python)
            if path.exists():
                return path.read_text()
        text = f"# {', '.join(key.splitlines())}\n" + self.builder.resolve(key.splitlines(), python)
        self.cached.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.cached / self.name(key, python)).write_text(text)
        return text

    def digests(self, fleet: Mapping[str, Any], python: str) -> dict[str, str]:
        """Digests of the locks of all sets in use, for one version of Python."""
        return {key: lock_digest(self.text(key, python)) for key in package_sets(fleet)}

    def keep(self, fleet: Mapping[str, Any]) -> None:
        """Keep the locks in use beside the fleet's keys."""
        for key in filter(None, package_sets(fleet)):
            for path in self.cached.glob(self.name(key, "*")):
                target = self.kept / path.name
                if not target.exists() and lock_digest(path.read_text()) == fleet["locks"][key]:
                    target.parent.mkdir(mode=0o700, exist_ok=True)
                    shutil.copyfile(path, target)
