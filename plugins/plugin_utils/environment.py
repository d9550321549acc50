# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Python environment of a fleet as archives: locked, built once, kept by digest.

uv installs the wheels of a lock for any Python version and platform, so an archive for hosts
unlike the control node is built like any other. Only its bytecode needs an interpreter of the
same version: without one here, the host compiles when it unpacks.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

FORMAT = "1"
# what uv knows as platforms of a given C library
GLIBC_LEVELS = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
NOT_SHIPPED = (
    "CACHEDIR.TAG",
    ".gitignore",
    ".lock",
    "pyvenv.cfg",
    "bin/python*",
    "bin/*.bat",
    "bin/*.ps1",
    "lib/*/site-packages/*/pginstall*/include/**/*.h",
    "lib/*/site-packages/*/pginstall*/lib/*.a",
)


class EnvironmentProblem(Exception):
    """No environment can be made; the message says why, in one line."""


@dataclass(frozen=True)
class Platform:
    """What an archive is for.

    :param python: version such as ``3.11``.
    :param machine: architecture such as ``x86_64``.
    :param libc: ``glibc 2.36``, ``musl``, or empty for a system without either name.
    :param system: ``Linux`` or ``Darwin``.
    """

    python: str
    machine: str
    libc: str
    system: str = "Linux"

    @property
    def uv_name(self) -> str:
        """The platform as uv calls it."""
        machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(self.machine, self.machine)
        if self.system == "Darwin":
            return f"{machine}-apple-darwin"
        if self.libc.startswith("glibc "):
            minor = int(self.libc.removeprefix("glibc 2.").split(".")[0])
            return f"{machine}-manylinux_2_{max((level for level in GLIBC_LEVELS if level <= minor), default=17)}"
        return f"{machine}-unknown-linux-musl"


@dataclass(frozen=True)
class Archive:
    """An environment, packed.

    :param path: the file.
    :param sha256: its digest.
    :param lock: digest of the lock that it was built from.
    :param kind: ``tree``: it is the environment; ``index``: it holds uv and the lock, the host builds.
    :param compiled: ``yes`` when it has its bytecode.
    :param unpacked_mb: space that it takes on the host.
    """

    path: str
    sha256: str
    lock: str
    kind: str
    compiled: str
    unpacked_mb: int


def lock_digest(text: str) -> str:
    """Digest by which an environment is known; comments and order of lines do not matter."""
    lines = sorted(line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))
    return hashlib.sha256("\n".join([FORMAT, *lines]).encode()).hexdigest()[:16]


