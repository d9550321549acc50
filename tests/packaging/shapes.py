"""A shape of the tree - a clone, the collection, the wheel, an editable install - and how a user runs it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
FLEET = "plugin: ipyfleet.cluster.fleet\nname: shapes\nscope: user\ncontroller: localhost\nengines: {localhost: 1}\nclients: [localhost]\n"
NOTHING: Mapping[str, str] = MappingProxyType({})
# what a clone has lying about after a while, and no package may have
SECRET = "a key of somebody's fleet"
LITTER = (
    ".ansible/tmp/x",
    ".ipyfleet/lab/secrets.json",
    ".mypy_cache/x.json",
    ".test/tools/venv/x.py",
    ".venv/lib/x.py",
    "build/x",
    "dist/ipyfleet-0.0.1.tar.gz",
    "inventories/.ipyfleet/local/secrets.json",
    "ipyfleet-cluster-0.0.1.tar.gz",
    "lab.fleet.yml",
    "playbooks/.ipyfleet/lab/secrets.json",
    "plugins/action/__pycache__/x.cpython-311.pyc",
    "roles/ipp_node/files/__pycache__/x.cpython-311.pyc",
    "src/ipyfleet.egg-info/PKG-INFO",
    "src/ipyfleet/__pycache__/x.cpython-311.pyc",
)


def run(
    *command: str | Path, cwd: Path, environ: dict[str, str] | None = None, check: bool = True, umask: int = 0o022
) -> subprocess.CompletedProcess[str]:
    """Run a command, showing what it printed when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=environ, umask=umask, timeout=300)
    if check:
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def plain_environ(programs: Path, home: Path, work: Path) -> dict[str, str]:
    """An environment that knows nothing of this clone; uv keeps its cache, and shapes share one of theirs, to be quick."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "IPYFLEET_", "PYTHON", "VIRTUAL_ENV", "XDG_"))
    }
    cache = run(PROGRAMS / "uv", "cache", "dir", cwd=ROOT).stdout.strip()
    return {
        **kept,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(home),
        "UV_CACHE_DIR": cache,
        "UV_LINK_MODE": "copy",  # what is made read-only here must not be so in the cache
        "XDG_CACHE_HOME": str(work / "cache"),
        "ANSIBLE_NOCOLOR": "1",
    }


def tracked() -> set[str]:
    """Files of the tree: those that git has, and those that it would take."""
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).stdout.splitlines()
    return {name for name in listed if os.path.lexists(ROOT / name)}


def holds(path: Path) -> set[str]:
    """Files below a folder, without what Python compiles."""
    return {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts}


@dataclass(frozen=True)
class Shape:
    """A way in which the tree is there to be used, from a folder that has but a fleet file."""

    name: str
    programs: Path
    top: Path
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    umask: int = 0o022

    def environ(self) -> dict[str, str]:
        """Environment of its commands."""
        return plain_environ(self.programs, self.folder / "h", self.folder.parent) | self.extra

    def run(self, *command: str | Path, check: bool = True, extra: Mapping[str, str] = NOTHING) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder."""
        return run(*self.prefix, *command, cwd=self.folder, environ=self.environ() | dict(extra), check=check, umask=self.umask)

    def play(self, *arguments: str | Path, check: bool = True, extra: Mapping[str, str] = NOTHING) -> subprocess.CompletedProcess[str]:
        """Run a playbook on the fleet."""
        return self.run("ansible-playbook", "-i", "x.fleet.yml", *arguments, check=check, extra=extra)

    def python(self, code: str) -> str:
        """What a piece of Python prints."""
        return self.run("python", "-c", code).stdout.strip()

    def take_away(self) -> list[int]:
        """End what still runs with this shape's home; returns the processes' ids."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.folder / "h"):
                    found.append(process.pid)
                    process.kill()
        return found


def builder(work: Path) -> dict[str, str]:
    """Environment to build in: this one's hatchling, so that no index is asked."""
    return plain_environ(PROGRAMS, work / "builder", work) | {"VIRTUAL_ENV": str(PROGRAMS.parent)}


def empty_folder(work: Path, name: str) -> Path:
    """A folder with a fleet file, and a home in it."""
    folder = work / name
    (folder / "h").mkdir(parents=True)
    (folder / "x.fleet.yml").write_text(FLEET)
    return folder


def make_venv(venv: Path, work: Path, *packages: str | Path, umask: int = 0o022) -> Path:
    """Make a virtual environment with packages; returns its folder of programs."""
    environ = builder(work)
    run("uv", "venv", "--quiet", "--python", sys.executable, venv, cwd=work, environ=environ, umask=umask)
    into = ("--python", venv / "bin" / "python")
    run("uv", "pip", "install", "--quiet", *into, *packages, cwd=work, environ=environ, umask=umask)
    return venv / "bin"
