"""A cell in a kernel of JupyterLab: tried against a server that speaks its protocol, and does what a test tells it to."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.action.fleet_cell import out_of_reach
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_kernel
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_kernel import (
    DIED,
    ERROR,
    REFUSED,
    TIMEOUT,
    UNANSWERED,
    KernelError,
    Server,
)
from ansible_collections.ipyfleet.cluster.plugins.modules import fleet_cell
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import notebook_report
from kernel_server import TOKEN, Lab


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "ASK_AGAIN_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(fleet_kernel, name, 0.02)


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    found = Lab(**getattr(request, "param", {}))
    found.thread.start()
    assert found.ready.wait(10)
    yield found
    found.stop()


def test_it_runs_in_a_kernel_of_its_own_that_is_taken_away(lab: Lab) -> None:
    shown, seconds = lab.run()
    assert shown == "42"
    assert 0 <= seconds < 20
    assert len(lab.began) == 1
    assert lab.kernels == {"of-a-user"}
    # the server's own are as long; sockets are named after them
    assert len(lab.began[0]) <= len(str(uuid.uuid4()))


@pytest.mark.parametrize("lab", [{"busy": 3}], indirect=True)
def test_a_server_that_is_starting_is_waited_for(lab: Lab) -> None:
    assert lab.run()[0] == "42"


@pytest.mark.parametrize(
    ("lab", "kind", "says"),
    [
        ({"does": "raise"}, ERROR, "expected a cell that runs, got NameError: no such name"),
        ({"does": "end"}, DIED, "expected a kernel that runs, got one that ended"),
        ({"does": "refuse"}, DIED, "expected the server to start a kernel, got HTTP 500: Unhandled error"),
        ({"does": "never"}, DIED, "expected a kernel that runs, got one that ended"),
        ({"does": "hang"}, TIMEOUT, "expected the cell to end in time, got no end of it"),
        ({"does": "slow"}, DIED, "expected a kernel that starts in time, got none"),
        ({"busy": 10_000}, UNANSWERED, ""),
    ],
    indirect=["lab"],
)
def test_why_it_did_not_run_is_told_and_its_kernel_taken_away(lab: Lab, kind: str, says: str) -> None:
    with pytest.raises(KernelError) as caught:
        lab.run(0.5 if lab.does in ("hang", "slow") or lab.busy else 20)
    assert (caught.value.kind, str(caught.value)) == (kind, says)
    assert lab.left == set()


def test_a_token_of_another_start_is_refused_at_once_and_not_told(lab: Lab) -> None:
    with pytest.raises(KernelError, match=r"^expected the server to answer, got HTTP 403$") as caught:
        lab.run(token="f" * 16)
    assert caught.value.kind == REFUSED
    assert lab.began == []


def test_a_server_that_will_never_answer_is_not_waited_for() -> None:
    begin = time.monotonic()
    with pytest.raises(KernelError) as caught:
        # the port of a socket that is closed
        Server("127.0.0.1:1", TOKEN, begin + 60, hopeless=lambda: True).run("1")
    assert caught.value.kind == UNANSWERED
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("lab", [{"does": "hang"}, {"does": "slow"}], indirect=True)
def test_when_it_is_cancelled_no_kernel_is_left(lab: Lab) -> None:
    def cancel() -> None:
        while not lab.began:
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(asyncio.CancelledError):
        lab.run()
    assert len(lab.began) == 1
    assert lab.left == set()


def test_when_nobody_waits_for_it_any_more_no_kernel_is_left(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.does = "hang"
    monkeypatch.setattr(fleet_kernel, "abandoned", lambda: bool(lab.began))
    with pytest.raises(asyncio.CancelledError):
        lab.run()
    assert lab.left == set()


def test_a_kernel_that_was_left_by_one_that_was_killed_is_taken_away(lab: Lab) -> None:
    old, young = fleet_kernel.new_id(-600), fleet_kernel.new_id(60)
    lab.kernels |= {old, young}
    lab.run()
    # another one's may be in use
    assert lab.left == {young}


# -- the module


class Service:
    """Stands for the service of JupyterLab."""

    def __init__(self, state: str = "active (running)", last: str = "", said: str = "") -> None:
        self.is_hopeless = lambda: False
        self.said = lambda: said
        self.state = lambda: {"state": state, "running": "running" in state, "last": last, "restarts": 0, "pid": 1}


PARAMS: dict[str, Any] = {"port": 8888, "timeout": 60, "token_file": "/lab/token", "name": "lab", "database": None, "probe": "cell"}


@pytest.mark.parametrize(
    ("found", "service", "says"),
    [
        ({"kind": UNANSWERED}, Service(), "its service runs, but nothing answers on port 8888 within 60 s; see `ipyfleet logs`"),
        (
            {"kind": UNANSWERED},
            Service("inactive (dead)"),
            "its service is inactive (dead); start it with `ipyfleet start` or playbooks/start.yml",
        ),
        (
            {"kind": UNANSWERED},
            Service("inactive (dead)", "[I 2026-01-01 00:00:00.000 ServerApp] Shutting down"),
            "its service is inactive (dead); start it with `ipyfleet start` or playbooks/start.yml",
        ),
        (
            {"kind": UNANSWERED},
            Service("activating (auto-restart)", "[C 2026-01-01 00:00:00.000 ServerApp] ERROR: port 8888 is not available"),
            "its service is activating (auto-restart); it last said: "
            "[C 2026-01-01 00:00:00.000 ServerApp] ERROR: port 8888 is not available",
        ),
        (
            {"kind": REFUSED, "reason": "expected the server to answer, got HTTP 403"},
            Service(),
            "expected the server to answer, got HTTP 403 for the token in /lab/token: it was started with another one; "
            "restart it with `ipyfleet restart` or playbooks/restart.yml",
        ),
        (
            {"kind": DIED, "reason": "expected a kernel that runs, got one that ended"},
            Service(said="Address family not supported by protocol"),
            "expected a kernel that runs, got one that ended; the log last said: Address family not supported by protocol",
        ),
        ({"kind": DIED, "reason": "expected a kernel"}, Service(), "expected a kernel; see `ipyfleet logs`"),
        ({"kind": TIMEOUT, "reason": "expected the cell to end in time"}, Service(), "expected the cell to end in time (60 s)"),
        ({"reason": "something"}, Service(), "something"),
    ],
)
def test_a_reason_says_what_to_do(found: dict[str, Any], service: Any, says: str) -> None:
    assert fleet_cell.explained({"reason": "", **found}, service, service.state(), PARAMS) == says


def test_what_a_kernel_said_is_told_apart_from_what_its_server_said(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = fleet_cell.Unit(None)
    lines = [
        "2026-01-01T00:00:00+0000 head python[7]: zmq.error.ZMQError: Address family not supported by protocol",
        "2026-01-01T00:00:01+0000 head python[7]: [I 2026-01-01 00:00:01.000 ServerApp] AsyncIOLoopKernelRestarter: restarting kernel",
        "2026-01-01T00:00:02+0000 head python[7]: [E 2026-01-01 00:00:02.000 ServerApp] {",
        '2026-01-01T00:00:02+0000 head python[7]:       "Host": "127.0.0.1:8888"',
        "2026-01-01T00:00:02+0000 head python[7]:     }",
        "2026-01-01T00:00:02+0000 head python[7]: [IPKernelApp] WARNING | Could not set permissions on /lab/ipython/profile_lab/security",
    ]
    journal = [*lines, "2026-01-01T00:00:03+0000 head systemd[1]: Stopping JupyterLab of fleet lab..."]
    for each in (journal, [line.split(": ", 1)[1] for line in lines]):
        monkeypatch.setattr(unit, "supervisor", lambda each=each: SimpleNamespace(logs=lambda *_: {"jupyterlab": each}))
        assert unit.said() == "zmq.error.ZMQError: Address family not supported by protocol"


@pytest.mark.parametrize("text", ["", "ab\nc", "ab c"])
def test_a_token_that_no_server_takes_is_told_but_not_shown(text: str, tmp_path: Any) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(KernelError, match="expected letters and digits, got something else") as caught:
        fleet_cell.token_of(str(path))
    assert "ab" not in str(caught.value).replace(str(path), "")


def test_a_token_is_read_as_the_server_reads_it(tmp_path: Any) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    assert fleet_cell.token_of(str(path)) == TOKEN


def test_a_token_that_cannot_be_read_is_told() -> None:
    with pytest.raises(KernelError, match=r"/no/token: cannot be read: No such file or directory; run site.yml for its host"):
        fleet_cell.token_of("/no/token")


def run_here(code: str) -> str:
    """What a cell shows when its last line is an expression; names that it needs are its own."""
    *before, last = code.rsplit("\n", 1)
    names: dict[str, Any] = {}
    exec("\n".join(before), names)
    return repr(eval(last, names))


class Engines:
    """Stands for a client of ipyparallel."""

    def __init__(self, profile: str, timeout: float) -> None:
        del timeout
        if profile == "away":
            raise TimeoutError("Hub connection request timed out")
        self.ids = [0, 1]
        self.answer = profile != "silent"

    def __getitem__(self, number: int) -> Engines:
        return self

    def apply_async(self, function: Any) -> Engines:
        del function
        return self

    def ready(self) -> bool:
        return self.answer

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("name", "ids", "says"),
    [
        ("lab", [0, 1], ""),
        ("silent", [0, 1], "its kernel does not reach the cluster: none of its 2 engines ran code in time"),
        ("away", [], "its kernel does not reach the cluster: TimeoutError: Hub connection request timed out"),
    ],
)
def test_the_cell_sees_engines(name: str, ids: list[int], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipyparallel.Client", Engines)
    shown = run_here(fleet_cell.cell_of({**PARAMS, "probe": "fleet", "name": name}, 0.2))
    found = fleet_cell.judge("fleet", shown)
    assert found["ids"] == ids
    assert found["reason"].startswith(says)
    assert bool(found["reason"]) == bool(says)


def test_the_cell_sees_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipyparallel.Client", Engines)
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    params = {**PARAMS, "probe": "fleet", "database": {"tls": True, "services": ["lab"]}}
    found = fleet_cell.judge("fleet", run_here(fleet_cell.cell_of(params, 1)))
    assert found["reason"].startswith("its kernel does not reach the database: expected psycopg2 in the environment")


def test_the_simple_cell() -> None:
    assert fleet_cell.judge("cell", run_here("0\n" + fleet_cell.cell_of(PARAMS, 1))) == {"reason": ""}
    assert fleet_cell.judge("cell", "41") == {"reason": "expected the cell to show 42, got '41'"}


@pytest.mark.parametrize(
    ("shown", "got"),
    [
        ("", "nothing"),
        ("<b>text</b>", "<b>text</b>"),
        ("'no JSON'", "'no JSON'"),
        ("42", "42"),
        ("""'{"engines": 7}'""", """'{"engines": 7}'"""),
        ("""'{"engines": {"ids": ["a"]}}'""", """'{"engines": {"ids": ["a"]}}'"""),
        ("-" * 200_000 + "1", "-" * 100),
    ],
)
def test_a_kernel_that_shows_things_in_a_way_of_its_own_is_told(shown: str, got: str) -> None:
    expected = f"expected the cell to show what it saw, got {got}; see what the kernel runs when it starts"
    assert fleet_cell.judge("fleet", shown) == {"reason": expected}


def test_a_host_that_is_out_of_reach_is_not_asked() -> None:
    fleet = {"jupyterlab": {"host": "head"}, "asked": ["head", "n1"]}
    away = {"unreachable": True, "msg": "expected an SSH server, got refused"}
    said = {"state": "failed", "reason": "its host is unreachable: expected an SSH server, got refused"}
    assert out_of_reach(fleet, {}) is None
    assert out_of_reach(fleet, away) == said
    assert out_of_reach({**fleet, "asked": ["n1"]}, {}) == {"state": "unknown", "reason": "not asked; its host is not within the limit"}


# -- the report

FLEET = {"jupyterlab": {"host": "head", "port": 12391}}
SLOTS = [{"id": 0, "state": "ok"}, {"id": 1, "state": "listed"}, {"id": 2, "state": "missing"}]
CELL = {"state": "ok", "reason": "", "seconds": 1.31, "ids": [0, 1], "version": "4.6.6", "unit": {"state": "active (running)"}}


@pytest.mark.parametrize(
    ("cell", "state", "says"),
    [
        (CELL, "ok", "a cell ran in 1.3 s and saw 2 engines; ipyfleet connect leads there"),
        ({**CELL, "ids": [0, 1, 7]}, "ok", "a cell ran in 1.3 s and saw 3 engines; ipyfleet connect leads there"),
        ({"state": "ok", "reason": "", "seconds": 0.5}, "ok", "a cell ran in 0.5 s; ipyfleet connect leads there"),
        ({**CELL, "ids": [1]}, "failed", "its cell saw 1 of the 2 engines that are there, not those with id 0; verify again"),
        ({"state": "failed", "reason": "its service is failed"}, "failed", "its service is failed"),
        ({"state": "unknown", "reason": "not asked; why"}, "unknown", "not asked; why"),
        ({}, "unknown", "not asked"),
    ],
)
def test_what_is_told_of_it(cell: dict[str, Any], state: str, says: str) -> None:
    found = notebook_report.report_of(FLEET, SLOTS, cell)
    assert found
    assert (found["state"], found["message"]) == (state, f"JupyterLab on head: {says}")
    assert found["url"] == "http://127.0.0.1:12391/lab"


def test_a_fleet_without_it_says_nothing() -> None:
    assert notebook_report.report_of({"jupyterlab": None}, SLOTS, {}) is None
