# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is worth knowing of a host for whoever looks into a problem from afar. Reads only, and takes what it gets."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import subprocess
import time
from typing import Any, Dict, Iterable, List

SECONDS = 10
LARGEST = 256 * 1024
# each as its own text; what a host has not is left out
COMMANDS = {
    "system": (["uname", "-a"], ["cat", "/etc/os-release"], ["uptime"]),
    "disk": (["df", "-hP"], ["df", "-iP"]),
    "memory": (["free", "-m"], ["vm_stat"]),
    "clock": (["date", "-u"], ["timedatectl"], ["chronyc", "-n", "tracking"]),
    "network": (["ip", "-br", "addr"], ["ip", "route"], ["ss", "-ltnp"], ["cat", "/etc/hosts"], ["nft", "list", "ruleset"]),
    "limits": (["sh", "-c", "ulimit -a"],),
    "processes": (["ps", "-eo", "pid,ppid,user,stat,etimes,rss,args"],),
}


def said(command: List[str]) -> str:
    """What a command prints, behind itself."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False
        )
        text = done.stdout[-LARGEST:].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        text = "no answer in %d s" % SECONDS
    except OSError as error:
        text = str(error)
    return "$ %s\n%s\n" % (" ".join(command), text.rstrip("\n"))


def machine() -> Dict[str, str]:
    """Texts about the machine by name."""
    found = {}
    for name, commands in COMMANDS.items():
        there = [each for each in commands if shutil.which(each[0])]
        found[name] = "\n".join(map(said, there))
    found["clock"] += "\n%.3f seconds since 1970\n" % time.time()
    return found


def units(fleet: str) -> str:
    """What systemd knows of a fleet's units, and what the kernel said of memory."""
    if not os.path.isdir("/run/systemd/system"):
        return ""
    pattern = "ipyfleet-%s*" % fleet
    commands = [
        ["systemctl", "list-units", "--all", "--no-pager", "--plain", pattern],
        ["systemctl", "status", "--no-pager", "--lines=0", pattern],
        ["journalctl", "-q", "-k", "--no-pager", "-n", "40", "-p", "warning"],
    ]
    return "\n".join(map(said, commands))


def files(paths: Iterable[str]) -> Dict[str, str]:
    """Contents of files by path; of large ones, the beginning."""
    found = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                found[path] = stream.read(LARGEST)
        except OSError as error:
            found[path] = "cannot be read: %s\n" % error.strerror
    return found


def listing(folders: Iterable[str]) -> str:
    """What is in folders, as far as it is seen from outside of its files."""
    lines = []
    for folder in folders:
        for path in [folder, *sorted(glob.glob(os.path.join(folder, "*")))[:200]]:
            try:
                known = os.lstat(path)
            except OSError as error:
                lines.append("%s: %s" % (path, error.strerror))
                continue
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(known.st_mtime))
            lines.append("%s %d:%d %9d %s %s" % (stat.filemode(known.st_mode), known.st_uid, known.st_gid, known.st_size, when, path))
    return "\n".join(lines) + "\n"


def packages(env: str) -> str:
    """Distributions in a Python environment."""
    found = glob.glob(os.path.join(env, "lib", "python*", "site-packages", "*.dist-info"))
    return "".join(sorted(os.path.basename(each)[: -len(".dist-info")].replace("-", "==", 1) + "\n" for each in found))


def collect(params: Dict[str, Any]) -> Dict[str, Any]:
    """All of it; a part that fails says so instead.

    :param params: of the module fleet_host.
    """
    paths = params["paths"]
    # what has secrets in it is a file of its own
    wanted = [each["path"] for each in params["entries"] if each["kind"] == "file" and each["path"] not in params["secrets"]]
    config = [each for each in wanted if each.startswith((paths["etc"] + "/", "/etc/")) and os.path.exists(each)]
    stamp = os.path.join(paths["root"], "env", "ipyfleet.json")
    return {
        "machine": machine(),
        "units": units(params["fleet"]) if params["scope"] == "system" else "",
        "files": files([*config, stamp] if os.path.exists(stamp) else config),
        "listing": listing([paths["root"], paths["etc"], paths["state"], paths["run"], os.path.join(paths["root"], "lib")]),
        "packages": packages(os.path.join(paths["root"], "env")),
    }
