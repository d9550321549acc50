"""Hosts that are rebooted, and sessions that end: what runs on, what comes back, and what is said where it does not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fleet import INVENTORY, LOGIN, OWN, answer, command, container, engine_run, eventually, main_pids, play, recap, shell

ALONE = "head: does not come back after a reboot: no crontab, no linger; ask root for `loginctl enable-linger ada`"
MINE = "17 4 * * * /usr/bin/true # mine, 100\\% of it"
UNIT = f"/home/{LOGIN}/.config/systemd/user/ipyfleet-lab.service"


def crontab() -> list[str]:
    """The crontab of node1's user."""
    return shell("node1", f"crontab -u {LOGIN} -l", check=False).splitlines()


def all_there() -> bool:
    return answer([0, 1, 2])


def reboot(name: str) -> None:
    engine_run("restart", "--time=20", container(name))
    # until then, users are not let in
    eventually(lambda: shell(name, "systemctl is-active ssh systemd-user-sessions", check=False).split() == ["active"] * 2)


def test_what_runs_outlives_the_login_that_started_it() -> None:
    before = main_pids()
    for name in ("head", "node1"):
        assert "/session-" in shell(name, f"cat /proc/$(pgrep -of supervisor.supervisord -u {LOGIN})/cgroup")
        shell(name, f"pkill -u {LOGIN} -x sshd", check=False)
        eventually(lambda name=name: not shell(name, f"pgrep -u {LOGIN} -x sshd", check=False))  # type: ignore[misc]
    assert main_pids() == before
    assert all_there()


def test_a_host_that_was_rebooted_has_its_engines_again_also_when_they_had_been_stopped() -> None:
    before = main_pids()
    assert command("stop", "-i", str(INVENTORY), "--limit=node1").returncode == 0
    assert not [key for key in main_pids() if key.startswith("node1 ")]
    for name in ("node1", "node2"):
        reboot(name)
    eventually(all_there)
    after = main_pids()
    assert {line for key, line in before.items() if not key.startswith("head ")}.isdisjoint(after.values())
    assert {key: line for key, line in before.items() if key.startswith("head ")}.items() <= after.items()


def test_where_nothing_is_offered_that_is_said_and_a_run_puts_it_right() -> None:
    said = play(playbook="playbooks/validate.yml")
    assert said.returncode == 0, said.stdout
    assert ALONE in " ".join((said.stdout + said.stderr).split())
    assert json.loads(command("status", "-i", str(INVENTORY), "--json").stdout)["warnings"] == [ALONE]
    reboot("head")
    assert not [key for key in main_pids() if key.startswith("head ")]
    up = json.loads(command("up", "-i", str(INVENTORY), "--json").stdout)
    assert (up["ok"], up["warnings"]) == (True, [ALONE])
    assert [each["name"] for each in up["hosts"] if each["changes"]] == ["head"]
    eventually(all_there)


def test_it_is_in_the_hosts_own_words_once() -> None:
    assert [line for line in crontab() if line.endswith("# ipyfleet lab")] == crontab()
    assert len(crontab()) == 1
    assert OWN in crontab()[0]
    assert shell("node2", f"ls /var/lib/systemd/linger; stat -c %U {UNIT}").split() == [LOGIN, LOGIN]


@pytest.fixture
def line_of_mine() -> Iterator[None]:
    shell("node1", f"{{ printf '%s\\n' '{MINE}'; crontab -u {LOGIN} -l; }} | crontab -u {LOGIN} -")
    yield
    shell("node1", f"crontab -u {LOGIN} -l | grep -vxF '{MINE}' | crontab -u {LOGIN} -")


@pytest.mark.usefixtures("line_of_mine")
def test_a_crontab_s_other_lines_stay_and_are_shown_to_nobody() -> None:
    before = main_pids()
    assert play("-e", "ipp_node_at_boot=false").returncode == 0
    assert crontab() == [MINE]
    assert not shell("node2", f"ls {UNIT} /var/lib/systemd/linger/{LOGIN} 2>/dev/null", check=False)
    said = play("--diff")
    assert "+@reboot " in said.stdout
    assert "mine" not in said.stdout
    assert {host: counts["changed"] for host, counts in recap(said).items()} == {"head": 0, "node1": 1, "node2": 1}
    assert (len(crontab()), crontab()[0]) == (2, MINE)
    assert main_pids() == before


@pytest.fixture
def killing() -> Iterator[None]:
    """Hosts that end all that a user has when the user logs out."""
    path = "/etc/systemd/logind.conf.d/kill.conf"
    for name in ("head", "node2"):
        shell(name, f"mkdir -p $(dirname {path}); printf '[Login]\\nKillUserProcesses=yes\\n' >{path}; systemctl restart systemd-logind")
    yield
    for name in ("head", "node2"):
        shell(name, f"rm {path}; systemctl restart systemd-logind")


@pytest.mark.usefixtures("killing")
def test_a_host_where_nothing_outlives_a_login_is_refused_unless_its_user_lingers() -> None:
    said = play(playbook="playbooks/validate.yml")
    assert said.returncode != 0
    told = " ".join(said.stdout.split())
    assert (
        "head: expected what is started to outlive the login, got KillUserProcesses=yes in logind.conf;"
        " ask root to let the user linger, by loginctl enable-linger" in told
    )
    assert "1 problem; nothing was changed" in told
