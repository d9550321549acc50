"""What JupyterLab's users get: the starter notebook, and the fleet as ipyparallel's Cluster, on engines that run."""

from __future__ import annotations

import ast
import gc
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import nbformat
import pytest
from conftest import ROOT, rendered
from ipyfleet_managed import FleetIsManagedError
from ipyparallel.cluster import ClusterManager
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from tornado.web import HTTPError

NAME = "lab"
MODULES = ROOT / "roles/jupyterlab/files"
REFUSED = "fleet lab is managed by ipyfleet, and nothing was changed: use `ipyfleet start`, `ipyfleet stop` or `ipyfleet restart`"
VERBS: dict[str, tuple[Any, ...]] = {
    "start_cluster": (),
    "start_controller": (),
    "start_engines": (1,),
    "stop_cluster": (),
    "stop_controller": (),
    "stop_engines": (),
    "stop_engine": (0,),
    "restart_engines": (),
    "restart_engine": (0,),
    "signal_engines": (9,),
    "signal_engine": (9, 0),
}


def described(slots: dict[str, int], database: bool = False, packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """A fleet as templates see it, with these slots by host."""
    return {
        "name": NAME,
        "postgresql": {"tls": True} if database else None,
        "hosts": {
            host: {"slots": [{"number": each, "id": each} for each in range(count)], "packages": list(packages)}
            for host, count in slots.items()
        },
    }


def deploy(lab: Path, connection: Path, slots: dict[str, int]) -> Path:
    """Make the profile as it is on the lab's host; returns IPYTHONDIR."""
    profile = lab / "ipython" / f"profile_{NAME}"
    security = profile / "security"
    security.mkdir(parents=True)
    shutil.copy(connection, security)
    fleet = described(slots)
    (security / "cluster-.json").write_text(rendered("jupyterlab/cluster-.json.j2", fleet=fleet, places={"lab": str(lab)}))
    (profile / "ipcluster_config.py").write_text(rendered("jupyterlab/ipcluster_config.py.j2"))
    return profile.parent


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The client's file of a controller with two engines."""
    profile = tmp_path_factory.mktemp("managed") / "profile"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(profile.parent))
        cluster = ipp.Cluster(n=2, profile_dir=str(profile), cluster_id="", controller_ip="127.0.0.1", delay=0)
        try:
            cluster.start_and_connect_sync().close()
            yield profile / "security" / "ipcontroller-client.json"
        finally:
            cluster.stop_cluster_sync()


