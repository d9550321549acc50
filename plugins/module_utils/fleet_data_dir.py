# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The folder of notebooks, where it is not one of the fleet's own: whether it can be given to JupyterLab's account."""

from __future__ import annotations

import os
import stat
from typing import Dict, Iterator

from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree

KEY = "jupyterlab_data_dir"
SYSTEM = ("/", "/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/srv", "/sys", "/usr", "/var")


def problems(path: str, user: str, paths: Dict[str, str], system: bool) -> Iterator[str]:
    """What speaks against it, in a line.

    :param user: the account that gets it.
    :param paths: the fleet's own folders.
    :param system: whether root gives it to another account.
    """
    own = os.path.realpath(path)
    parent = os.path.dirname(own)
    # those of other fleets are beside this one's
    fleets = sorted({os.path.dirname(each) for each in paths.values()})
    if own != path:
        yield "%s: expected a path without links, dots and a slash at its end, got %s; write %s" % (KEY, path, own)
    elif path in SYSTEM:
        yield "%s: expected a folder for notebooks alone, got %s, which is the system's; name one in it" % (KEY, path)
    elif any((path + os.sep).startswith(each + os.sep) for each in fleets):
        yield "%s: expected a folder outside of those of fleets, got %s; leave it empty for the fleet's own" % (KEY, path)
    elif not os.path.isdir(parent):
        yield "%s: expected %s to be in a folder that is there, got no folder %s; make it" % (KEY, path, parent)
    elif os.path.lexists(path) and os.lstat(path).st_uid != tree.Owner(user).uid:
        there = tree.name_of(os.lstat(path).st_uid) or "an account that is gone"
        yield "%s: %s; a name that is not there yet will do, too" % (KEY, tree.OTHER_OWNER % (path, user, "one of %s" % there))
    elif system:
        yield from _shared_problems(path, parent)
    elif not os.path.lexists(path) and not os.access(parent, os.W_OK | os.X_OK):
        yield "%s: expected %s to be a folder that %s can write to, got one that is not; name another" % (KEY, parent, user)


def _shared_problems(path: str, parent: str) -> Iterator[str]:
    """Folders on the way whose user could put something else in the place of the next one, or lets nobody pass."""
    folder = parent
    while True:
        seen = os.stat(folder)
        if seen.st_uid or seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield "%s: expected nobody but root to write to %s, where %s is to be, got others who can; name another" % (KEY, folder, path)
            return
        if not seen.st_mode & stat.S_IXOTH:
            yield "%s: expected a folder that JupyterLab's account can reach, got %s, and %s lets nobody pass" % (KEY, path, folder)
            return
        if folder == os.sep:
            return
        folder = os.path.dirname(folder)
