# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has to be known of a host before anything on it is changed. Cheap, and read-only."""

from __future__ import annotations

import concurrent.futures
import errno
import glob
import ipaddress
import json
import os
import platform
import re
import shutil
import socket
from typing import Any, Dict, List, Optional, Tuple

RESOLVE_SECONDS = 5
# file systems that several hosts can have at the same time
NETWORK = re.compile(r"nfs4?|cifs|smb3|lustre|ceph|gpfs|beegfs|glusterfs|afs|9p|fuse\.(glusterfs|ceph|sshfs|cephfs)")
WAY_SECONDS = 5


def machine() -> Dict[str, Any]:
    """Architecture, C library, cores and memory."""
    libc, version = c_library()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": libc,
        "libc_version": version,
        "cores": cores(),
        "memory_mb": memory_mb(),
        "root": os.geteuid() == 0,
        "systemd": os.path.isdir("/run/systemd/system") and shutil.which("systemctl") is not None,
    }


def c_library() -> Tuple[str, str]:
    """Name and version of the C library, such as ``glibc 2.36``."""
    try:
        name, version = str(os.confstr("CS_GNU_LIBC_VERSION")).split()
    except (ValueError, OSError, AttributeError):
        return ("musl", "") if platform.system() == "Linux" else ("", "")
    return name, version


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb() -> int:
    """Memory of the machine, or of the container's limit if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(name) as stream:
                total = min(total, int(stream.read()))
        except (OSError, ValueError):
            continue
    return total >> 20


def standing(path: str) -> str:
    """The folder that is there of those that lead to `path`, or `path` itself."""
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def free_mb(path: str) -> int:
    """Free space where `path` is or will be."""
    return shutil.disk_usage(standing(path)).free >> 20


def mounted(path: str, programs: bool) -> str:
    """What the file system where `path` is or will be forbids: ``read-only``, ``noexec``, or nothing that matters.

    :param programs: whether libraries will be loaded from there.
    """
    flags = os.statvfs(standing(path)).f_flag
    if flags & os.ST_RDONLY:
        return "read-only"
    return "noexec" if programs and flags & getattr(os, "ST_NOEXEC", 0) else ""


def server_of(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """What server the file system comes from where `path` is or will be; empty when it is the host's own.

    :param mounts: the kernel's list of mounts.
    """
    place, found = os.path.realpath(standing(path)), ("", "")
    try:
        with open(mounts) as stream:
            lines = stream.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        # of mounts at one place, the last one counts
        if (place + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(found[0]):
            kind, server = after.split()[:2]
            found = (point, server if NETWORK.fullmatch(kind) else "")
    return found[1]


def strangers(folders: List[str]) -> List[str]:
    """What others have in the folders of a fleet that is not here: all but what its own removal or interruption leaves."""
    found = [os.path.join(folder, name) for folder in folders if os.path.isdir(folder) for name in sorted(os.listdir(folder))]
    own = re.compile(r".*/(work|postgresql|notebooks|\.ipyfleet-[^/]*)$")
    return [path for path in found if path not in folders and not own.match(path)]


def resolve(name: str) -> Dict[str, Any]:
    """Addresses of a name, or why there are none; never takes longer than a few seconds."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        found = pool.submit(socket.getaddrinfo, name, None, 0, socket.SOCK_STREAM).result(RESOLVE_SECONDS)
        return {"addresses": sorted({str(entry[4][0]) for entry in found})}
    except concurrent.futures.TimeoutError:
        return {"addresses": [], "error": "no answer in %d s" % RESOLVE_SECONDS}
    except OSError as error:
        return {"addresses": [], "error": error.strerror or str(error)}
    finally:
        pool.shutdown(wait=False)


def no_way(addresses: List[str], port: int) -> str:
    """Why no host answers at any of `addresses`; empty where one does, if only to say that nothing listens there."""
    error = ""
    for address in addresses:
        try:
            socket.create_connection((address, port), WAY_SECONDS).close()
        except ConnectionRefusedError:
            return ""
        except socket.timeout:
            error = "no answer in %d s" % WAY_SECONDS
        except OSError as problem:
            error = problem.strerror or str(problem)
        else:
            return ""
    return error


