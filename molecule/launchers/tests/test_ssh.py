"""Engines that ipcluster starts by ssh: the service, the same by hand, and what is left when it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from fleet import ENGINE_FILE, NAME, PROFILE, STATE, USER, container, engine_run, eventually, play, python, recap, shell

PRESENT = "--limit=localhost:all:!gone"
UNIT = f"ipyfleet-{NAME}-controller"
HOSTS = ("head", "node1", "node2")
IDS = [0, 1, 2, 3, 4]
ENGINES = "pgrep -u ipyfleet-lab -fc '^/opt/[^ ]*python .*(ipengine.py|ipyfleet_engines.py|ipyparallel.engine.nanny)'"
IPCLUSTER = f"runuser -u {USER} -- /opt/ipyfleet/{NAME}/bin/ipcluster"
# a holder; an engine and its nanny in each of two slots
RUNNING = 5


def left(name: str) -> int:
    """Processes of engines on a host."""
    return int(shell(name, ENGINES, check=False))


def ids() -> list[int]:
    """Ids that a new client finds; none while there is no controller."""
    try:
        return list(python("head", "print(json.dumps(rc.ids))"))
    except AssertionError:
        return []


def pids() -> dict[str, int]:
    """Processes of all engines by id; none while one does not answer."""
    try:
        return dict(python("head", "print(json.dumps({i: rc[i].apply_async(os.getpid).get(5) for i in rc.ids}))"))
    except AssertionError:
        return {}


def whole() -> None:
    """Wait until all engines answer; those of before a restart of the controller may be listed for a while."""
    eventually(lambda: [int(number) for number in pids()] == IDS, 60)


@pytest.fixture(autouse=True)
def again() -> Iterator[None]:
    """Whatever a test did, the service runs in the end, with all engines."""
    yield
    shell("head", f"systemctl start {UNIT}")
    whole()


def test_engines_have_the_ids_of_their_slots() -> None:
    seen = python("head", "import socket; print(json.dumps({i: rc[i].apply_sync(socket.gethostname) for i in rc.ids}))")
    assert seen == {"0": "head", "1": "node1", "2": "node1", "3": "node2", "4": "node2"}


def test_arguments_of_one_host_are_for_its_engines_alone() -> None:
    code = "print(json.dumps([rc[i].apply_sync(lambda: globals().get('flavour', 'plain')) for i in rc.ids]))"
    assert python("head", code) == ["plain", "plain", "plain", "vanilla", "vanilla"]
    assert shell("node2", "ps -u ipyfleet-lab -o args | grep -c '[i]pengine.py.*--profile-dir=/var/lib/ipyfleet/lab/work/profile'") == "2"


def test_one_login_holds_all_engines_of_a_host() -> None:
    assert shell("node1", "pgrep -u ipyfleet-lab -fc '^/opt/[^ ]*python .*ipyfleet_engines.py'") == "1"


def test_the_controller_s_key_opens_nothing_but_engines() -> None:
    login = f"runuser -u {USER} -- ssh -F /etc/ipyfleet/{NAME}/ssh_config -l {USER} {container('node1')}"
    assert shell("head", f"{login} id 2>&1", check=False) == 'expected a request such as {"n": 2, "args": []}, got something else'
    refused = shell(
        "head",
        f"{login} -N -o ExitOnForwardFailure=yes -L 5555:localhost:22 & sleep 2; ssh-keyscan -p 5555 localhost; kill %1",
        check=False,
    )
    assert "ssh-" not in refused
    key = shell("head", f"cat {STATE}/ssh_key")
    shell("node2", f"umask 077; cat >/tmp/key <<'EOF'\n{key}\nEOF")
    elsewhere = shell(
        "node2", f"ssh -i /tmp/key -o StrictHostKeyChecking=accept-new {USER}@{container('node1')} 2>&1; rm /tmp/key", check=False
    )
    assert "Permission denied" in elsewhere


def test_a_host_key_that_changed_is_refused() -> None:
    shell("node1", "mkdir /root/kept; mv /etc/ssh/ssh_host_* /root/kept; ssh-keygen -A; systemctl reload ssh")
    try:
        shell("head", f"systemctl restart {UNIT}")
        eventually(lambda: ids() == [0, 3, 4], 60)
        assert "Host key verification failed" in shell("head", f"journalctl -u {UNIT} -n 50")
        # those who can log in by other means see the host, and tell the controller's
        said = play(PRESENT)
        assert {name for name, counts in recap(said).items() if counts["changed"]} == {"head"}
        whole()
    finally:
        shell("node1", "mv /root/kept/* /etc/ssh/; rmdir /root/kept; systemctl reload ssh")
        play(PRESENT)


def test_nothing_is_left_after_a_stop() -> None:
    shell("head", f"systemctl stop {UNIT}")
    eventually(lambda: [left(name) for name in HOSTS] == [0, 0, 0], 15)


@pytest.mark.parametrize("what", ["ipcluster", "controller", "all", "host"])
def test_nothing_is_left_after_a_crash(what: str) -> None:
    """The engines that are there afterwards are others."""
    before = pids()
    if what == "host":
        engine_run("kill", container("head"))
        eventually(lambda: [left(name) for name in HOSTS[1:]] == [0, 0], 60)
        engine_run("start", container("head"))
    elif what == "controller":
        shell("head", f"pkill -9 -o -u {USER} -f '/lib/ipcontroller.py '")
    elif what == "all":
        shell("head", f"systemctl kill -s KILL {UNIT}")
    else:
        shell("head", f"kill -9 $(systemctl show -p MainPID --value {UNIT})")
    eventually(lambda: not pids().items() & before.items() and ids() == IDS, 90)
    eventually(lambda: [left(name) for name in HOSTS] == [RUNNING - 2, RUNNING, RUNNING], 15)


def test_a_holder_that_is_killed_leaves_no_engine_and_comes_back() -> None:
    shell("node1", "pkill -9 -u ipyfleet-lab -f '^/opt/[^ ]*python .*ipyfleet_engines.py'")
    whole()
    eventually(lambda: left("node1") == RUNNING, 15)


def test_an_engine_that_is_killed_comes_back_and_the_others_stay() -> None:
    before = pids()
    shell("node1", f"kill -9 {before['1']}")
    eventually(lambda: pids().keys() == before.keys() and pids()["1"] != before["1"], 60)
    assert {key for key, pid in pids().items() if pid != before[key]} == {"1"}


def test_a_host_that_is_away_keeps_nobody_waiting_and_is_used_when_it_is_back() -> None:
    engine_run("kill", container("node1"))
    shell("head", f"systemctl restart {UNIT}")
    eventually(lambda: ids() == [0, 3, 4], 60)
    engine_run("start", container("node1"))
    whole()


def test_ipcluster_by_hand() -> None:
    assert f"{NAME} " in shell("head", f"{IPCLUSTER} list")
    shell("head", f"{IPCLUSTER} stop --profile={NAME}")
    eventually(lambda: [left(name) for name in HOSTS] == [0, 0, 0], 30)
    # who stopped it meant it
    assert shell("head", f"systemctl is-active {UNIT}", check=False) == "inactive"
    shell("head", f"{IPCLUSTER} start --profile={NAME} --daemonize")
    whole()
    shell("head", f"{IPCLUSTER} stop --profile={NAME}")
    eventually(lambda: [left(name) for name in HOSTS] == [0, 0, 0], 30)


def test_a_change_restarts_the_engines_of_its_host_alone() -> None:
    before = pids()
    shell("node1", f"echo '# mine' >>/etc/ipyfleet/{NAME}/ipengine_config.py")
    said = play(PRESENT)
    assert said.returncode == 0, said.stdout
    after = pids()
    assert {key for key in after if after[key] != before[key]} == {"1", "2"}


def test_what_engines_have_started_ends_with_them_wherever_it_went() -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '4321'], start_new_session=True)"
    python("head", f"rc[1].execute({code!r}).get(10); print('null')")
    assert shell("node1", "pgrep -fc '[s]leep 4321'") == "1"
    shell("head", f"systemctl stop {UNIT}")
    eventually(lambda: shell("node1", "pgrep -fc '[s]leep 4321'", check=False) == "0", 30)


def test_engines_become_services_and_are_started_by_ssh_again() -> None:
    # a profile of their own is for engines that are started by ssh
    services = ("-e", '{"ipp_controller_launcher": "service", "ipp_engine_args": []}')
    said = play(PRESENT, *services)
    assert said.returncode == 0, said.stdout
    assert "fleet lab: 5 of 5 engine slots answered" in said.stdout
    for name in HOSTS:
        assert shell(name, f"pgrep -u {USER} -fc ipyfleet_engines.py", check=False) == "0"
        assert shell(name, f"ls -d {STATE}/.ssh {STATE}/ssh_key 2>/dev/null", check=False) == ""
        assert shell(name, f"getent passwd {USER}").endswith("nologin")
    again = play(PRESENT, *services)
    assert not any(counts["changed"] for counts in recap(again).values())
    said = play(PRESENT)
    assert said.returncode == 0, said.stdout
    assert "fleet lab: 5 of 5 engine slots answered" in said.stdout
    for name in HOSTS:
        assert shell(name, f"systemctl list-units --all --plain --no-legend 'ipyfleet-{NAME}-engine@*'") == ""


def test_a_host_that_is_down_is_named() -> None:
    said = play()
    assert said.returncode != 0
    assert "fleet lab: 5 of 6 engine slots answered" in said.stdout
    assert "gone is unreachable and left out: " in said.stdout + said.stderr


def test_the_key_is_where_it_belongs() -> None:
    found = {name: shell(name, f"ls {STATE}/ssh_key {STATE}/.ssh/authorized_keys 2>/dev/null", check=False).split() for name in HOSTS}
    assert found == {"head": [f"{STATE}/ssh_key"], "node1": [f"{STATE}/.ssh/authorized_keys"], "node2": [f"{STATE}/.ssh/authorized_keys"]}
    assert shell("head", f"stat -c '%U %a' {STATE}/ssh_key") == f"{USER} 600"
    assert os.path.basename(ENGINE_FILE) in shell("node1", f"ls {PROFILE}/security")
