"""A fleet of this user's own on this machine, in a home folder that is thrown away, and ipyparallel's own fixtures for it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "unit")]

# what ipyparallel's tests need, by the names that they use
from ipyparallel.tests.conftest import (  # noqa: E402, F401
    Cluster,
    Context,
    ipython,
    ipython_dir,
)
from registered import register, typed  # noqa: E402

# its tests ask for up to five engines, look for what engines say at INFO, and have them import the tests' module
FLEET = """\
plugin: ipyfleet.cluster.fleet
name: launch
scope: user
controller: localhost
engines: {localhost: 5}
python_packages: [pytest]
defaults: {ipp_engine_log_level: INFO}
"""


@pytest.fixture(scope="session")
def registered() -> Iterator[str]:
    """A folder for the path that says what an installed ipyfleet would: which launchers there are."""
    with tempfile.TemporaryDirectory() as folder:
        register(Path(folder))
        with mock.patch.object(sys, "path", [folder, *sys.path]):
            yield folder


@pytest.fixture(scope="session", autouse=True)
def fleet_file(registered: str) -> Iterator[Path]:
    """A fleet that is deployed, and stopped."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    # its path is short, for sockets
    with tempfile.TemporaryDirectory(prefix="ipf") as home:
        path = Path(home, "launch.fleet.yml")
        path.write_text(FLEET)
        environ = {"HOME": home, "XDG_CACHE_HOME": cache, "IPYFLEET_INVENTORY": str(path), "PYTHONPATH": f"{registered}:{ROOT / 'src'}"}
        with mock.patch.dict(os.environ, environ):
            try:
                said = typed("ipyfleet", "up")
                assert said.returncode == 0, said.stdout + said.stderr
                assert typed("ipyfleet", "stop").returncode == 0
                yield path
            finally:
                typed("ipyfleet", "teardown", "--yes", "--data", "--keys")


@pytest.fixture
def engine_launcher_class() -> str:
    """Of ipyparallel's fixture `Cluster`."""
    return "fleet"


@pytest.fixture
def controller_launcher_class() -> str:
    """Of ipyparallel's fixture `Cluster`."""
    return "fleet"


@pytest.fixture
def cluster_config() -> Config:
    """Of ipyparallel's fixture `Cluster`; the fleet is found by the environment."""
    return Config()
