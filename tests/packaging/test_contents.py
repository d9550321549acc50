"""What is in the packages, and what is not: compared with the tree, file by file."""

from __future__ import annotations

import configparser
import email
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from shapes import ROOT, SECRET, builder, run, tracked

# the top of the tree, as far as it is the collection's
COLLECTION = {
    "LICENSE",
    "README.md",
    "changelogs/changelog.yaml",
    "docs",
    "environment",
    "meta",
    "playbooks",
    "plugins",
    "requirements.txt",
    "roles",
    "templates",
}
INSIDE = "ansible_collections/ipyfleet/cluster/"
VERSION = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]


def of_the_tree(*tops: str) -> dict[str, bytes]:
    """Files of the tree that are, or are below, some of its top."""
    return {name: (ROOT / name).read_bytes() for name in tracked() if name in tops or name.split("/")[0] in tops}


def unpacked(path: Path) -> dict[str, bytes]:
    """Files of an archive."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if stream := archive.extractfile(member):
                found[member.name] = stream.read()
    return found


@pytest.fixture(scope="module")
def sdist(source: Path, work: Path) -> Path:
    """The source distribution, and beside it the wheel that is built from it."""
    run("uv", "build", "--quiet", "--no-build-isolation", "--out-dir", work / "sdist", cwd=source, environ=builder(work))
    return next((work / "sdist").glob("*.tar.gz"))


def test_the_collection_holds_what_the_tree_holds(archive: Path) -> None:
    found = unpacked(archive)
    manifest = json.loads(found.pop("MANIFEST.json"))["collection_info"]
    found.pop("FILES.json")
    assert found == of_the_tree(*COLLECTION)
    assert (manifest["namespace"], manifest["name"], manifest["version"]) == ("ipyfleet", "cluster", VERSION)
    assert archive.name == f"ipyfleet-cluster-{VERSION}.tar.gz"


def test_the_wheel_holds_the_package_and_the_collection(wheel: Path) -> None:
    found = unpacked(wheel)
    about = {name: found.pop(name) for name in list(found) if ".dist-info/" in name}
    package = {name.removeprefix("src/"): content for name, content in of_the_tree("src").items()}
    content = {INSIDE + name: content for name, content in of_the_tree("galaxy.yml", *COLLECTION).items()}
    assert found == package | content
    assert "ipyfleet/py.typed" in found
    metadata = email.message_from_bytes(about[f"ipyfleet-{VERSION}.dist-info/METADATA"])
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "GPL-3.0-or-later"
    entries = configparser.ConfigParser()
    entries.read_string(about[f"ipyfleet-{VERSION}.dist-info/entry_points.txt"].decode())
    assert {section: dict(entries[section]) for section in entries.sections()} == {
        "console_scripts": {"ipyfleet": "ipyfleet.cli:main"},
        "ipyparallel.controller_launchers": {"fleet": "ipyfleet.launchers:FleetControllerLauncher"},
        "ipyparallel.engine_launchers": {"fleet": "ipyfleet.launchers:FleetEngineSetLauncher"},
    }


def test_the_source_distribution_holds_what_the_wheel_is_built_from(sdist: Path) -> None:
    found = {name.partition("/")[2]: content for name, content in unpacked(sdist).items()}
    assert found.pop("PKG-INFO").startswith(b"Metadata-Version")
    assert found == of_the_tree(".gitignore", "collections", "galaxy.yml", "pyproject.toml", "src", *COLLECTION)


def test_a_wheel_is_the_same_by_way_of_the_source_distribution(sdist: Path, wheel: Path) -> None:
    assert (sdist.parent / wheel.name).read_bytes() == wheel.read_bytes()


def test_no_package_takes_anything_that_lies_about(archive: Path, wheel: Path, sdist: Path) -> None:
    for path in (archive, wheel, sdist):
        assert not [name for name, content in unpacked(path).items() if content == SECRET.encode()], path