def own_addresses() -> List[str]:
    """This host's IPv4 addresses that others may reach; none where that cannot be known."""
    found = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", read_bytes("/proc/net/fib_trie").decode())
    return sorted({address for address in found if not address.startswith("127.")})


def source(target: str, port: int) -> Dict[str, str]:
    """The address of this host from which a connection to `target` comes, or why there is none; sends nothing."""
    found = resolve(target)
    for address in found["addresses"]:
        probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            probe.connect((address, port))
            own = str(probe.getsockname()[0])
            if not link_local(own):
                return {"address": own}
            found["error"] = "expected an address that counts beyond one link, got %s" % own
        except OSError as error:
            found["error"] = error.strerror or str(error)
        finally:
            probe.close()
    return {"address": "", "error": str(found["error"])}


def ssh_identity(targets: List[Dict[str, Any]]) -> Dict[str, List[str]]:
    """What others have to know of this host to log in to it, or to let it in: its keys, and where its logins come from.

    :param targets: `address` and `port` of each host that this one logs in to.
    """
    keys = []
    for path in glob.glob("/etc/ssh/ssh_host_*_key.pub"):
        with open(path) as stream:
            keys.append(" ".join(stream.read().split()[:2]))
    found = {source(each["address"], each["port"])["address"] for each in targets}
    return {"keys": sorted(keys), "from": sorted(found - {""})}


def link_local(address: str) -> bool:
    """Whether an address of IPv6 means something only together with one of a host's links."""
    return ":" in address and ("%" in address or ipaddress.ip_address(address).is_link_local)


def taken(address: str, ports: List[int], mark: str) -> List[Dict[str, Any]]:
    """Those of `ports` that something else listens on, with what that is where it can be known.

    :param mark: processes that carry this in their environment are the fleet's own.
    """
    found = []
    holders: Optional[Dict[int, int]] = None
    for port in ports:
        reason = cannot_bind(address, port)
        if reason is None:
            continue
        holders = listeners() if holders is None else holders
        pid = holders.get(port)
        if pid and mark.encode() in read_bytes("/proc/%d/environ" % pid):
            continue
        found.append({"port": port, "reason": reason, "pid": pid, "command": command_of(pid) if pid else ""})
    return found


def cannot_bind(address: str, port: int) -> Optional[str]:
    """Why a TCP port cannot be listened on; None when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("" if address in ("*", "0.0.0.0") else address, port))
        probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return "not an address of this host"
        return error.strerror or str(error)
    finally:
        probe.close()
    return None


def listeners() -> Dict[int, int]:
    """Process ids by listening TCP port, as far as this user may see them."""
    inodes: Dict[str, int] = {}
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read_bytes(name).decode().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                inodes[words[9]] = int(words[1].rsplit(":", 1)[1], 16)
    found: Dict[int, int] = {}
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            match = re.match(r"socket:\[(\d+)\]", os.readlink(link))
        except OSError:
            continue
        if match and match.group(1) in inodes:
            found.setdefault(inodes[match.group(1)], int(link.split("/")[2]))
    return found


def command_of(pid: int) -> str:
    """Name of a process's program."""
    return read_bytes("/proc/%d/comm" % pid).decode("utf-8", "replace").strip()


def read_bytes(path: str) -> bytes:
    """Content of a file; empty when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def other_fleets(pattern: str, own: str) -> List[Dict[str, Any]]:
    """The other fleets of this host whose controller is here.

    :param pattern: where fleets leave their description.
    :param own: this fleet's description.
    """
    found = []
    for path in glob.glob(pattern):
        if path == own:
            continue
        try:
            with open(path) as stream:
                content = json.load(stream)
            if content["controller"]:
                found.append({"name": str(content["name"]), "first": int(content["first_port"]), "last": int(content["last_port"])})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
