"""JupyterLab, as a person has it who types `ipyfleet connect` and opens a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Notebooks, browser
from fleet import NAME, ROOT, SCENARIO, eventually, shell
from notebook import LAB, cell, connected, get

PICTURES = ROOT / ".test" / "pictures" / SCENARIO
STARTER = "start-here.ipynb"


@pytest.fixture(scope="module")
def way() -> Iterator[dict[str, Any]]:
    with connected() as said:
        yield said


@pytest.fixture
def lab(way: dict[str, Any]) -> Iterator[Notebooks]:
    with browser(PICTURES) as found:
        found.enter(way["url"])
        yield found


def test_the_starter_notebook_runs_to_its_end(lab: Notebooks) -> None:
    assert STARTER in lab.files()
    lab.open(STARTER)
    lab.picture("1-opened")
    lab.run_all()
    cells = lab.saved(STARTER)
    lab.top()
    lab.picture("2-connected")
    lab.see_plot(1)
    lab.picture("3-plots")
    outputs = [output for each in cells for output in each["outputs"]]
    assert all(each["execution_count"] for each in cells)
    assert [each for each in outputs if each["output_type"] == "error"] == []
    said = "\n".join(str(each.get("text") or each["data"].get("text/plain", "")) for each in outputs)
    assert "['Hello, World', 'Hello, World']" in said
    assert "2 of 2 engines are here" in said
    assert "PostgreSQL 15" in said
    assert sum("image/png" in each.get("data", {}) for each in outputs) == 2


def test_files_are_uploaded_renamed_and_downloaded(lab: Notebooks, tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("1,2\n")
    lab.upload(tmp_path / "numbers.csv")
    lab.rename("numbers.csv", "figures.csv")
    assert shell("head", f"stat -c '%U %a' {LAB}/notebooks/figures.csv; cat {LAB}/notebooks/figures.csv") == "ipylab-lab 600\n1,2"
    assert lab.download("figures.csv").read_text() == "1,2\n"
    shell("head", f"rm {LAB}/notebooks/figures.csv")


def test_the_starter_notebook_is_one_s_own_afterwards() -> None:
    shell("head", f'test "$(stat -c %U {LAB}/notebooks/{STARTER})" = ipylab-lab')
    assert "execution_count" in shell("head", f"cat {LAB}/notebooks/{STARTER}")


def test_kernels_find_the_cluster_and_the_database() -> None:
    code = """
import ipyparallel as ipp
c = ipp.Client(profile="lab")
print(c.ids, c[:].apply_sync(lambda: "Hello, World"))
c[:].block = True
c[:].activate()
get_ipython().run_line_magic("px", "import os")
print(len(ipp.Cluster.from_file(profile="lab").connect_client_sync().ids))
from sqlalchemy import create_engine, text
with create_engine("postgresql+psycopg2://").connect() as connection:
    print(connection.execute(text("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()")).all())
"""
    assert cell(code).splitlines() == ["[0, 1] ['Hello, World', 'Hello, World']", "2", "[(True, 'TLSv1.3')]"]


def test_the_shell_s_python_is_the_notebook_s() -> None:
    assert cell("import sys; print(get_ipython().getoutput('python -c \"import sys; print(sys.prefix)\"') == [sys.prefix])") == "True"


def test_a_client_and_the_database_are_there_on_this_machine(way: dict[str, Any]) -> None:
    import ipyparallel as ipp
    import psycopg2

    rc = ipp.Client(way["client_file"])
    try:
        # a function of the standard library is sent by its name, which works between different versions of Python
        assert rc[:].apply_sync(os.getcwd) == [f"/var/lib/ipyfleet/{NAME}/work"] * 2
    finally:
        rc.close()
    connection = psycopg2.connect(way["dsn"])
    with connection, connection.cursor() as cursor:
        cursor.execute("select version from pg_stat_ssl where pid = pg_backend_pid()")
        assert cursor.fetchall() == [("TLSv1.3",)]
    connection.close()


def test_it_is_one_ssh_and_comes_back_when_that_ends(way: dict[str, Any]) -> None:
    import psutil

    def tunnels() -> list[int]:
        mine = psutil.Process(way["process"]).children(recursive=True)
        return [each.pid for each in mine if each.name() == "ssh"]

    (first,) = tunnels()
    psutil.Process(first).kill()
    eventually(lambda: tunnels() not in ([], [first]))
    eventually(lambda: reached(way["url"]))
    assert len(tunnels()) == 1


def reached(url: str) -> bool:
    try:
        return get(url, "/api/status")[0] == 200
    except OSError:
        return False
