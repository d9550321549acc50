# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host can say of itself when something is wrong with its part of a fleet. Read-only, and done in seconds."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import time
from typing import Any, Dict, List, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_facts import read_bytes, standing
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_reading import regular_bytes

PORT_SECONDS = 3.0
# at the same time; a fleet has two dozen ports for engines
PROBES = 32
# bytes; a connection file has a few lines
LONGEST_FILE = 65536
SECRET = {"key": "key", "curve_serverkey": "curve"}
# what systemd says of a process that was killed, and of one that ran out of memory
KILLED = re.compile(r"status=9/KILL|oom-kill|OOM killer")


def ports(addresses: List[str], wanted: List[int]) -> Dict[str, str]:
    """State of each port: ``open``, ``refused``, ``filtered``, or what the system says of the way there."""
    with concurrent.futures.ThreadPoolExecutor(PROBES) as pool:
        states = pool.map(lambda port: port_state(addresses, port), wanted)
        return {str(port): state for port, state in zip(wanted, states)}  # noqa: B905  (Python 3.8)


def port_state(addresses: List[str], port: int) -> str:
    """State of a port at the first of `addresses` where it is open, else at the last."""
    state = "filtered"
    for address in addresses:
        try:
            socket.create_connection((address, port), PORT_SECONDS).close()
        except ConnectionRefusedError:
            state = "refused"
        except socket.timeout:
            state = "filtered"
        except OSError as error:
            # a firewall's polite answer
            away = error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)
            state = "refused" if away else error.strerror or str(error)
        else:
            return "open"
    return state


def disks(paths: List[str]) -> List[Dict[str, Any]]:
    """Each file system that some of `paths` are on: what is free there, in MiB and in inodes."""
    found: Dict[int, Dict[str, Any]] = {}
    for path in paths:
        there = standing(path)
        with contextlib.suppress(OSError):
            said = os.statvfs(there)
            device = os.stat(there).st_dev
            found.setdefault(
                device,
                {
                    "path": there,
                    "free_mb": said.f_bavail * said.f_frsize >> 20,
                    "size_mb": said.f_blocks * said.f_frsize >> 20,
                    "inodes": said.f_favail,
                    "all_inodes": said.f_files,
                    "read_only": bool(said.f_flag & os.ST_RDONLY),
                },
            )
    return list(found.values())


def open_files(pid: int) -> Dict[str, int]:
    """How many files a process has open, and how many it may have; nothing when that cannot be known."""
    match = re.search(r"^Max open files +(\d+|unlimited)", read_bytes("/proc/%d/limits" % pid).decode(), re.MULTILINE)
    try:
        used = len(os.listdir("/proc/%d/fd" % pid))
    except OSError:
        return {}
    if not match or match.group(1) == "unlimited":
        return {}
    return {"used": used, "limit": int(match.group(1))}


def memory() -> Dict[str, int]:
    """Memory of the machine, or of its container's limit if that is less, and what of it is left, in MiB."""
    meminfo = dict(re.findall(r"^(\w+): +(\d+) kB$", read_bytes("/proc/meminfo").decode(), re.MULTILINE))
    total, left = int(meminfo.get("MemTotal", 0)) << 10, int(meminfo.get("MemAvailable", 0)) << 10
    for folder, limit, used, cache in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(ValueError):
            most, now = (int(read_bytes(os.path.join(folder, name))) for name in (limit, used))
            stat = dict(line.split() for line in read_bytes(os.path.join(folder, "memory.stat")).decode().splitlines())
            if most < total:
                total, left = most, min(left, max(0, most - now + int(stat.get(cache, 0))))
    return {"total_mb": total >> 20, "available_mb": left >> 20}


def out_of_memory(module: Any, minutes: int) -> int:
    """How often processes of this host were killed for want of memory: of late, or of a container since its start."""
    found = 0
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        match = re.search(r"^oom_kill (\d+)$", read_bytes(path).decode(), re.MULTILINE)
        found += int(match.group(1)) if match else 0
    journalctl = module.get_bin_path("journalctl")
    if journalctl:
        _, out, _ = module.run_command([journalctl, "-q", "-k", "-o", "cat", "--no-pager", "--since", "-%d min" % minutes])
        found += len(re.findall(r"Out of memory: Killed process|Memory cgroup out of memory: Killed process", out))
    return found


def was_killed(module: Any, unit: str, minutes: int) -> bool:
    """Whether systemd says that the main process of a unit was killed of late, as the kernel does for want of memory."""
    journalctl = module.get_bin_path("journalctl")
    if not journalctl:
        return False
    _, out, _ = module.run_command([journalctl, "-q", "-o", "cat", "--no-pager", "--since", "-%d min" % minutes, "-u", unit])
    return bool(KILLED.search(out))


def packages(module: Any, python: str) -> Dict[str, Any]:
    """Version of a Python, and of all packages that it has; or the `error` for which it does not say."""
    code = (
        "import json, platform; from importlib.metadata import distributions;"
        "print(json.dumps({'python': platform.python_version(),"
        " 'packages': {str(d.metadata['Name']).lower().replace('_', '-').replace('.', '-'): d.version for d in distributions()}}))"
    )
    if not os.access(python, os.X_OK):
        return {"error": "%s is not there" % python}
    status, out, err = module.run_command([python, "-I", "-c", code])
    if status:
        lines = err.strip().splitlines() or ["it ended with %d" % status]
        return {"error": lines[-1]}
    return dict(json.loads(out))


def connection(path: str) -> Dict[str, str]:
    """Digests of what a connection file says: its `key`, its `curve` key, and all else; or the `error` with which it is not read.

    They tell whether two files say the same, and nothing of what they say.
    """
    try:
        content = json.loads(regular_bytes(path, LONGEST_FILE))
        found = {word: short(content.pop(key, None)) for key, word in SECRET.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return {"error": getattr(error, "strerror", None) or "it is not JSON"}
    return {**found, "rest": short({key: content[key] for key in sorted(content)})}


def short(value: Any) -> str:
    """A digest that fits a line."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def starts(supervisor: Any, system: bool) -> Dict[str, float]:
    """Seconds since each wanted unit has become active, of those that are."""
    if not system:
        return {name: float(each["now"] - each["start"]) for name, each in supervisor.programs().items() if each["statename"] == "RUNNING"}
    out = supervisor.call("show", "--property=Id,ActiveState,ActiveEnterTimestampMonotonic", *supervisor.units)
    found: Dict[str, float] = {}
    now = time.monotonic()
    for block in out.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = supervisor.units.get(values.get("Id"), {}).get("name")
        if name and values.get("ActiveState") == "active":
            found[name] = max(0.0, now - int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6)
    return found


def looping(note: Dict[str, Any], least: int, within: float) -> Tuple[int, bool]:
    """How often in a row a unit has ended quickly, by its note, and whether that goes on.

    :param least: quick ends that are many.
    :param within: seconds after which one that has started last is none of them any more.
    """
    try:
        quick, since = int(note.get("quick") or 0), time.monotonic() - float(note.get("started", 0))
    except (TypeError, ValueError):
        return 0, False
    return quick, quick >= least and since < within
