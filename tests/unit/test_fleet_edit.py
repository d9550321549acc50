"""Fleet files with other numbers of slots: what changes, and that nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipyfleet.errors import InputError
from ipyfleet.fleet_edit import Edit, edit

FILE = """\
# the lab of the second floor
plugin: fleet
name:   lab    # not the one downstairs
controller: head
engines:
  # the old rack
  node[01:08]: 4   # four cores each
  big1: auto

  # bought last year
  gpu1: {slots: 2, gpus: 2}
  gpu2:
    env: {A: "1"}   # for the driver
    gpus: 2
clients: [head, big1]
hosts:
  head: {ansible_host: 10.0.0.5}
  big1: {ansible_host: 10.0.0.6}
  gpu[1:2]: {ansible_port: 2222}
defaults: {ansible_user: ops, vault: !vault abc}
"""


def edited(tmp_path: Path, wanted: dict[str, int | str], text: str = FILE) -> Edit:
    path = tmp_path / "lab.fleet.yml"
    path.write_text(text)
    found = edit(path, wanted)
    assert path.read_text() == text
    return found


def lines(found: Edit) -> list[str]:
    """The lines that go and come."""
    return [line for line in found.diff.splitlines()[2:] if line[0] in "+-"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"big1": 3}, ["-  big1: auto", "+  big1: 3"]),
        ({"gpu1": "+1"}, ["-  gpu1: {slots: 2, gpus: 2}", "+  gpu1: {slots: 3, gpus: 2}"]),
        ({"gpu2": 1}, ["+    slots: 1"]),
        ({"node[01:08]": 2}, ["-  node[01:08]: 4   # four cores each", "+  node[01:08]: 2   # four cores each"]),
        (
            {"node03": "-1"},
            [
                "-  node[01:08]: 4   # four cores each",
                "+  node[01:02]: 4",
                "+  node03: 3",
                "+  node[04:08]: 4   # four cores each",
            ],
        ),
        ({"node08": 0}, ["-  node[01:08]: 4   # four cores each", "+  node[01:07]: 4   # four cores each"]),
        (
            {"node02": 0, "node[03:05]": 6},
            [
                "-  node[01:08]: 4   # four cores each",
                "+  node01: 4",
                "+  node[03:05]: 6",
                "+  node[06:08]: 4   # four cores each",
            ],
        ),
        ({"node[01:08]": 0}, ["-  node[01:08]: 4   # four cores each"]),
        ({"new[1:2]": 2}, ["+  new1: 2", "+  new2: 2"]),
        ({"ops@10.0.0.9": 2}, ["+  ops@10.0.0.9: 2"]),
        # a client still
        ({"big1": 0}, ["-  big1: auto"]),
        ({"gpu1": 0}, ["-  gpu1: {slots: 2, gpus: 2}", "-  gpu[1:2]: {ansible_port: 2222}", "+  gpu2: {ansible_port: 2222}"]),
        (
            {"gpu[1:2]": 0},
            [
                "-  gpu1: {slots: 2, gpus: 2}",
                "-  gpu2:",
                '-    env: {A: "1"}   # for the driver',
                "-    gpus: 2",
                "-  gpu[1:2]: {ansible_port: 2222}",
            ],
        ),
        ({"nobody": 0}, []),
        ({"node01": 4, "big1": "auto"}, []),
    ],
)
def test_only_what_is_meant_changes(tmp_path: Path, wanted: dict[str, int | str], expected: list[str]) -> None:
    assert lines(edited(tmp_path, wanted)) == expected


@pytest.mark.parametrize(
    ("engines", "wanted", "expected"),
    [
        ("{node1: 2, node2: 1}", {"node2": 3}, "{node1: 2, node2: 3}"),
        ("{node1: 2, node2: 1}", {"node2": 0}, "{node1: 2}"),
        ("{node1: 2, node2: 1}", {"node1": 0, "node3": 1}, "{node2: 1, node3: 1}"),
        ("{'n[1:3]': 2}", {"n2": 0}, "{'n1': 2, 'n3': 2}"),
        ('{"n[a:c]": 2}', {"nb": 1}, '{"na": 2, "nb": 1, "nc": 2}'),
        ("{ops@n1: 2}", {"n1": 3}, "{ops@n1: 3}"),
    ],
)
def test_a_mapping_in_one_line_stays_one(tmp_path: Path, engines: str, wanted: dict[str, int | str], expected: str) -> None:
    text = "plugin: fleet\nname: lab\ncontroller: head\nengines: {}  # all\n"
    assert edited(tmp_path, wanted, text.format(engines)).text == text.format(expected)


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    text = "plugin: fleet\nname: lab\ncontroller: head\nengines:\n  n1: 1\n  n2: 1"
    assert edited(tmp_path, {"n3": 2}, text).text == text + "\n  n3: 2"
    assert edited(tmp_path, {"n2": 0}, text).text == text.removesuffix("  n2: 1")


def test_a_section_of_hosts_that_are_no_more_goes(tmp_path: Path) -> None:
    text = "plugin: fleet\nname: lab\ncontroller: head\nhosts:\n  n2: {ansible_port: 22}\nengines:\n  n1: 1\n  n2: 1\n"
    assert edited(tmp_path, {"n2": 0}, text).text == "plugin: fleet\nname: lab\ncontroller: head\nengines:\n  n1: 1\n"


def test_hosts_that_go_and_that_change(tmp_path: Path) -> None:
    found = edited(tmp_path, {"node01": 0, "node02": 5, "gpu1": 2, "new": 1})
    assert (found.gone, found.changed) == (["node01"], ["node02", "new"])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"node01": "many"}, "node01: expected a number of slots, such as 4, 0 or +1, or auto, got 'many'"),
        ({"node01": "-5"}, "node01: expected 4 slots or fewer to take away, got -5"),
        ({"big1": "+1"}, "big1: expected a number that +1 can be counted from, got auto; give the number that it shall have"),
        ({"node[3:": 1}, "node[3:: expected a range such as node[01:08], got 'node[3:'"),
        (
            {"node[01:08]": 0, "big1": 0, "gpu[1:2]": 0},
            "lab.fleet.yml:5: engines: expected a mapping of hosts to numbers of slots, such as `node[01:08]: 4`, got nothing",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, wanted: dict[str, int | str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        edited(tmp_path, wanted)
    assert str(caught.value) == expected


def test_what_cannot_be_edited_is_left_to_people(tmp_path: Path) -> None:
    text = "plugin: fleet\nname: lab\ncontroller: head\nengines:\n  n1: &same {slots: 1}\n  n2: *same\n"
    with pytest.raises(InputError, match="n2: expected a value of its own, got an alias of another; edit the fleet file by hand"):
        edited(tmp_path, {"n2": 3}, text)
