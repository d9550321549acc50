"""Runs that are about some of a fleet's services: words, programs, and what a systemd is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import SupervisorError, Systemd
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import slots_of
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.services import ServiceError, chosen, is_chosen, units_of, words_of


def host(*ids: int) -> dict[str, Any]:
    return {"slots": [{"number": number, "id": each} for number, each in enumerate(ids)], "packages": [], "auto": None, "roles": []}


EXPECTED = "chosen_services: expected controller, jupyterlab, a slot such as HOST/0, or an engine's id"
FLEET: dict[str, Any] = {
    "controller": "head",
    "launcher": "service",
    "jupyterlab": {"host": "head"},
    "hosts": {"head": host(), "n1": host(0, 1), "n2": host(4)},
    "asked": ["head", "n1", "n2"],
    "locks": {"": "x"},
}


@pytest.mark.parametrize("given", ["n1/1, 4,controller", ["n1/1", 4, "controller"], ("1", "n2/0", "controller", "n1/1")])
def test_services_are_named_by_slot_by_id_or_by_what_there_is_one_of(given: object) -> None:
    assert chosen(FLEET, given) == {"n1": ["engine@1"], "n2": ["engine@0"], "head": ["controller"]}


def test_no_word_means_all() -> None:
    assert chosen(FLEET, "") == chosen(FLEET, []) == {}
    assert words_of(" a,,b ") == ["a", "b"]


def test_what_is_no_service_is_told_all_at_once() -> None:
    with pytest.raises(ServiceError) as caught:
        chosen(FLEET | {"asked": ["n1"]}, "n1/9, 4, jupyterlap")
    assert caught.value.problems == [
        f"{EXPECTED}, got n1/9; did you mean n1/1?",
        "chosen_services: expected a service on a host within --limit, got 4",
        f"{EXPECTED}, got jupyterlap; did you mean jupyterlab?",
    ]


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ("ssh", "expected controller or jupyterlab, got n1/1; engines are no services here, ipcluster (controller) starts them"),
        ("mpi", "expected controller or jupyterlab or mpi, got n1/1; engines are no services here, mpiexec (mpi) starts them"),
    ],
)
def test_engines_that_are_no_services_are_not_taken_for_some(launcher: str, expected: str) -> None:
    with pytest.raises(ServiceError) as caught:
        chosen(FLEET | {"launcher": launcher}, "n1/1, controller")
    assert caught.value.problems == [f"chosen_services: {expected}"]


def test_a_fleet_without_jupyterlab_has_no_such_service() -> None:
    with pytest.raises(ServiceError):
        chosen(FLEET | {"jupyterlab": None}, "jupyterlab")


def test_hosts_without_a_service_that_is_meant_have_nothing_to_do() -> None:
    fleet = FLEET | {"services": chosen(FLEET, "n1/1")}
    assert units_of(fleet, "n1", "start") == ["engine@1"]
    assert units_of(fleet, "n2", "start") is None
    assert (is_chosen(fleet, "n1", "engine@1"), is_chosen(fleet, "n1", "engine@0")) == (True, False)
    assert [slot["id"] for slot in slots_of(fleet)] == [1]


def test_a_signal_goes_to_engines_unless_something_else_is_named() -> None:
    assert units_of(FLEET, "n1", "start") == []
    assert units_of(FLEET, "n1", "signal") == ["engine@0", "engine@1"]
    assert units_of(FLEET, "head", "signal") is None
    assert units_of(FLEET | {"services": {"head": ["controller"]}}, "head", "signal") == ["controller"]


class Module:
    """What a module is to `Systemd`; it answers for a systemctl."""

    def __init__(self, running: set[str], check: bool = False) -> None:
        self.running = running
        self.check_mode = check
        self.calls: list[str] = []

    def get_bin_path(self, name: str, required: bool = False) -> str:  # noqa: ARG002
        return name

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        verb, *words = command[1:]
        if verb == "show":
            names = [word for word in words if not word.startswith("--") and "*" not in word]
            states = {name: "active" if name in self.running else "inactive" for name in names}
            return 0, "\n\n".join(f"Id={name}\nActiveState={state}\nLoadState=loaded" for name, state in states.items()), ""
        self.calls.append(" ".join([verb, *words]))
        if "bad.service" in words:
            return 1, "", "no such unit"
        return 0, "", ""


E0, E1, CONTROLLER, TARGET = (
    f"ipyfleet-lab{each}" for each in ("-engine@0.service", "-engine@1.service", "-controller.service", ".target")
)


def systemd(*running: str, check: bool = False) -> tuple[Systemd, Module]:
    module = Module(set(running), check)
    wanted: list[dict[str, Any]] = [{"name": name, "inputs": []} for name in ("controller", "engine@0", "engine@1")]
    return Systemd(module, "lab", "/run/ipyfleet/lab", wanted), module


def test_systemd_starts_and_stops_what_is_meant_and_leaves_the_target_alone() -> None:
    found, module = systemd(E0, CONTROLLER, TARGET)
    assert found.start_all(["engine@0", "engine@1"]) == [{"path": E1, "what": "start"}]
    assert found.halt(["engine@0", "engine@1"]) == [{"path": E0, "what": "stop"}]
    assert module.calls == [f"start --no-block {E1}", f"stop {E0}"]


def test_systemd_stops_all_with_the_target() -> None:
    found, module = systemd(E0, TARGET)
    assert [each["path"] for each in found.halt()] == [E0, TARGET]
    assert module.calls == [f"stop {E0} {TARGET}"]


def test_systemd_restarts_one_unit_and_starts_one_that_is_stopped() -> None:
    found, module = systemd(E0)
    assert found.restart_all(["engine@0", "engine@1"]) == [{"path": E0, "what": "restart"}, {"path": E1, "what": "start"}]
    assert module.calls == [f"stop {E0}", f"start --no-block {E0}", f"start --no-block {E1}"]


def test_systemd_signals_main_processes_of_what_runs() -> None:
    found, module = systemd(E0, CONTROLLER)
    assert found.signal("INT", ["engine@0", "engine@1"]) == [{"path": E0, "what": "signal INT"}]
    assert module.calls == [f"kill --kill-who=main --signal=INT {E0}"]


def test_check_mode_of_systemd_only_says_so() -> None:
    found, module = systemd(E0, check=True)
    assert found.signal("INT", ["engine@0"]) == [{"path": E0, "what": "signal INT"}]
    assert found.halt(["engine@0"]) == [{"path": E0, "what": "stop"}]
    assert module.calls == []


def test_what_systemd_refuses_is_an_error() -> None:
    found, _ = systemd()
    with pytest.raises(SupervisorError, match=r"systemctl stop bad\.service: no such unit"):
        found.call("stop", "bad.service")


def test_the_verb_and_its_playbook_know_the_same_signals() -> None:
    root = Path(__file__).resolve().parents[2]
    names = "HUP, INT, QUIT, KILL, USR1, USR2, TERM"
    assert f"signals: [{names}]" in (root / "playbooks" / "signal.yml").read_text()
    assert f"choices: [{names}]" in (root / "plugins" / "modules" / "fleet_host.py").read_text()
