# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet's Python environment on a host: unpacked beside, stamped, renamed into place.

``envs/<lock>`` holds one environment, ``env`` is a link to the one in use. An environment is
there when its stamp is, and the stamp is written last: whatever is interrupted leaves a folder
without one, which counts for nothing and is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tarfile
from typing import Any, Dict, List, Optional

from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_code as code

STAMP = "ipyfleet.json"


class EnvironmentFailure(Exception):
    """The environment could not be put in place."""


def base_interpreter(configured: str) -> str:
    """Path of the Python that the environment stands on: the configured one, else the module's own."""
    if configured:
        return configured
    own = getattr(sys, "_base_executable", None) or sys.executable
    found = os.path.realpath(str(own))
    # /usr/bin/python3 is a link to python3.11; the name with the minor version outlives upgrades within it
    return found if os.access(found, os.X_OK) else str(own)


def interpreter_version(module: Any, interpreter: str) -> Optional[str]:
    """``3.11`` or the like; None when it does not run."""
    if interpreter == base_interpreter(""):
        return "%d.%d" % sys.version_info[:2]
    if not os.access(interpreter, os.X_OK):
        return None
    code, out, _ = module.run_command([interpreter, "-Ic", "import sys; print('%d.%d' % sys.version_info[:2])"], check_rc=False)
    return out.strip() if code == 0 else None


def stamp_of(folder: str) -> Dict[str, Any]:
    """The stamp of the environment in `folder`; empty when there is none, or it no longer runs."""
    try:
        with open(os.path.join(folder, STAMP)) as stream:
            stamp: Dict[str, Any] = json.load(stream)
    except (OSError, ValueError):
        return {}
    return stamp if os.access(os.path.join(folder, "bin", "python"), os.X_OK) else {}


def is_current(root: str, lock: str, version: str, interpreter: str) -> bool:
    """Whether ``env`` below `root` is the environment of `lock` for this interpreter."""
    stamp = stamp_of(os.path.join(root, "env"))
    return bool(lock) and (stamp.get("lock"), stamp.get("python"), stamp.get("interpreter")) == (lock, version, interpreter)


def install(module: Any, root: str, archive: Dict[str, str], version: str, interpreter: str) -> None:
    """Put the environment of `archive` in place below `root`.

    :param archive: `path` of the file, its `sha256`, and the `lock` it was built from.
    :raises EnvironmentFailure: saying which step failed; what was there before is untouched then.
    """
    envs = os.path.join(root, "envs")
    os.umask(0o022)
    os.makedirs(envs, exist_ok=True)
    if digest_of(archive["path"]) != archive["sha256"]:
        raise EnvironmentFailure("the archive did not arrive whole; run again")
    final = os.path.join(envs, archive["lock"])
    new = final + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.mkdir(new)
    try:
        unpack(module, archive["path"], new)
        if archive["kind"] == "index":
            build_here(module, new, interpreter)
        finish(module, new, archive, version, interpreter)
        code.tie(root, new)
    except (EnvironmentFailure, OSError):
        # half of an environment would only keep a full disk full
        shutil.rmtree(new, ignore_errors=True)
        raise
    if os.path.lexists(final):
        old = final + ".old"
        shutil.rmtree(old, ignore_errors=True)
        os.rename(final, old)
    os.rename(new, final)
    link = os.path.join(root, "env.new")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(os.path.join("envs", archive["lock"]), link)
    os.replace(link, os.path.join(root, "env"))


def unpack(module: Any, archive: str, folder: str) -> None:
    """Unpack by tar where there is one: a quarter of the time that Python takes."""
    tar = module.get_bin_path("tar")
    if tar:
        code, _, err = module.run_command([tar, "-xzf", archive, "-C", folder, "--no-same-owner"])
        if code:
            # the first complaint is the cause, unless one says that the disk is full; the last one only that there was one
            lines = err.strip().splitlines() or ["no message"]
            raise EnvironmentFailure("unpacking the archive failed: %s" % next((each for each in lines if "No space" in each), lines[0]))
        return
    unpack_plain(archive, folder)


def unpack_plain(archive: str, folder: str) -> None:
    """Unpack by Python alone."""
    try:
        with tarfile.open(archive) as stream:
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            stream.extractall(folder, **safely)  # type: ignore[arg-type]  # noqa: S202  (our own archive, its digest compared)
    except (OSError, tarfile.TarError) as error:
        raise EnvironmentFailure("unpacking the archive failed: %s" % error) from error


def build_here(module: Any, folder: str, interpreter: str) -> None:
    """Let the uv of the archive build the environment from the host's own package index."""
    uv, lock = os.path.join(folder, "uv"), os.path.join(folder, "requirements.lock")
    target = os.path.join(folder, "bin", "python")
    environ = {"UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy", "UV_NO_CACHE": "1"}
    for command in (
        [uv, "venv", "-q", "--relocatable", "--allow-existing", "--no-project", "--python", interpreter, folder],
        [uv, "pip", "sync", "-q", "--compile-bytecode", "--require-hashes", "--python", target, lock],
    ):
        code, _, err = module.run_command(command, environ_update=environ)
        if code:
            said = " ".join(re.sub(r"^\W+", "", line) for line in err.splitlines())
            raise EnvironmentFailure("building from the package index failed: %s" % said[:500])
    os.unlink(uv)


def finish(module: Any, folder: str, archive: Dict[str, str], version: str, interpreter: str) -> None:
    """Tie the unpacked environment to the host's interpreter, compile what is not, and stamp it."""
    programs = os.path.join(folder, "bin")
    os.makedirs(programs, exist_ok=True)
    for name, target in (("python", interpreter), ("python3", "python"), ("python" + version, "python")):
        path = os.path.join(programs, name)
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(target, path)
    with open(os.path.join(folder, "pyvenv.cfg"), "w") as stream:
        stream.write("home = %s\ninclude-system-site-packages = false\nversion = %s\n" % (os.path.dirname(interpreter), version))
    python = os.path.join(programs, "python")
    if not os.path.isdir(os.path.join(folder, "lib", "python" + version, "site-packages")):
        raise EnvironmentFailure("the archive is not for Python %s" % version)
    if archive["compiled"] == "no":
        # files that are no code for this version (templates, other versions' syntax) do not matter
        module.run_command([python, "-m", "compileall", "-q", "-j", "0", os.path.join(folder, "lib")])
    code, _, err = module.run_command([python, "-Ic", "import zmq"])
    if code:
        raise EnvironmentFailure("the environment does not run on this host: %s" % last_line(err))
    stamp = {"lock": archive["lock"], "python": version, "interpreter": interpreter, "sha256": archive["sha256"]}
    with open(os.path.join(folder, STAMP), "w") as stream:
        json.dump(stamp, stream)
        stream.flush()
        os.fsync(stream.fileno())


def leftovers(root: str) -> List[str]:
    """Environments that the link does not point to, whole or not."""
    envs = os.path.join(root, "envs")
    used = os.path.basename(os.path.realpath(os.path.join(root, "env")))
    return [os.path.join(envs, name) for name in (os.listdir(envs) if os.path.isdir(envs) else []) if name != used]


def remove_others(root: str) -> None:
    """Remove what `leftovers` finds."""
    for path in leftovers(root):
        shutil.rmtree(path, ignore_errors=True)


def digest_of(path: str) -> str:
    """SHA-256 of a file, in hex."""
    total = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            total.update(block)
    return total.hexdigest()


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
