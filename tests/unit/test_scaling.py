"""The steps of scaling: their order, what each is about, and what the fleet file has when one fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipyfleet import Cluster
from ipyfleet.cli.day_two import wanted_of
from ipyfleet.errors import InputError
from ipyfleet.results import Host, Result
from ipyfleet.sources import fleet_files

TEXT = """\
plugin: fleet
name: lab
controller: head
engines:
  node[1:3]: 2
  big: auto
  desk: 1
clients: [desk]
jupyterlab: head
"""


class Fake(Cluster):
    """Notes what would be run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.ran: list[tuple[str, str]] = []
        self.chosen: list[str] = []
        self.seen: dict[str, str] = {}
        self.answers: dict[str, Result] = {}

    def run(self, playbook: Any, *, inventory: Sequence[str] = (), **options: Any) -> Result:
        self.ran.append((playbook + (" --check" if options.get("check") else ""), options.get("limit", "")))
        self.seen[playbook] = Path((inventory or self.sources)[0]).read_text()
        self.chosen += (options.get("variables") or {}).get("chosen_services", [])
        if playbook == "inventory":
            return Result("scale", "ok", 1.0, 0, data={"hosts": [{"name": "big", "ids": [6, 7, 8]}]})
        return replace(self.answers.get(playbook, Result("scale", "ok", 1.0, 0)), verb=options["verb"])


@pytest.fixture
def cluster(tmp_path: Path) -> Fake:
    path = tmp_path / "lab.fleet.yml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return Fake(path)


def test_more_slots_are_validated_before_the_file_is_changed(cluster: Fake) -> None:
    result = cluster.scale({"node2": 3})
    assert (result.verb, result.ok, result.seconds) == ("scale", True, 2.0)
    assert cluster.ran == [("validate", "node2:head"), ("site", "node2:head")]
    assert cluster.seen["validate"] == cluster.seen["site"] == cluster.path.read_text()
    assert "+  node2: 3\n" in result.edited
    assert (cluster.path.stat().st_mode & 0o777, [path.name for path in cluster.path.parent.iterdir()]) == (0o640, ["lab.fleet.yml"])


def test_slots_and_hosts_that_go_are_drained_by_what_the_file_still_says(cluster: Fake) -> None:
    assert cluster.scale({"node1": 1, "node3": 0, "big": 1, "desk": 0}).ok
    assert cluster.ran == [
        ("validate", "node1:big:desk:head"),
        ("inventory", ""),
        ("drain", "node1:node3:big:desk"),
        ("teardown", "node3"),
        ("site", "node1:big:desk:head"),
    ]
    assert cluster.chosen == ["node1/1", "node3/0", "node3/1", "big/1", "big/2", "desk/0"]
    assert cluster.seen["drain"] == cluster.seen["teardown"] == TEXT
    assert "node3" not in cluster.path.read_text()


def test_nobody_is_waited_for_now(cluster: Fake) -> None:
    assert cluster.scale({"node1": 1, "node3": 0}, now=True).ok
    assert [playbook for playbook, _ in cluster.ran] == ["validate", "teardown", "site"]


@pytest.mark.parametrize(
    ("step", "kept", "told"),
    [
        ("validate", True, "nothing was changed"),
        ("drain", True, "lab.fleet.yml is as it was; run it again to go on"),
        ("teardown", True, "lab.fleet.yml is as it was; run it again to go on"),
        ("site", False, "lab.fleet.yml has what is wanted now; `ipyfleet up` goes on"),
    ],
)
def test_the_file_tells_the_truth_whatever_fails(cluster: Fake, step: str, kept: bool, told: str) -> None:
    cluster.answers[step] = Result("x", "failed", 1.0, 2)
    result = cluster.scale({"node1": 1, "node3": 0})
    assert (result.ok, result.exit_code, result.warnings) == (False, 1, (told,))
    assert cluster.ran[-1][0] == step
    assert (cluster.path.read_text() == TEXT) is kept
    assert [path.name for path in cluster.path.parent.iterdir()] == ["lab.fleet.yml"]


def test_a_host_that_is_dead_can_be_taken_out_now(cluster: Fake) -> None:
    cluster.answers["teardown"] = Result("x", "failed", 1.0, 4, hosts=(Host("node3", "unreachable"),))
    assert not cluster.scale({"node3": 0}).ok
    assert cluster.path.read_text() == TEXT
    assert cluster.scale({"node3": 0}, now=True).ok
    assert "node3" not in cluster.path.read_text()


def test_a_look_changes_nothing(cluster: Fake) -> None:
    result = cluster.scale({"node1": 1, "node3": 0}, check=True)
    assert (result.ok, result.check, result.warnings) == (True, True, ("would be taken out of the fleet: node3",))
    assert cluster.ran == [("site --check", "node1:head")]
    assert "node1: 1" in cluster.seen["site"]
    assert cluster.path.read_text() == TEXT
    assert result.to_dict()["edited"].startswith("--- lab.fleet.yml\n")


def test_what_is_there_already_is_made_sure_of(cluster: Fake) -> None:
    assert cluster.scale({"node1": 2}).ok
    assert cluster.scale({"gone": 0}).ok
    assert cluster.ran == [("site", "node1"), ("verify", "")]
    assert cluster.path.read_text() == TEXT


def test_a_file_that_somebody_else_changes_meanwhile_is_left_alone(cluster: Fake) -> None:
    edits = cluster.run

    def run(playbook: Any, **options: Any) -> Result:
        cluster.path.write_text(TEXT + "# mine\n")
        return edits(playbook, **options)

    cluster.run = run  # type: ignore[method-assign]
    with pytest.raises(InputError, match="expected it as it was read, got a change meanwhile"):
        cluster.scale({"node1": 3})
    assert cluster.path.read_text() == TEXT + "# mine\n"


def test_there_must_be_one_fleet_file(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text("")
    with pytest.raises(InputError, match=r"scale: expected one fleet file, whose name ends in \.fleet\.yml, got .*hosts\.ini"):
        Cluster(tmp_path / "hosts.ini").scale({"node1": 3})


def test_words_of_the_command() -> None:
    assert wanted_of(["node1=4", "node[2:3]=+1", "ops@h=auto"]) == {"node1": "4", "node[2:3]": "+1", "ops@h": "auto"}
    with pytest.raises(InputError) as caught:
        wanted_of(["node1", "=3", "n=1", "n=2"])
    assert str(caught.value).splitlines() == [
        "scale: expected HOST=SLOTS, such as node1=4, got 'node1'",
        "scale: expected HOST=SLOTS, such as node1=4, got '=3'",
        "scale: expected each host once, got n twice",
    ]


def test_a_file_that_is_about_to_take_another_s_place_is_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lab.fleet.yml", ".12.lab.fleet.yml"):
        (tmp_path / name).write_text("")
    assert fleet_files("") == ["lab.fleet.yml"]