class Builder:
    """Locks and archives of environments.

    :param requirements: file of what every environment has.
    :param lock: file with the lock of that.
    :param known: file with one version of each package that fleets often have beside that.
    :param cache: folder for archives; several runs may share it.
    """

    def __init__(self, requirements: Path, lock: Path, known: Path, cache: Path) -> None:
        self.requirements = requirements
        self.lock = lock
        self.known = known
        self.cache = cache

    def wanted_key(self, packages: Sequence[str]) -> str:
        """What a lock for these extra packages depends on, as a digest."""
        parts = [self.lock.read_text(), self.known.read_text(), self.requirements.read_text(), *sorted(packages)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def resolve(self, packages: Sequence[str], python: str) -> str:
        """Lock the base packages and `packages` together, for one version of Python and any platform.

        Hosts with different packages have the same versions of those that they share, as long as nothing
        that is asked for speaks against it.

        :raises EnvironmentProblem: with uv's reason, when they do not go together.
        """
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "requirements.in"
            wanted.write_text(self.requirements.read_text() + "\n".join(packages) + "\n")
            arguments = ["pip", "compile", "-q", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
            arguments += ["--python-version", python, str(wanted)]
            purpose = f"python_packages {', '.join(packages)}"
            try:
                return run_uv([*arguments, "--constraints", str(self.known)], purpose)
            except EnvironmentProblem:
                return run_uv([*arguments, "--constraints", str(self.lock)], purpose)

    def build(self, lock: str, platform: Platform, from_index: bool = False) -> Archive:
        """The archive of a lock for a platform, from the cache if it is there.

        :param lock: text of the lock.
        :param from_index: pack uv and the lock instead, for a host that builds by itself.
        """
        kind = "index" if from_index else "tree"
        name = f"{lock_digest(lock)}-cp{platform.python.replace('.', '')}-{platform.uv_name}-{kind}"
        self.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.cache / f"{name}.lock"):
            found = self._cached(name)
            if found:
                return found
            with tempfile.TemporaryDirectory(dir=self.cache, prefix=".build-") as folder:
                tree = Path(folder) / "env"
                compiled = self._build_index(lock, platform, tree) if from_index else self._build_tree(lock, platform, tree)
                packed = Path(folder) / "archive.tar.gz"
                size = pack(tree, packed)
                final = self.cache / f"{name}.tar.gz"
                archive = Archive(str(final), sha256_of(packed), lock_digest(lock), kind, compiled, size >> 20)
                os.replace(packed, final)
                (self.cache / f"{name}.json").write_text(json.dumps(asdict(archive)))
            return archive

    def _cached(self, name: str) -> Archive | None:
        try:
            archive = Archive(**json.loads((self.cache / f"{name}.json").read_text()))
            return archive if sha256_of(Path(archive.path)) == archive.sha256 else None
        except (OSError, ValueError, TypeError):
            return None

    def _build_tree(self, lock: str, platform: Platform, tree: Path) -> str:
        lock_file = tree.parent / "requirements.lock"
        lock_file.write_text(lock)
        run_uv(["venv", "-q", "--relocatable", "--no-project", "--python", base_python(), str(tree)], "the environment")
        arguments = ["pip", "sync", "-q", "--require-hashes", "--link-mode", "copy", "--python", str(tree / "bin" / "python")]
        arguments += ["--python-version", platform.python, "--python-platform", platform.uv_name]
        if not can_build_for(platform):
            arguments += ["--only-binary", ":all:"]
        run_uv([*arguments, str(lock_file)], f"packages for Python {platform.python} on {platform.uv_name}")
        here = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        there = f"python{platform.python}"
        if here != there:
            (tree / "lib" / here).rename(tree / "lib" / there)
        compiler = interpreter_of(platform.python)
        for pattern in NOT_SHIPPED:
            for path in tree.glob(pattern):
                path.unlink()
        if compiler:
            # what is no code for this version (templates, other versions' syntax) does not matter
            command = [compiler, "-Im", "compileall", "-q", "-j", "0", "-s", str(tree), str(tree / "lib")]
            subprocess.run(command, capture_output=True, check=False)
        return "yes" if compiler else "no"

    def _build_index(self, lock: str, platform: Platform, tree: Path) -> str:
        tree.mkdir()
        (tree / "requirements.lock").write_text(lock)
        machine = platform.uv_name.split("-")[0]
        arguments = ["pip", "install", "-q", "--no-deps", "--target", str(tree / "packages"), "--python", base_python()]
        arguments += ["--python-platform", f"{machine}-unknown-linux-musl", f"uv=={uv_version()}"]
        run_uv(arguments, f"a static uv for {machine}")
        shutil.move(tree / "packages" / "bin" / "uv", tree / "uv")
        shutil.rmtree(tree / "packages")
        return "yes"


def can_build_for(platform: Platform) -> bool:
    """Whether packages without a wheel, built here, would run there."""
    here = Platform(*_here())
    return (here.python, here.machine, here.system) == (platform.python, platform.machine, platform.system) and (
        here.uv_name <= platform.uv_name
    )


def _here() -> tuple[str, str, str, str]:
    machine = os.uname()
    try:
        libc = str(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        libc = "musl"
    return f"{sys.version_info[0]}.{sys.version_info[1]}", machine.machine, libc, machine.sysname


def base_python() -> str:
    """This Python, not a virtual environment's."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def interpreter_of(version: str) -> str | None:
    """A Python of that version on this machine, for bytecode."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return base_python()
    try:
        return run_uv(["python", "find", "--system", "--no-python-downloads", "--no-project", version], "").strip() or None
    except EnvironmentProblem:
        return None


def pack(tree: Path, target: Path) -> int:
    """Pack a folder as root's, and return the bytes that it will take unpacked."""
    total = 0

    def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        nonlocal total
        total += (entry.size + 4095) // 4096 * 4096
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        return entry

    with target.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for path in sorted(tree.iterdir()):
            tar.add(path, arcname=path.name, filter=owned_by_root)
    return total


def sha256_of(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two runs do not build the same archive at once."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def find_uv() -> str:
    """Path of uv: the one installed beside Ansible, else the one on PATH.

    :raises EnvironmentProblem: when there is none.
    """
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise EnvironmentProblem("uv is needed on the control node to build the hosts' Python environment: pip install uv")
    return found


def uv_version() -> str:
    """Version of uv here."""
    return re.sub(r"^uv (\S+).*", r"\1", run_uv(["--version"], "uv").strip())


def run_uv(arguments: Sequence[str], purpose: str) -> str:
    """Run uv and return what it printed.

    :param purpose: what it is asked to install, for the message.
    :raises EnvironmentProblem: with its reason.
    """
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "true", "UV_NO_PROGRESS": "1", **pip_index()}
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        environ.pop(variable, None)
    done = subprocess.run([find_uv(), *arguments], capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        raise EnvironmentProblem(f"{purpose}: {reason(done.stderr)}")
    return done.stdout


def reason(text: str) -> str:
    """Uv's message in one line, without its drawing characters."""
    lines = [re.sub(r"^[^\w'`\"]+", "", line) for line in text.splitlines()]
    said = " ".join(line for line in lines if line)
    # which of the platforms that a lock is for it was, and what to do about those in a project of uv's
    said = re.sub(r"^error: | for split \(markers: .*?\)(?= cause:|: )| hint: .*", "", said)
    return said or "uv failed without a message"


def pip_index() -> dict[str, str]:
    """The package index that pip is told to use by its environment, for uv, which does not look there."""
    names = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX", "PIP_CERT": "SSL_CERT_FILE"}
    return {ours: os.environ[theirs] for theirs, ours in names.items() if os.environ.get(theirs) and ours not in os.environ}
