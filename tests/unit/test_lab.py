"""`ipyfleet lab` without a container engine: a stand-in answers what the real ones would."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import read_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import positions
from stand_in import ROOTFUL, StandIn, info
from typer.testing import CliRunner

from ipyfleet.cli.app import app
from ipyfleet.errors import InputError
from ipyfleet.lab import Lab, LabError, hosts
from ipyfleet.lab.engine import Engine

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
def there(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> dict[str, hosts.Host]:
    """Hosts that there are: those that were started, without any container."""
    found: dict[str, hosts.Host] = {}

    def up(engine: Engine, prefix: str, wanted: Mapping[str, str], *_: object, **__: object) -> tuple[dict[str, hosts.Host], Engine]:
        for name in wanted:
            was = found.get(name)
            found[name] = hosts.Host(name, f"{prefix}-{name}", "running", started=was is None)
        return dict(found), engine

    def down(*_: object) -> list[str]:
        gone = list(found)
        found.clear()
        return gone

    stand_in("podman", info(ROOTFUL))
    monkeypatch.setattr(hosts, "up", up)
    monkeypatch.setattr(hosts, "down", down)
    monkeypatch.setattr(hosts, "states", lambda *_: list(found.values()))
    return found


@pytest.mark.parametrize("name", ["Lab", "a b", "../x", "", "-a", "a" * 21])
def test_a_lab_is_called_as_fleets_are(name: str) -> None:
    with pytest.raises(InputError, match="--name: expected lower-case letters, digits and dashes, at most 20, a letter first, got"):
        Lab(name)


@pytest.mark.parametrize("engines_", [1, 3])
def test_a_lab_has_a_fleet_file_that_only_its_owner_can_read(there: dict[str, hosts.Host], engines_: int) -> None:
    lab = Lab("try-it")
    lab.start(engines=engines_, slots=4)
    text = lab.fleet_file.read_text()
    fleet = read_fleet(yaml.safe_load(text), lab.fleet_file.name, positions(text))
    nodes = tuple(f"node{number}" for number in range(1, engines_ + 1))
    assert fleet.groups["ipp_engine"] == nodes
    assert fleet.groups["ipp_controller"] == fleet.groups["ipp_client"] == ("head",)
    assert all(fleet.host_vars[name]["ansible_host"] == f"ipyfleet-try-it-{name}" for name in ("head", *nodes))
    assert {fleet.host_vars[name]["ipp_engine_slots"] for name in nodes} == {4}
    assert fleet.all_vars["ipp_controller_location"] == "head"
    assert "`ipyfleet lab down --name try-it`" in text
    assert lab.folder.stat().st_mode & 0o777 == 0o700
    assert set(there) == {"head", *nodes}


def test_a_second_start_starts_nothing_and_leaves_the_fleet_file_alone(there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    assert all(host.started for host in lab.start(slots=1).values())
    lab.fleet_file.write_text("changed by its owner")
    assert not any(host.started for host in lab.start().values())
    assert lab.fleet_file.read_text() == "changed by its owner"
    status = lab.status()
    assert status is not None
    assert status.ok
    del there["node2"]
    status = lab.status()
    assert status is not None
    assert [host.state for host in status.hosts] == ["running", "running", "absent"]


def test_another_shape_is_refused_while_there_are_hosts(there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    lab.start()
    with pytest.raises(InputError) as raised:
        lab.start(engines=2, slots=3)
    assert raised.value.problems == (
        "lab lab: expected engines 2, slots 2, as it has, got engines 2, slots 3; take it away first, with `ipyfleet lab down`",
    )
    there.clear()
    lab.start(engines=1, slots=3)
    assert "  node1: 3\n" in lab.fleet_file.read_text()


def test_two_at_once_do_not_meet_in_one_lab(there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    lab.start()
    handle = os.open(lab.folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for call in (lab.start, lab.down):
            with pytest.raises(LabError, match="lab lab: another `ipyfleet lab` is at work on it; try again when that is done"):
                call()
    finally:
        os.close(handle)
    assert set(there) == {"head", "node1", "node2"}


def test_nothing_is_left_of_a_lab_and_others_stay(there: dict[str, hosts.Host], tmp_path: Path) -> None:
    state = tmp_path / "XDG_STATE_HOME"
    first, second = Lab("one"), Lab("two")
    first.start()
    second.folder.mkdir()
    (second.folder / "lab.json").touch()
    assert first.down() == ["head", "node1", "node2"]
    assert list((state / "ipyfleet" / "lab").iterdir()) == [second.folder]
    (second.folder / "lab.json").unlink()
    assert second.down() == []
    assert list(state.iterdir()) == []
    assert there == {}


def test_a_start_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="expected podman or docker"):
        Lab().start()
    assert list((tmp_path / "XDG_STATE_HOME").iterdir()) == []
    assert Lab().status() is None
    assert Lab().down() == []


def test_a_damaged_or_impossible_folder_is_told(tmp_path: Path, there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    lab.start()
    (lab.folder / "lab.json").write_text('{"engines": 2')
    for call in (lab.start, lab.status, lab.down):
        with pytest.raises(LabError, match=r"lab/lab/lab\.json: expected what `ipyfleet lab` wrote, got something else; remove it, then"):
            call()
    (lab.folder / "lab.json").unlink()
    assert lab.down() == ["head", "node1", "node2"]
    assert there == {}
    (tmp_path / "XDG_STATE_HOME" / "ipyfleet").touch()
    with pytest.raises(LabError, match="XDG_STATE_HOME/ipyfleet/lab/lab: expected a folder that can be written to, got: Not a directory"):
        lab.start()


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (
            ["--engines", "0", "--release", "sid"],
            ["--engines: expected a number from 1 to 64, got 0", "--release: expected bookworm or trixie, got sid"],
        ),
        (["--slots", "65"], ["--slots: expected a number from 1 to 64, got 65"]),
        (["--name", "A"], ["--name: expected lower-case letters, digits and dashes, at most 20, a letter first, got 'A'"]),
    ],
)
def test_a_lab_that_cannot_be_is_refused_before_anything_is_started(words: list[str], problems: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["lab", "up", *words])
    assert isinstance(result.exception, InputError)
    assert list(result.exception.problems) == problems
    assert not (tmp_path / "XDG_STATE_HOME").exists()


def test_status_and_down_without_a_lab_say_so() -> None:
    result = CliRunner().invoke(app, ["lab", "status", "--name", "mine"])
    assert (result.exit_code, result.output) == (1, "there is no lab mine; ipyfleet lab up --name mine makes one\n")
    result = CliRunner().invoke(app, ["lab", "status", "--json"])
    assert (result.exit_code, json.loads(result.output)) == (1, {"schema": 1, "ok": False, "lab": None})
    result = CliRunner().invoke(app, ["lab", "down"])
    assert result.exit_code == 0
    assert "there was no lab lab" in result.output


def test_status_of_a_lab_with_a_host_that_is_down_names_it(there: dict[str, hosts.Host]) -> None:
    Lab().start()
    there["node1"] = replace(there["node1"], state="exited")
    result = CliRunner().invoke(app, ["lab", "status"])
    assert result.exit_code == 3
    assert "ipyfleet-lab-node1  exited" in result.output
    assert "lab lab is not up as a whole; ipyfleet lab up brings it back" in result.output
    shown = json.loads(CliRunner().invoke(app, ["lab", "status", "--json"]).output)
    assert [host["state"] for host in shown["lab"]["hosts"]] == ["running", "exited", "running"]
