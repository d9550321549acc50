# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Taking a fleet away from a host: what it brought and nothing else, and so that a second try finds what a first one left."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List, Union

from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_accounts as accounts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts as facts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_reading import regular_bytes
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_supervisord import Supervisord
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import Systemd

MARKER = "fleet.json"
# where root's database of scope user is: another account's, it cannot be in root's home
ROOTS_DATABASE = "/var/lib/ipyfleet-%s-postgresql"


class Removal:
    """One fleet's removal from this host.

    :param module: the module fleet_host, with its parameters.
    :param changes: where each change is noted.
    """

    def __init__(self, module: Any, supervisor: Union[Systemd, Supervisord], changes: List[Dict[str, Any]]) -> None:
        self.module = module
        self.params = module.params
        self.paths: Dict[str, str] = module.params["paths"]
        self.supervisor = supervisor
        self.changes = changes
        # what is written once and belongs to people from then on, as it was written, by path
        self.starters = {each["path"]: each["content"] for each in self.params["entries"] if each.get("once")}
        self.kept: List[str] = []
        rootless = module.params["scope"] == "system" or os.geteuid()
        self.database = "" if rootless else ROOTS_DATABASE % module.params["fleet"]

    def carry_out(self) -> None:
        """Take away what converging brought; nothing outside of it, and no folder of data with something in it."""
        self.check_own()
        self.changes += self.supervisor.stop_all()
        # what people have outside of the fleet's own folders is never removed
        keep = self.data() if self.params["keep_data"] else self.notebooks(outside=True)
        self.kept = keep
        folders = sorted({path for path in self.paths.values() if not self.inside(path)}, reverse=True)
        outside = [each for each in self.params["entries"] if not self.inside(each["path"]) and each["path"] not in folders]
        self.absent([each for each in outside if each["kind"] != "directory" and os.path.dirname(each["path"]) not in keep])
        for path in folders:
            self.remove_folder(path, keep)
        if os.path.isdir(self.database) and self.database not in keep:
            self.remove_folder(self.database, [])
        self.absent([each for each in reversed(outside) if each["kind"] == "directory"])
        if self.params["scope"] == "system":
            for name in accounts.living_in(self.homes(keep)):
                self.changes += accounts.remove(self.module, name)
        if self.changes and not self.module.check_mode and isinstance(self.supervisor, Systemd):
            self.supervisor.change("daemon-reload")

    def data(self) -> List[str]:
        """Folders with what engines wrote, with databases and notebooks, that have something in them."""
        folders = [os.path.join(self.paths["state"], name) for name in ("work", "postgresql")]
        found = [each for each in [*folders, self.database] if os.path.isdir(each) and os.listdir(each)]
        return found + self.notebooks(outside=False) + self.notebooks(outside=True)

    def notebooks(self, outside: bool) -> List[str]:
        """Folders with notebooks other than those that everybody starts with, as they were written.

        :param outside: whether those that are meant are outside of the fleet's own folders, or inside.
        """
        usual = os.path.join(self.paths["lab"], "notebooks")
        folders = sorted({usual, *map(os.path.dirname, self.starters)})
        return [each for each in folders if self.inside(each) != outside and not self.pristine(each)]

    def pristine(self, folder: str) -> bool:
        """Whether a folder has nothing in it that people made or changed."""
        names = os.listdir(folder) if os.path.isdir(folder) else []
        paths = [os.path.join(folder, name) for name in names]
        return all(path in self.starters and holds(path, self.starters[path]) for path in paths)

    def check_own(self) -> None:
        """Refuse folders that exist and do not say that they are this fleet's."""
        marker = os.path.join(self.paths["etc"], MARKER)
        there = facts.strangers(list(self.paths.values()))
        if there and '"name": "%s"' % self.params["fleet"] not in facts.read_bytes(marker).decode("utf-8", "replace"):
            raise tree.TreeError("%s: expected the description of fleet %s; nothing was removed" % (marker, self.params["fleet"]))

    def inside(self, path: str) -> bool:
        """Whether a path lies in one of the fleet's own folders."""
        return any(path.startswith(each + os.sep) for each in self.paths.values())

    def absent(self, entries: List[Dict[str, Any]]) -> None:
        """Remove entries, each as its owner."""
        for each in entries:
            owner = tree.Owner(tree.account(each["owner"]))
            if owner.uid is not None:
                self.changes += tree.converge_as(owner, self.module, [{"kind": "absent", "path": tree.expand(each["path"], owner)}])

    def remove_folder(self, path: str, keep: List[str]) -> None:
        """Remove a folder of the fleet; its description goes last, so that a second try knows it."""
        if not os.path.isdir(path) or os.path.islink(path):
            return
        kept = [each for each in keep if leads_to(path, [each])]
        self.changes.append({"path": path, "what": "remove folder" + (", but keep %s" % ", ".join(kept) if kept else "")})
        if not self.module.check_mode:
            empty(path, kept)

    def homes(self, keep: List[str]) -> List[str]:
        """Folders whose accounts were made for the fleet, on whichever of its hosts; who has data in `keep` stays."""
        data = [] if keep else [self.paths["state"], os.path.join(self.paths["lab"], "home")]
        return [*data, self.paths["tunnel"], self.paths["door"]]


def holds(path: str, text: str) -> bool:
    """Whether a path is a regular file with this text."""
    try:
        return regular_bytes(path) == text.encode()
    except OSError:
        return False


def empty(path: str, keep: List[str]) -> None:
    """Remove a folder except for what is in `keep`, and what leads there."""
    for name in sorted(os.listdir(path), key=lambda name: (name in ("etc", MARKER), name)):
        each = os.path.join(path, name)
        if os.path.islink(each) or not os.path.isdir(each):
            os.unlink(each)
        elif leads_to(each, keep):
            empty(each, keep)
        elif each not in keep:
            shutil.rmtree(each)
    if not leads_to(path, keep):
        os.rmdir(path)


def leads_to(path: str, keep: List[str]) -> bool:
    """Whether something in `keep` is below `path`."""
    return any(each.startswith(path + os.sep) for each in keep)
