"""What calls give back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from conftest import ROOT

from ipyfleet.errors import Cancelled, RunError
from ipyfleet.results import Backup, Change, ClientCheck, Failure, Fleet, Guest, Host, JupyterLab, LogLine, Restored, Result, Slot

GOOD = Result(
    verb="up",
    status="ok",
    seconds=3.21,
    rc=0,
    fleet=Fleet("lab", "system", "head", "head", 10000, 10099),
    hosts=(Host("n1", "changed", "start", 1.0, (Change("/etc/x", "create file"),)),),
    slots=(Slot(0, "n1", 0, "ok", pid=7, python="3.11.2", ms=2.0),),
    data={"secrets_dir": "/keys"},
)
BAD = replace(GOOD, status="failed", rc=2, slots=(Slot(0, "n1", 0, "missing", "<gone>"),), failures=(Failure("<gone>", "n1"),))


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        GOOD.status = "failed"  # type: ignore[misc]


def test_it_is_plain_data_on_request() -> None:
    data = json.loads(json.dumps(GOOD.to_dict()))
    assert data["schema"] == 1
    assert (data["ok"], data["changed"], data["exit_code"], data["status"]) == (True, True, 0, "ok")
    assert data["slots"][0]["pid"] == 7
    assert data["hosts"][0]["changes"] == [{"path": "/etc/x", "what": "create file", "diff": ""}]
    assert "data" not in data


def test_it_says_itself_in_a_line() -> None:
    assert GOOD.headline() == "up lab: ok in 3.2 s, 1 of 1 engine slots answered, 1 host changed"
    assert replace(GOOD, check=True).headline().endswith("1 host would change")
    assert replace(GOOD, verb="status").headline().startswith("status lab: ok in 3.2 s, 1 of 1 engine slots registered")
    assert str(BAD).splitlines()[1:] == ["     0  n1/0  missing", "  n1: <gone>"]


def test_a_notebook_shows_it_as_a_table_and_no_markup_gets_through() -> None:
    html = BAD._repr_html_()
    assert html.count("<tr>") == 2
    assert "<li>n1: &lt;gone&gt;</li>" in html
    assert "<gone>" not in html
    assert "<td>n1</td>" in replace(GOOD, slots=())._repr_html_()


def test_guests_are_told_and_are_no_failure() -> None:
    found = replace(GOOD, guests=(Guest(10000, "busy", message="guest 10000, <busy>"),))
    assert found.ok
    assert str(found).splitlines()[-1] == "  guest 10000, <busy>"
    assert "<p>guest 10000, &lt;busy&gt;</p>" in found._repr_html_()


def test_it_can_be_made_an_exception() -> None:
    assert GOOD.check_ok() is GOOD
    with pytest.raises(RunError, match="n1: <gone>") as caught:
        BAD.check_ok()
    assert caught.value.result is BAD
    with pytest.raises(Cancelled):
        replace(GOOD, status="cancelled").check_ok()


def test_log_lines_say_where_they_are_from() -> None:
    assert str(LogLine("n1", "engine@0", "started")) == "n1 engine@0: started"


def test_every_field_of_the_json_is_documented() -> None:
    page = (ROOT / "docs" / "command.md").read_text()
    table = page[page.index("## JSON") :]
    parts = (Fleet, Host, Change, Slot, Failure, LogLine, ClientCheck, Backup, JupyterLab, Restored)
    names = {field.name for part in parts for field in fields(part)} | set(GOOD.to_dict())
    assert not [name for name in sorted(names) if f"`{name}`" not in table]
