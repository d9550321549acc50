"""A fleet under ipyparallel's `Cluster` that only notes what it is asked for."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from registered import register

from ipyfleet import attached, launchers, launching
from ipyfleet.access import Access, Engine, Way
from ipyfleet.errors import ClientError
from ipyfleet.launchers import FleetCluster
from ipyfleet.results import Change, Failure, Host, LogLine, Result

FLEET = "plugin: fleet\nname: lab\ncontroller: head\nengines: {n1: 2, n2: 2}\n"
ENGINES = tuple(Engine(number, f"n{1 + number // 2}", number % 2) for number in range(4))

ACCESS = Access({"location": "head"}, "head", {}, "lab", Way("head", {}, ()), ENGINES, Path("/none"), {})


class Fake:
    """A fleet: services that run or do not, hosts that are away, and all that was asked for."""

    sources = ("lab.fleet.yml",)

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.away: set[str] = set()
        self.asked: list[tuple[str, list[str]]] = []
        self.deployed = True
        self.verified = True
        self.silent: set[int] = set()

    def access(self) -> Access:
        if not self.deployed:
            raise ClientError("fleet lab: expected its keys in /keys, got none; deploy it first")
        return ACCESS

    def host_of(self, name: str) -> str:
        return name.partition("/")[0] if "/" in name else "head"

    def act(self, verb: str, services: list[str], what: dict[str, str]) -> Result:
        self.asked.append((verb, sorted(services)))
        # nobody goes to a host of which no service is meant
        missed = self.away & {self.host_of(name) for name in services}
        changes: dict[str, list[Change]] = {"head": [], "n1": [], "n2": []}
        for name in services:
            host = self.host_of(name)
            if host not in self.away:
                unit = f"ipyfleet-lab-engine@{name.partition('/')[2]}.service" if "/" in name else f"ipyfleet-lab-{name}.service"
                changes[host].append(Change(unit, what["running" if name in self.running else "stopped"]))
        hosts = [
            Host(name, "unreachable" if name in missed else "changed", changes=tuple(each for each in found if each.what))
            for name, found in changes.items()
        ]
        failures = tuple(Failure("unreachable: no answer", name) for name in sorted(missed))
        there = {name for name in services if self.host_of(name) not in self.away}
        self.running = self.running - there if verb == "stop" else self.running | there
        return Result(verb, "failed" if failures else "ok", 1.0, 0, hosts=tuple(hosts), failures=failures)

    def start(self, *, services: list[str], verify: bool) -> Result:
        # engines may be busy
        assert verify == (services == ["controller"])
        result = self.act("start", services, {"running": "", "stopped": "start"})
        if verify and not self.verified:
            return replace(result, status="partial", failures=(Failure("expected the controller to answer, got none", "head"),))
        return result

    def restart(self, *, services: list[str], verify: bool = True) -> Result:
        del verify
        return self.act("restart", services, {"running": "restart", "stopped": "start"})

    def stop(self, *, services: list[str]) -> Result:
        return self.act("stop", services, {"running": "stop", "stopped": ""})

    def signal(self, *, name: str, services: list[str]) -> Result:
        return self.act(name, services, {"running": "signal", "stopped": ""})

    def logs(self, *, lines: int, services: list[str]) -> Result:
        assert lines == 200
        said = tuple(LogLine(self.host_of(name), name, "hello") for name in services if self.host_of(name) not in self.away)
        failures = tuple(Failure("unreachable: no answer", name) for name in self.away)
        return Result("logs", "ok", 1.0, 0, logs=said, failures=failures)


class Answer:
    """What came of a signal that the controller was asked to pass on."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def result(self, seconds: float) -> None:
        assert seconds <= 10
        if self.problem:
            raise TimeoutError(self.problem)


class Client:
    """A client of a controller that knows engines 0 to 2, of which 1 does not answer."""

    def __init__(self) -> None:
        self.passed_on: list[tuple[str, int]] = []

    def send_signal(self, name: str, targets: int, block: bool) -> Answer:
        assert not block
        if targets > 2:
            raise IndexError("No such engine: 3")
        self.passed_on.append((name, targets))
        return Answer("too late" if targets == 1 else "")


def fleet_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The fleet of this folder, with an IPython folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("IPYFLEET_INVENTORY", raising=False)
    (tmp_path / "lab.fleet.yml").write_text(FLEET)
    (tmp_path / "site").mkdir()
    register(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = Fake()
    monkeypatch.setattr(attached, "Cluster", lambda *_, **__: found)
    monkeypatch.setattr(attached, "_KNOWN", {})
    monkeypatch.setattr(attached.Attached, "client_info", lambda _: {"location": "nowhere"})
    monkeypatch.setattr(attached.Attached, "client", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(launchers, "ask_engines", lambda _, ids, __: {number: 1 for number in ids if number not in found.silent})
    monkeypatch.setattr(launching.FleetLauncher.watch_seconds, "default_value", 0.05)
    return found


def new(**more: Any) -> Any:
    """A cluster of the fleet; it is not stopped by the garbage collector."""
    return FleetCluster(delay=0, shutdown_atexit=False, **more)
