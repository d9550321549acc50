"""Engines that people start by hand: on the controller's host as the service user, and on a client's host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import NAME, STATE, USER, container, engine_run, eventually, host, play, python, shell

FIRST_GUEST = 10000
BIN = f"/opt/ipyfleet/{NAME}/env/bin"
# as docs/operating.md says
ON_HEAD = f"sudo -u {USER} env IPYTHONDIR={STATE}/ipython {BIN}/ipengine --profile={NAME}"
ON_CLIENT = f"{BIN}/ipengine --profile={NAME}"
LIMIT = "--limit=localhost:all:!old"
FILE = f"/home/ops/.ipython/profile_{NAME}/security/ipcontroller-engine.json"


def ids() -> list[int]:
    return list(python("head", "print(json.dumps(rc.ids))", user="ops"))


def guest_ids() -> list[int]:
    return [each for each in ids() if each >= FIRST_GUEST]


def start(name: str, command: str, user: str) -> None:
    home = "/root" if user == "root" else f"/home/{user}"
    engine_run("exec", "-d", "-u", user, "-e", f"HOME={home}", "-w", "/tmp", container(name), "sh", "-c", f"exec {command}")


def end_guests() -> None:
    """End engines that no unit has started."""
    for name in ("head", "node2"):
        shell(name, "pkill -KILL -f '[i]pengine --profile' || true")
    eventually(lambda: not guest_ids())


@pytest.fixture(scope="module")
def guests() -> Iterator[dict[str, int]]:
    """A guest on the controller's host, and one on a client's, by host."""
    end_guests()
    try:
        start("head", ON_HEAD, "root")
        eventually(lambda: len(guest_ids()) == 1)
        (first,) = guest_ids()
        start("node2", ON_CLIENT, "ops")
        eventually(lambda: len(guest_ids()) == 2)
        yield {"head": first, "node2": next(each for each in guest_ids() if each != first)}
    finally:
        end_guests()


def verified(playbook: str) -> tuple[int, str]:
    said = play(LIMIT, playbook=f"playbooks/{playbook}.yml")
    return said.returncode, said.stdout


def test_only_a_client_that_may_has_the_engine_s_file() -> None:
    entry = host("node2").file(FILE)
    assert (entry.user, entry.mode) == ("ops", 0o600)
    assert not host("head").file(FILE).exists


def test_guests_work_with_the_others_and_are_named(guests: dict[str, int]) -> None:
    code = f"""
        view = rc[{list(guests.values())}]
        print(json.dumps([view.apply_sync(os.getuid), [each.nodename for each in view.apply_sync(os.uname)]]))
    """
    users, machines = python("head", code, user="ops")
    assert machines == ["head", "node2"]
    assert tuple(users) == (int(shell("head", f"id -u {USER}")), int(shell("node2", "id -u ops")))
    for playbook in ("verify", "status"):
        code, said = verified(playbook)
        assert code == 0, said
        for name, number in guests.items():
            assert re.search(rf"guest {number}, an engine that no slot asks for: on {name}, pid \d+, Python 3\.13\.\d+", said)


def test_a_guest_takes_no_slot_s_id(guests: dict[str, int]) -> None:
    unit = f"ipyfleet-{NAME}-engine@0"
    slot = python("head", "print(json.dumps([n for n in rc.ids if rc[n].apply_sync(os.uname).nodename == 'node2'][0]))", user="ops")
    shell("node2", f"systemctl stop {unit}")
    try:
        eventually(lambda: slot not in ids())
        start("head", ON_HEAD, "root")
        eventually(lambda: len(guest_ids()) == len(guests) + 1)
        assert slot not in ids()
    finally:
        shell("node2", f"systemctl start {unit}")
    eventually(lambda: slot in ids())
    assert len(guest_ids()) == len(guests) + 1


def test_guests_come_back_with_their_memory_when_the_controller_was_killed(guests: dict[str, int]) -> None:
    numbers = list(guests.values())
    python("head", f"rc[{numbers}].push({{'mark': 42}}, block=True); print('null')", user="ops")
    before = shell("head", f"systemctl show -p MainPID ipyfleet-{NAME}-controller")
    shell("head", f"systemctl kill -s KILL ipyfleet-{NAME}-controller")
    eventually(lambda: shell("head", f"systemctl show -p MainPID ipyfleet-{NAME}-controller") not in (before, "MainPID=0"))

    def marks() -> Any:
        code = f"""
            try:
                found = rc[{numbers}].pull("mark", block=False).get(timeout=2)
            except Exception as error:
                found = str(error)
            print(json.dumps(found))
        """
        return python("head", code, user="ops")

    eventually(lambda: marks() == [42, 42])


def test_a_guest_that_works_is_not_waited_for(guests: dict[str, int]) -> None:
    busy = guests["node2"]
    # the client goes, the work stays; it ends with the guest
    python("head", f"import time; rc[{busy}].apply_async(time.sleep, 3600); time.sleep(1); print('null')", user="ops")
    code, said = verified("verify")
    assert code == 0, said
    assert f"guest {busy}, an engine that no slot asks for: busy" in said


def test_a_file_that_was_carried_there_by_hand_will_do(tmp_path: Path) -> None:
    file = tmp_path / "engine.json"
    said = play("-e", f"engine_file={file}", LIMIT, playbook="playbooks/client.yml")
    assert said.returncode == 0, said.stdout
    known = set(guest_ids())
    try:
        engine_run("cp", str(file), f"{container('node1')}:/home/ops/lab-engine.json")
        shell("node1", "chown ops /home/ops/lab-engine.json")
        start("node1", f"{BIN}/ipengine --file=/home/ops/lab-engine.json", "ops")
        eventually(lambda: set(guest_ids()) - known)
    finally:
        shell("node1", "pkill -f '[i]pengine --file' || true; rm -rf /home/ops/lab-engine.json /home/ops/.ipython")
        eventually(lambda: set(guest_ids()) <= known)


def test_the_file_goes_when_it_is_turned_off_and_comes_back() -> None:
    try:
        said = play("-e", json.dumps({"ipp_client_engine_file": False}), LIMIT)
        assert said.returncode == 0, said.stdout
        assert not host("node2").file(FILE).exists
    finally:
        assert play(LIMIT).returncode == 0
    assert host("node2").file(FILE).exists
