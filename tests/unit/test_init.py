"""`ipyfleet init`: what it writes is a fleet file, whatever was said; and it writes nothing that is wrong."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import read_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import positions
from typer.testing import CliRunner, Result

from ipyfleet.cli import init as cli_init
from ipyfleet.cli.app import app
from ipyfleet.cli.init import Answers, split_slots
from ipyfleet.description import Description, fleet_text, in_yaml
from ipyfleet.errors import InputError

NAMES = ("lab2", None)
CONTROLLERS = ("head", "ops@10.0.0.5", "fe80::1", None)
ENGINES = (("node[01:03]=4", "ops@10.0.0.11"), ("1=2",), ("big=auto",), None)
CLIENTS = (("desk", "laptop.example"), None)
USERS = ("yes", None)
SCOPES = ("user", "system", None)
# of the database, of JupyterLab
SERVICES: tuple[tuple[str | None, str | None], ...] = (("ops@10.0.0.7", "ops@10.0.0.8"), (None, None))


def typed(*words: str, answers: str | None = None) -> Result:
    """What somebody gets who types `ipyfleet init` and these words."""
    return CliRunner().invoke(app, ["init", *words], input=answers)


def problems(result: Result) -> list[str]:
    """What an input error says."""
    assert isinstance(result.exception, InputError), result.output
    return list(result.exception.problems)


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("engines", ENGINES)
def test_what_is_written_is_a_fleet_file(controller: str | None, engines: tuple[str, ...] | None) -> None:
    for name, clients, user, scope, (database, notebook) in itertools.product(NAMES, CLIENTS, USERS, SCOPES, SERVICES):
        text = fleet_text(Answers(name, controller, engines, clients, user, scope, database, notebook).description())
        fleet = read_fleet(yaml.safe_load(text), "a.fleet.yml", positions(text))
        assert fleet.name == (name or "lab")
        host = (controller or "localhost").rpartition("@")[2]
        assert fleet.groups["ipp_controller"] == (host,)
        assert fleet.groups["ipp_client"] == (clients or (host,))
        assert fleet.groups["postgresql"] == ((database.rpartition("@")[2],) if database else ())
        assert fleet.groups["jupyterlab"] == ((notebook.rpartition("@")[2],) if notebook else ())
        assert fleet.all_vars.get("ansible_user") == user
        # a fleet on this machine needs no root
        local = not any((controller, engines, clients, database, notebook))
        assert fleet.scope == (scope or ("user" if local else "system"))
        if engines == ENGINES[0]:
            assert fleet.groups["ipp_engine"] == ("node01", "node02", "node03", "10.0.0.11")
            assert fleet.host_vars["node02"]["ipp_engine_slots"] == 4
            assert fleet.host_vars["10.0.0.11"] == {"ipp_engine_slots": "auto", "ansible_user": "ops"}


@pytest.mark.parametrize("value", ["a\nb", "x" * 300, "# no", "{{ x }}", "'", '"', "null", "1e3", "0o17", "[a]", "ä", "a: b", "@x", ""])
def test_every_value_comes_back_from_the_text_as_it_was(value: str) -> None:
    text = fleet_text(Description(value, value, {value: 1}, [value], value, value, {value: {"a": value}}, {value: value}, value, value))
    read = yaml.safe_load(text)
    assert read["name"] == read["scope"] == value
    assert read["controller"] == ({"host": value, "location": value} if value else value)
    assert (read["engines"], read["clients"]) == ({value: 1}, [value])
    assert (read["hosts"], read["defaults"]) == ({value: {"a": value}}, {value: value})
    assert read.get("postgresql", "") == read.get("jupyterlab", "") == value
    assert yaml.safe_load(in_yaml({value: [value]})) == {value: [value]}


def test_the_file_is_checked_as_the_inventory_is_and_left_out_when_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = problems(typed("--name", "Big", "--controller", "head", "--engine", "node[1:2]=0"))
    assert found[0].startswith("Big.fleet.yml:5: name: expected lower-case letters")
    assert found[1].startswith("Big.fleet.yml:17: engines.node[1:2]: expected a number of slots from 1 on, or `auto`, got 0")
    assert list(tmp_path.iterdir()) == []


def test_a_good_file_is_written_and_never_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "two words" / "mine.fleet.yml"
    path.parent.mkdir()
    result = typed(str(path), "--yes", "--engine", "localhost=3", "--client", "localhost")
    assert result.exit_code == 0, result.output
    assert f"ipyfleet up -i '{path}'" in result.output
    assert "\nname: mine\n" in path.read_text()
    assert "\n  localhost: 3\n" in path.read_text()
    before = path.read_text()
    assert problems(typed(str(path), "--yes", "--controller", "head")) == [
        f"{path}: expected a new file, got one that is there; --force overwrites it"
    ]
    assert path.read_text() == before
    assert typed(str(path.parent), "--yes", "--name", "mine", "--force", "--controller", "head").exit_code == 0
    assert "\ncontroller: head\n" in path.read_text()
    assert [each.name for each in path.parent.iterdir()] == ["mine.fleet.yml"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--controller: expected a host, got none"),
        (["--controller", "head"], "--engine: expected HOST=N once or more, got none"),
        (["lab.yml", "--yes"], "lab.yml: expected a name that ends in .fleet.yml or .fleet.yaml, got lab.yml"),
        (["none/lab.fleet.yml", "--yes"], "none/lab.fleet.yml: expected its folder to be there, got no none"),
        (["--yes", "--engine", "n1=two"], "--engine n1=two: expected a number of engines after =, or `auto`, got 'two'"),
        (["--yes", "--engine", "n1=1", "--engine", "n1=2"], "--engine: expected each host once, got n1 twice"),
    ],
)
def test_what_is_said_wrong_is_told_in_a_line(words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems(typed(*words))[0] == expected
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_said_is_asked_for_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    monkeypatch.setattr(cli_init, "write", lambda path, text, _: written.update({path: text}))
    monkeypatch.setattr(cli_init, "is_asked", lambda: True)
    monkeypatch.chdir(tmp_path)
    result = typed("--controller", "head", answers="big\nnode[1:2] spare=1\n3\n\ndb\nlab1\n\nops\n")
    assert result.exit_code == 0, result.output
    read = yaml.safe_load(written[Path("big.fleet.yml")])
    assert (read["name"], read["controller"], read["scope"]) == ("big", "head", "system")
    assert (read["engines"], read["clients"]) == ({"node[1:2]": 3, "spare": 1}, ["head"])
    assert (read["postgresql"], read["jupyterlab"], read["defaults"]) == ("db", "lab1", {"ansible_user": "ops"})


def test_a_number_of_slots_is_what_comes_after_the_last_sign() -> None:
    assert split_slots("a=b=2") == ("a=b", 2)
    assert split_slots("node[01:08]") == ("node[01:08]", "auto")
    assert Answers(controller="head").completed().engines == ("head",)


@pytest.mark.parametrize(
    ("service", "answers"), [("postgresql", Answers(postgresql="localhost")), ("jupyterlab", Answers(jupyterlab="localhost"))]
)
def test_a_service_is_only_in_a_fleet_that_asks_for_it(service: str, answers: Answers) -> None:
    assert service not in yaml.safe_load(fleet_text(Answers(controller="head").description()))
    read = yaml.safe_load(fleet_text(answers.description()))
    # all of it is on this machine, which needs no root
    assert (read[service], read["scope"]) == ("localhost", "user")


def test_options_name_the_hosts_of_services(tmp_path: Path) -> None:
    path = tmp_path / "lab.fleet.yml"
    result = typed(str(path), "--yes", "--controller", "head", "--postgresql", "db", "--jupyterlab", "ops@desk")
    assert result.exit_code == 0, result.output
    read = yaml.safe_load(path.read_text())
    assert (read["postgresql"], read["jupyterlab"], read["scope"]) == ("db", "ops@desk", "system")