@pytest.fixture
def ipython(connection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """IPYTHONDIR of somebody who uses JupyterLab, of a fleet with one slot on each of two hosts."""
    folder = deploy(tmp_path, connection, {"node1": 1, "node2": 1})
    monkeypatch.setenv("IPYTHONDIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(MODULES), *filter(None, [os.environ.get("PYTHONPATH")])]))
    return folder


def cluster_file(ipython: Path) -> dict[str, Any]:
    """What the fleet's file beside its connection file says."""
    return dict(json.loads((ipython / f"profile_{NAME}" / "security" / "cluster-.json").read_text()))


# -- the fleet as a Cluster


def pids() -> list[int]:
    """Processes of the engines."""
    with ipp.Client(profile=NAME, timeout=10) as client:
        return sorted(client[:].apply_sync(os.getpid))


@pytest.mark.usefixtures("ipython")
def test_the_fleet_is_a_cluster_that_clients_connect_to() -> None:
    fleet = ipp.Cluster.from_file(profile=NAME)
    assert repr(fleet) == "<ManagedCluster(profile='lab', hosts=2, engines=2)>"
    assert {host: engines.n for host, engines in fleet.engines.items()} == {"node1": 1, "node2": 1}
    with fleet.connect_client_sync() as client:
        client.wait_for_engines(timeout=10)
        assert client[:].apply_sync(str, "Hello, World") == ["Hello, World"] * 2


def test_what_would_change_it_is_refused_in_one_line(ipython: Path) -> None:
    before, said = pids(), cluster_file(ipython)
    fleet = ipp.Cluster.from_file(profile=NAME)
    for verb, arguments in VERBS.items():
        with pytest.raises(FleetIsManagedError) as caught:
            getattr(fleet, f"{verb}_sync")(*arguments)
        assert str(caught.value).startswith(REFUSED), verb
    for part in (fleet.controller, *fleet.engines.values()):
        with pytest.raises(FleetIsManagedError):
            part.signal(9)
    assert (pids(), cluster_file(ipython)) == (before, said)


@pytest.mark.usefixtures("ipython")
def test_a_with_statement_uses_it_and_leaves_it_running() -> None:
    before = pids()
    with ipp.Cluster.from_file(profile=NAME) as client:
        assert client.ids == [0, 1]
    # somebody who wants it stopped in the end
    fleet = ipp.Cluster.from_file(profile=NAME, shutdown_atexit=True)
    fleet.start_and_connect_sync(2).close()
    del fleet
    gc.collect()
    assert pids() == before


@pytest.mark.usefixtures("ipython")
def test_engines_that_are_asked_for_are_waited_for() -> None:
    fleet = ipp.Cluster.from_file(profile=NAME)
    fleet.engine_timeout = 1
    with pytest.raises(TimeoutError, match="3 engines not ready"):
        fleet.start_and_connect_sync(3)


def test_a_rival_in_the_profile_is_refused(ipython: Path) -> None:
    before = pids()
    rival = ipp.Cluster(profile=NAME, cluster_id="", n=1)
    for start in (rival.start_cluster_sync, rival.start_controller_sync, rival.start_engines_sync):
        with pytest.raises(FleetIsManagedError, match="managed by ipyfleet"):
            start()
    assert not rival._is_running()
    assert pids() == before
    assert sorted(path.name for path in (ipython / f"profile_{NAME}/security").iterdir()) == ["cluster-.json", "ipcontroller-client.json"]


def test_the_clusters_tab_shows_it_as_running(ipython: Path) -> None:
    """The server extension asks this manager, and answers with what an HTTPError says."""
    manager = ClusterManager()
    for _ in range(2):  # it sorts out those that have stopped when it looks again
        assert list(manager.load_clusters(profile_dirs=[str(ipython / "profile_lab")], init_default_clusters=True)) == ["lab:"]
    shown = manager.get_cluster("lab:").to_dict()
    assert shown["controller"]["state"]["state"] == "running"
    assert sum(each["n"] for each in shown["engines"]["sets"].values()) == 2
    with pytest.raises(HTTPError) as caught:
        manager.get_cluster("lab:").stop_cluster_sync()
    assert caught.value.status_code == 409
    assert (caught.value.log_message or "").startswith(REFUSED)


@pytest.mark.usefixtures("ipython")
def test_a_new_cluster_in_the_tab_shows_as_stopped_and_stays_so() -> None:
    manager = ClusterManager()
    _, new = manager.new_cluster(profile=NAME)
    with pytest.raises(FleetIsManagedError):
        new.start_cluster_sync()
    assert "controller" not in new.to_dict()


# -- the starter notebook


def notebook(database: bool = False, packages: tuple[str, ...] = (), name: str = "lab") -> Any:
    """The notebook of a fleet with two slots."""
    fleet = described({"node1": 2}, database, packages) | {"name": name}
    text = rendered("jupyterlab/start-here.ipynb.j2", fleet=fleet, host=fleet["hosts"]["node1"])
    nbformat.validate(json.loads(text))
    return nbformat.reads(text, as_version=4)


def code(book: Any) -> dict[str, str]:
    return {cell.id: cell.source for cell in book.cells if cell.cell_type == "code"}


def prose(book: Any) -> str:
    return "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def outputs(book: Any) -> dict[str, str]:
    """What each cell printed, or gave back."""
    return {
        cell.id: "".join(each.get("text", "") or each.get("data", {}).get("text/plain", "") for each in cell.outputs)
        for cell in book.cells
        if cell.cell_type == "code"
    }


def execute(book: Any, folder: Path) -> dict[str, str]:
    NotebookClient(book, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return outputs(book)


@pytest.mark.parametrize("name", ["lab", "a", "with-a-dash9"])
@pytest.mark.parametrize("database", [False, True])
def test_it_is_valid_and_clean_for_any_fleet(name: str, database: bool) -> None:
    book = notebook(database, ("Pandas>=2",), name)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in book.cells}) == len(book.cells)
    assert f'profile="{name}"' in code(book)["connect"]
    for cell, source in code(book).items():
        ast.parse(TransformerManager().transform_cell(source), cell)
    assert not [cell.id for cell in book.cells if cell.get("outputs") or cell.get("execution_count")]


def test_cells_about_the_database_are_those_of_fleets_that_have_one() -> None:
    without, plain, pandas = notebook(), notebook(database=True), notebook(database=True, packages=("pandas[excel]~=2.2",))
    assert not [cell for cell in code(without) if cell.startswith("database")]
    assert "database" not in prose(without).split("Where to go on")[0]
    assert [cell for cell in code(plain) if cell.startswith("database")] == ["database", "database-engines", "database-end"]
    assert "pd.read_sql" in code(pandas)["database-pandas"]


@pytest.mark.usefixtures("ipython")
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    book = notebook()
    said = execute(book, tmp_path)
    assert said["connect"] == "[0, 1]"
    assert "2 of 2 engines are here\n" in said["cluster"]
    assert said["hello"] == "['Hello, World', 'Hello, World']"
    assert "2 engines on 1 host(s)" in said["who"]
    assert said["px-cell"].count("in process") == 2
    assert said["data"] == "999000"
    assert "pi is about 3.14" in said["map"]
    assert "2 engine(s):" in said["scaling"]
    plots = [cell for cell in book.cells if any("image/png" in each.get("data", {}) for each in cell.get("outputs", []))]
    assert [cell.id for cell in plots] == ["plot-map", "plot-timings"]
    assert not [each for cell in book.cells for each in cell.get("outputs", []) if each.get("name") == "stderr"]
    assert list(tmp_path.glob("*")) == [tmp_path / "ipython"]


@pytest.mark.usefixtures("ipython")
def test_engines_that_are_missing_are_seen(connection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(deploy(tmp_path / "larger", connection, {"node1": 2, "node2": 3})))
    book = notebook()
    book.cells = [cell for cell in book.cells if cell.id in ("connect", "cluster")]
    assert "2 of 5 engines are here: 3 MISSING" in execute(book, tmp_path)["cluster"]
