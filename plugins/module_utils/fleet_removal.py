# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Taking a fleet away from a host: what it brought and nothing else, and so that a second try finds what a first one left."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List, Union

from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts as facts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
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
        rootless = module.params["scope"] == "system" or os.geteuid()
        self.database = "" if rootless else ROOTS_DATABASE % module.params["fleet"]

    def carry_out(self) -> None:
        """Take away what converging brought; nothing outside of it, and no work folder with something in it."""
        self.check_own()
        self.changes += self.supervisor.stop_all()
        keep = self.data() if self.params["keep_data"] else []
        folders = sorted({path for path in self.paths.values() if not self.inside(path)}, reverse=True)
        outside = [each for each in self.params["entries"] if not self.inside(each["path"]) and each["path"] not in folders]
        self.absent([each for each in outside if each["kind"] != "directory"])
        for path in folders:
            self.remove_folder(path, keep)
        if os.path.isdir(self.database) and self.database not in keep:
            self.remove_folder(self.database, [])
        self.absent([each for each in reversed(outside) if each["kind"] == "directory"])
        if self.params["scope"] == "system" and not keep:
            self.remove_user()
        if self.changes and not self.module.check_mode and isinstance(self.supervisor, Systemd):
            self.supervisor.change("daemon-reload")

    def data(self) -> List[str]:
        """Folders with what engines wrote, and with databases, that have something in them."""
        folders = [os.path.join(self.paths["state"], name) for name in ("work", "postgresql")]
        return [each for each in [*folders, self.database] if os.path.isdir(each) and os.listdir(each)]

    def check_own(self) -> None:
        """Refuse folders that exist and do not say that they are this fleet's."""
        marker = os.path.join(self.paths["etc"], MARKER)
        there = [path for path in self.paths.values() if os.path.isdir(path) and os.listdir(path)]
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

    def remove_user(self) -> None:
        """Remove the service user, if it is the one that was made for the fleet."""
        name = self.params["user"]
        if tree.Owner(name).home != self.paths["state"]:
            return
        self.changes.append({"path": name, "what": "remove system user"})
        if not self.module.check_mode:
            code, _, err = self.module.run_command([self.module.get_bin_path("userdel", required=True), name])
            if code:
                raise tree.TreeError("userdel %s: %s" % (name, err.strip()))


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
