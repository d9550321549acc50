"""What runs, status and verify say of JupyterLab, and what they do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fleet import NAME, eventually, play, shell
from notebook import LAB, UNIT, answer, cell, connected, get, token

DROP_IN = f"/run/systemd/system/{UNIT}.d/broken.conf"
RENEW = f"systemctl daemon-reload; systemctl restart {UNIT}"


def flat(text: str) -> str:
    return " ".join(text.split())


def test_verify_and_status_run_a_cell() -> None:
    verified, status = play(playbook="playbooks/verify.yml"), play(playbook="playbooks/status.yml")
    assert (verified.returncode, status.returncode) == (0, 0)
    assert "JupyterLab on head: a cell ran in" in flat(verified.stdout)
    assert "and saw 2 engines" in flat(verified.stdout)
    assert "JupyterLab on head: a cell ran in" in flat(status.stdout)


def test_a_server_whose_kernels_die_is_no_healthy_one() -> None:
    """Without netlink, it starts and answers, and no kernel lives."""
    broken = "[Service]\\nRestrictAddressFamilies=\\nRestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\\n"
    shell("head", f"mkdir -p $(dirname {DROP_IN}); printf '{broken}' >{DROP_IN}; {RENEW}")
    try:
        eventually(lambda: answer("head", "/api") == 200)
        said = play(playbook="playbooks/status.yml")
        assert said.returncode != 0
        assert "JupyterLab on head: expected a kernel that runs, got one that ended" in flat(said.stdout)
    finally:
        shell("head", f"rm {DROP_IN}; {RENEW}")
    eventually(lambda: answer("head", "/api/status", token=token()) == 200)


def test_a_server_that_is_killed_comes_back() -> None:
    shell("head", f"systemctl kill -s KILL {UNIT}")
    eventually(lambda: answer("head", "/api/status", token=token()) == 200)


def test_a_run_without_a_change_leaves_kernels_alone() -> None:
    with connected() as way:
        before = get(way["url"], "/api/status")[1]["started"]
        assert play().returncode == 0
        assert get(way["url"], "/api/status")[1]["started"] == before


def test_a_token_that_was_changed_by_hand_is_put_right() -> None:
    shell("head", f"printf 'another-token-of-somebody-who-was-here' >{LAB}/token; systemctl restart {UNIT}")
    eventually(lambda: answer("head", "/api") == 200)
    assert answer("head", "/api/status", token=token()) == 403
    assert play().returncode == 0
    assert answer("head", "/api/status", token=token()) == 200


@pytest.fixture
def tab() -> Iterator[None]:
    assert play("-e", json.dumps({"jupyterlab_cluster_tab": True})).returncode == 0
    yield
    assert play().returncode == 0


@pytest.mark.usefixtures("tab")
def test_on_request_there_is_a_tab_that_shows_the_fleet_and_cannot_change_it() -> None:
    with connected() as way:
        status, clusters = get(way["url"], "/ipyparallel/clusters")
        assert status == 200
        (mine,) = [each for each in clusters if each["cluster"]["profile"] == NAME]
        assert (mine["controller"]["state"]["state"], mine["engines"]["n"]) == ("running", 2)
    assert "[0, 1]" in cell("import ipyparallel as ipp; print(ipp.Client(profile='lab').ids)")
    address = f"/ipyparallel/clusters/{mine['id']}"
    for verb in ("DELETE", "POST"):
        assert answer("head", address, token=token(), verb=verb) == 409
    assert "[0, 1]" in cell("import ipyparallel as ipp; print(ipp.Client(profile='lab').ids)")


def test_the_unit_asks_for_limits() -> None:
    said = dict(line.split("=", 1) for line in shell("head", f"systemctl show -p MemoryMax,TasksMax,OOMPolicy {UNIT}").splitlines())
    assert said["TasksMax"] == "2048"
    assert said["MemoryMax"] not in ("", "infinity")
    assert said["OOMPolicy"] == "continue"
