# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""People's own code on a host, and how the fleet's Python finds it."""

from __future__ import annotations

import glob
import os
import shutil
from typing import Any, List

# below the fleet's root: a link, and the folders that it has led to, by digest
LINK, FOLDERS = "code", "codes"
TIE = "ipyfleet_code.pth"


def current(root: str) -> str:
    """Digest of the code that is in place; empty when there is none."""
    link = os.path.join(root, LINK)
    return os.path.basename(os.readlink(link)) if os.path.islink(link) and os.path.isdir(link) else ""


def ties(root: str, env: str) -> List[str]:
    """Files that lead an environment to the code, of those that are not there as they should be.

    What is behind them comes last in sys.path: it hides nothing of Python's, or of packages.
    """
    wanted = os.path.join(root, LINK) + "\n"
    found = []
    for folder in glob.glob(os.path.join(env, "lib", "python*", "site-packages")):
        path = os.path.join(folder, TIE)
        try:
            with open(path) as stream:
                there = stream.read()
        except OSError:
            there = ""
        if there != wanted:
            found.append(path)
    return found


def tie(root: str, env: str) -> None:
    """Lead an environment to the code, if there is some."""
    if not current(root):
        return
    for path in ties(root, env):
        new = path + ".new"
        with open(new, "w") as stream:
            stream.write(os.path.join(root, LINK) + "\n")
        os.chmod(new, 0o644)
        os.replace(new, path)


def install(root: str, digest: str, unpack: Any) -> None:
    """Put code in place, in one moment; what was there goes.

    :param unpack: called with the folder to unpack to.
    """
    os.umask(0o022)
    folders = os.path.join(root, FOLDERS)
    os.makedirs(folders, exist_ok=True)
    final = os.path.join(folders, digest)
    new = final + ".new"
    for path in (new, final) if current(root) != digest else (new,):
        shutil.rmtree(path, ignore_errors=True)
    os.mkdir(new)
    try:
        unpack(new)
        os.rename(new, final)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    link = os.path.join(root, LINK)
    if os.path.lexists(link + ".new"):
        os.unlink(link + ".new")
    os.symlink(os.path.join(FOLDERS, digest), link + ".new")
    os.replace(link + ".new", link)
    for name in os.listdir(folders):
        if name != digest:
            shutil.rmtree(os.path.join(folders, name), ignore_errors=True)
