"""Settings of files that change their lists and dicts: as running the file would leave them, or not known."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_source import Settings
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.config_terms import Unknown

BEFORE = """
import os
nodes = ["n1", "n2"]
table = {"n1": 1, "n2": 2}
deep = {"n1": [1, ["--a"]]}
same = nodes
c.Own.nodes = nodes
c.Own.table = table
c.Own.deep = deep
"""


def read(text: str) -> tuple[dict[str, Any], list[str]]:
    """Settings that a file makes after `BEFORE`, and what is said of others."""
    settings = Settings()
    settings.read("x.py", (BEFORE + text).encode(), "/x.py")
    return {trait: each.value for (_, trait), each in settings.found.items()}, [f"{each.name}: {each.why}" for each in settings.unread]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes.remove('n1')", {"nodes": ["n2"]}),
        ("nodes.insert(0, 'n0')", {"nodes": ["n0", "n1", "n2"]}),
        ("nodes.pop()", {"nodes": ["n1"]}),
        ("nodes.reverse()", {"nodes": ["n2", "n1"]}),
        ("nodes.clear()", {"nodes": []}),
        ("same += ['n3']", {"nodes": ["n1", "n2", "n3"]}),
        ("same = same + ['n3']", {"nodes": ["n1", "n2"]}),
        ("del nodes[0]", {"nodes": ["n2"]}),
        ("del c.Own.nodes[0]", {"nodes": ["n2"]}),
        ("c.Own.nodes.remove('n1')", {"nodes": ["n2"]}),
        ("c.Own.nodes += ['n3']", {"nodes": ["n1", "n2", "n3"]}),
        ("for each in nodes:\n    nodes.remove(each)", {"nodes": ["n2"]}),
        ("table.pop('n1')", {"table": {"n2": 2}}),
        ("del table['n1']", {"table": {"n2": 2}}),
        ("del c.Own.table['n1']", {"table": {"n2": 2}}),
        ("c.Own.table.pop('n1', None)", {"table": {"n2": 2}}),
        ("table.setdefault('n1', 5)\ntable.setdefault('n3', 5)", {"table": {"n1": 1, "n2": 2, "n3": 5}}),
        ("table |= {'n3': 3}", {"table": {"n1": 1, "n2": 2, "n3": 3}}),
        ("deep['n1'][0] = 4", {"deep": {"n1": [4, ["--a"]]}}),
        ("c.Own.deep['n1'][0] = 4", {"deep": {"n1": [4, ["--a"]]}}),
        ("print(nodes, len(nodes), sorted(nodes, key=lambda each: each[1]))", {"nodes": ["n1", "n2"]}),
        ("os.path.exists(nodes[0]) and print(table.get('n1'))", {"nodes": ["n1", "n2"], "table": {"n1": 1, "n2": 2}}),
        ("with open('x') as f:\n    for each in nodes:\n        other = each in f", {"nodes": ["n1", "n2"]}),
        ("def add(nodes):\n    nodes = []\n    nodes.append('n3')", {"nodes": ["n1", "n2"]}),
    ],
)
def test_what_a_file_changes_is_changed(text: str, expected: dict[str, Any]) -> None:
    found, unread = read(text)
    assert {trait: found[trait] for trait in expected} == expected
    assert unread == []


def test_what_a_file_deletes_is_gone() -> None:
    assert list(read("del c.Own.nodes")[0]) == ["table", "deep"]
    assert read("del c.Own")[0] == {}
    assert isinstance(read("other = nodes\ndel other\nc.Own.nodes = other")[0]["nodes"], Unknown)


@pytest.mark.parametrize(
    ("text", "trait"),
    [
        ("with open('x') as f:\n    for each in f:\n        nodes.append(each)", "nodes"),
        ("for each in open('x'):\n    nodes.append(each)", "nodes"),
        ("try:\n    nodes.remove('n1')\nexcept ValueError:\n    pass", "nodes"),
        ("if os.environ.get('X'):\n    del table['n1']", "table"),
        ("if os.environ.get('X'):\n    table['n3'] = 1", "table"),
        ("if os.environ.get('X'):\n    del c.Own.table['n1']", "table"),
        ("while busy():\n    table |= {'n3': 1}", "table"),
        ("nodes.sort(key=len)", "nodes"),
        ("nodes.remove(os.environ['X'])", "nodes"),
        ("nodes[:1] = []", "nodes"),
        ("nodes *= 2", "nodes"),
        ("fill(table)", "table"),
        ("other = fill(1, table=table)", "table"),
        ("other = nodes.pop()", "nodes"),
        ("print(nodes.pop())", "nodes"),
        ("os.environ.get('X') and nodes.append('n3')", "nodes"),
        ("[nodes.append(each) for each in 'ab']", "nodes"),
        ("table[os.environ['X']] = 3", "table"),
        ("c.Own.table.pop(os.environ['X'])", "table"),
        ("other = c.Own.table\nfill(other)", "table"),
        ("with lock:\n    other = nodes\n    other.append('n3')", "nodes"),
        ("other = nodes if busy() else []\nother.append('n3')", "nodes"),
        ("with lock:\n    other = deep['n1']\nother.append(1)", "deep"),
        ("for each in deep.values():\n    fill(each)", "deep"),
        ("def add():\n    nodes.append('n3')\nadd()", "nodes"),
        ("class Add:\n    def __init__(self):\n        nodes.append('n3')\nother = Add()", "nodes"),
        ("class Add:\n    def nodes(self):\n        nodes.append('n3')\nAdd().nodes()", "nodes"),
        ("def add():\n    nodes.append('n3')\ndef more():\n    add()\nmore()", "nodes"),
        ("from more import *\nc.Own.nodes = nodes", "nodes"),
    ],
)
def test_what_only_a_run_would_change_is_not_known(text: str, trait: str) -> None:
    found = read(text)[0][trait]
    assert isinstance(found, Unknown) or any(isinstance(each, Unknown) for each in found.values())


def test_a_function_counts_when_it_is_called() -> None:
    found, _ = read("def add():\n    hosts.append('n3')\nhosts = ['n1']\nc.Own.hosts = hosts\n")
    assert found["hosts"] == ["n1"]
    found, _ = read("def add():\n    hosts.append('n3')\nhosts = ['n1']\nc.Own.hosts = hosts\nadd()\n")
    assert found["hosts"] == Unknown("hosts.append('n3')")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes[7] = 'x'", "nodes[7] = 'x': expected what Python can run, got: list assignment index out of range"),
        ("table[[1]] = 2", "table[[1]] = 2: expected what Python can run, got: unhashable type: 'list'"),
        ("c.Own.nodes[7] = 'x'", "c.Own.nodes[7] = 'x': expected what Python can run, got: list assignment index out of range"),
        ("c.Own.table[[1]] = 2", "c.Own.table[[1]] = 2: expected what Python can run, got: unhashable type: 'list'"),
        ("table.pop('n7')", "table.pop('n7'): expected what Python can run, got: 'n7'"),
        ("c.Own[1] = 3", "Own.1: expected Class.trait"),
    ],
)
def test_a_statement_that_fails_is_noted(text: str, expected: str) -> None:
    assert expected in read(text)[1]


def test_a_range_of_any_length_is_no_error() -> None:
    assert isinstance(read(f"c.Own.number = range(1{'0' * 31})")[0]["number"], Unknown)
