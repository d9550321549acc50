"""What would take a server down, or let nobody in, is refused before it is touched: on Debian 12 and 13."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from database import FLEETS, deploy, flat, sql
from fleet import ROOT, shell

EDITS = yaml.safe_load((ROOT / "molecule" / "postgresql" / "cases" / "edits.yml").read_text())
FILES = {"conf": "postgresql.conf.j2", "hba": "pg_hba.conf.j2"}


@pytest.fixture(scope="module", autouse=True)
def open_key() -> Iterator[None]:
    """A key on the databases' hosts that all can read."""
    for each in FLEETS.values():
        shell(each.host, "cp -p /etc/postgresql/*/main/ipyfleet/server.pem /tmp/open.pem && chmod 644 /tmp/open.pem")
    yield
    for each in FLEETS.values():
        shell(each.host, "rm /tmp/open.pem")


def serving(host: str) -> str:
    """Digests of the configuration, when the server was started, and when it last read its files."""
    files = shell(host, "cat /etc/postgresql/*/main/pg_hba.conf /etc/postgresql/*/main/conf.d/* | sha256sum")
    return files + sql(host, "select pg_postmaster_start_time(), pg_conf_load_time()")


def own_templates(edit: dict[str, Any], folder: Path) -> dict[str, str]:
    """Variables that lead to a site's own copy of the templates, with the edit in it."""
    if not edit.keys() & FILES.keys():
        return {}
    shutil.copytree(ROOT / "templates" / "postgresql", folder)
    for kind in edit.keys() & FILES.keys():
        path = folder / FILES[kind]
        text = path.read_text()
        for old, new in edit[kind].items():
            assert old in text or old == "add"
            text = f"{text}{new}\n" if old == "add" else text.replace(old, new) if old else new
        path.write_text(text)
    return {"postgresql_templates_dir": str(folder)}


def refused(fleet: str, edit: dict[str, Any], folder: Path) -> None:
    """Deploy a fleet with an edit, and see that it is refused while the server goes on."""
    known = FLEETS[fleet]
    edit = json.loads(json.dumps(edit).replace("@fleet@", fleet).replace("@major@", known.major))
    before = serving(known.host)
    variables = edit.get("vars", {}) | own_templates(edit, folder / fleet)
    said = deploy(fleet, f"--limit={known.host}", "-e", json.dumps(variables))
    assert said.returncode == 2, said.stdout
    assert edit["says"] in flat(said.stdout + said.stderr)
    assert "Traceback" not in said.stdout + said.stderr
    assert serving(known.host) == before


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit["id"])
def test_an_edit_is_refused_and_the_server_goes_on(edit: dict[str, Any], tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(FLEETS)) as pool:
        for each in [pool.submit(refused, fleet, edit, tmp_path) for fleet in FLEETS]:
            each.result()
