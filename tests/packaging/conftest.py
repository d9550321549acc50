"""Every shape of the tree, built once."""

from __future__ import annotations

import os
import shutil
import stat
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from shapes import LITTER, PROGRAMS, ROOT, SECRET, Shape, builder, empty_folder, make_venv, plain_environ, run, tracked


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """A folder for everything; its path is short, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ipf"))
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IRWXU)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def source(work: Path) -> Path:
    """A copy of the tree, with litter."""
    top = work / "source"
    for name in tracked():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, top / name, follow_symlinks=False)
    for name in LITTER:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(SECRET)
    return top


@pytest.fixture(scope="session")
def archive(source: Path, work: Path) -> Path:
    """The collection, built."""
    environ = plain_environ(PROGRAMS, work / "builder", work)
    run("ansible-galaxy", "collection", "build", "--output-path", work / "galaxy", cwd=source, environ=environ)
    return next((work / "galaxy").glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(source: Path, work: Path) -> Path:
    """The wheel, built from the tree."""
    run("uv", "build", "--quiet", "--no-build-isolation", "--wheel", "--out-dir", work / "wheel", cwd=source, environ=builder(work))
    return next((work / "wheel").glob("*.whl"))


@pytest.fixture(scope="session")
def clone(source: Path, work: Path) -> Shape:
    """The clone, used from elsewhere, with its ansible.cfg."""
    return Shape("clone", PROGRAMS, source, empty_folder(work, "c"), {"ANSIBLE_CONFIG": str(source / "ansible.cfg")})


@pytest.fixture(scope="session")
def collection(archive: Path, source: Path, work: Path) -> Shape:
    """The collection, installed for the user from within a clone; there is no ansible.cfg where it is used."""
    folder = empty_folder(work, "g")
    target = folder / "h" / ".ansible" / "collections"
    shape = Shape("collection", PROGRAMS, target / "ansible_collections" / "ipyfleet" / "cluster", folder)
    run("ansible-galaxy", "collection", "install", "--force", "--no-deps", "-p", target, archive, cwd=source, environ=shape.environ())
    return shape


@pytest.fixture(scope="session")
def installed(wheel: Path, work: Path) -> Shape:
    """The wheel with all it needs, installed on a path with spaces, for its owner's eyes only, and read-only from then on."""
    venv = work / "a path with spaces" / "venv"
    programs = make_venv(venv, work, wheel, umask=0o077)
    for path in [venv, *venv.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(venv)}))
    # root could write all the same, unless it gives up to
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner") if os.geteuid() == 0 else ()
    top = site / "ansible_collections" / "ipyfleet" / "cluster"
    return Shape("wheel", programs, top, empty_folder(work, "w"), prefix=prefix, umask=0o077)


@pytest.fixture(scope="session")
def editable(source: Path, work: Path) -> Shape:
    """An editable install of a clone of its own."""
    top = work / "editable"
    shutil.copytree(source, top, symlinks=True)
    backend = tomllib.loads((top / "pyproject.toml").read_text())["build-system"]["requires"]
    programs = make_venv(work / "ve", work, *backend)
    into = ("--python", programs / "python")
    run("uv", "pip", "install", "--quiet", *into, "--no-build-isolation", "--editable", top, cwd=work, environ=builder(work))
    return Shape("editable", programs, top, empty_folder(work, "e"))


@pytest.fixture(params=["clone", "collection", "installed", "editable"])
def shape(request: pytest.FixtureRequest) -> Shape:
    """Each shape."""
    found: Shape = request.getfixturevalue(request.param)
    return found
