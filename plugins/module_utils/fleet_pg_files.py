# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet's files in the configuration of a PostgreSQL cluster, and the way back to those that last worked.

All of them are read and written in the name of the server's account, whose folders these are.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any, Dict, List, Mapping, Optional

from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_secrets import masked
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_server import Layout, fleet_of, includes

INCLUDE_LINES = "\n# the settings of a fleet\ninclude_dir = 'conf.d'\n"
PRIVATE = "0600"
# settings can hold passwords for other servers
DROP_IN_MODE = "0640"


class Files:
    """The files of one cluster.

    :param module: with its check mode, files are only compared.
    """

    def __init__(self, module: Any, where: Layout) -> None:
        self.module = module
        self.where = where
        self.owner = tree.Owner(where.user)
        if self.owner.uid is None:
            raise tree.TreeError("expected the user %s of PostgreSQL, got no such user" % where.user)
        self.main = os.path.join(where.config, "postgresql.conf")
        self.last_good = os.path.join(where.own, "last-good.json")

    def present(self, conf: str, hba: str, pem: str, ca: str) -> List[Dict[str, Any]]:
        """Entries of all files: certificates first, then who may connect, then the settings that open the door."""
        where = self.where
        before = self.read([where.hba, where.first_hba, self.main])
        found: List[Dict[str, Any]] = [
            {"kind": "directory", "path": os.path.dirname(where.drop_in), "mode": "0755", "keep": True},
            {"kind": "directory", "path": where.own, "mode": "0755"},
        ]
        found += [{"kind": "file", "path": where.ca, "content": ca, "mode": "0644"}] if ca else []
        found += [{"kind": "file", "path": where.pem, "content": pem, "mode": PRIVATE, "secret": True}] if pem else []
        first = before[where.hba]
        if first is not None and not fleet_of(first) and before[where.first_hba] is None:
            found.append({"kind": "file", "path": where.first_hba, "content": first, "mode": "0640"})
        found.append({"kind": "file", "path": where.hba, "content": hba, "mode": "0640"})
        found.append({"kind": "file", "path": where.drop_in, "content": conf, "mode": DROP_IN_MODE})
        main = before[self.main]
        if main is not None and not includes(main, "conf.d"):
            found.append({"kind": "file", "path": self.main, "content": main + INCLUDE_LINES, "mode": self.mode_of(self.main)})
        return found

    def absent(self) -> List[Dict[str, Any]]:
        """Entries that take the fleet's files away, and put the first pg_hba.conf back."""
        where = self.where
        first = self.read([where.first_hba])[where.first_hba]
        # the rules are last: by them, a removal that was cut short is known
        paths = [where.drop_in, where.pem, where.ca, self.last_good, where.own]
        found: List[Dict[str, Any]] = [{"kind": "absent", "path": path} for path in paths]
        if first is not None:
            found += [{"kind": "file", "path": where.hba, "content": first, "mode": "0640"}, {"kind": "absent", "path": where.first_hba}]
        return found

    def put(self, entries: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Bring entries about, and return the changes, as they may be shown."""
        changes = tree.converge_as(self.owner, self.module, entries)
        for each in changes:
            if "diff" in each:
                each["diff"] = {side: masked(text) for side, text in each["diff"].items()}
        return changes

    def read(self, paths: List[str]) -> Dict[str, Optional[str]]:
        """Texts of files; None for those that are not there."""

        def work() -> Dict[str, Optional[str]]:
            return {path: tree.read_regular(path) for path in paths}

        return work() if self.owner.is_me else dict(tree.in_child(self.owner, work))

    def mode_of(self, path: str) -> str:
        """Mode of a file, as entries have it."""
        return "%04o" % stat.S_IMODE(os.lstat(path).st_mode)

    # -- the way back

    def kept(self) -> Dict[str, Optional[str]]:
        """The texts with which the server was last seen to work, by path; empty while none are kept."""
        text = self.read([self.last_good])[self.last_good]
        return dict(json.loads(text)) if text else {}

    def keep(self, only_first: bool = False) -> None:
        """Keep the files of now as those that work.

        :param only_first: unless some are kept already.
        """
        if only_first and self.kept():
            return
        paths = [self.where.ca, self.where.pem, self.where.hba, self.where.drop_in]
        content = json.dumps(self.read(paths), sort_keys=True)
        folder = {"kind": "directory", "path": self.where.own, "mode": "0755"}
        self.put([folder, {"kind": "file", "path": self.last_good, "content": content, "mode": PRIVATE, "secret": True}])

    def put_back(self) -> bool:
        """Put the files back that work; returns whether any was another one."""
        return bool(self.put(entries_of(self.kept(), self.where)))


def entries_of(kept: Mapping[str, Optional[str]], where: Layout) -> List[Dict[str, Any]]:
    """Entries that bring kept texts back: settings first, so that nothing refers to what is gone already."""
    modes = {where.pem: PRIVATE, where.hba: "0640", where.drop_in: DROP_IN_MODE}
    order = [where.drop_in, where.hba, where.pem, where.ca]
    found: List[Dict[str, Any]] = []
    for path in (each for each in order if each in kept):
        if kept[path] is None:
            found.append({"kind": "absent", "path": path})
        else:
            found.append(
                {"kind": "file", "path": path, "content": kept[path], "mode": modes.get(path, "0644"), "secret": path == where.pem}
            )
    return found
