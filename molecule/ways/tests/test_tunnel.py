"""Engines on a host from which only ssh leads to the controller."""

from __future__ import annotations

import json

from fleet import INVENTORY, NAME, USER, eventually, main_pids, python, shell
from ways import addresses, command, is_open_from

FAR = 3
TUNNEL = f"ipyfleet-{NAME}-tunnel"
ENGINE_FILE = f"/var/lib/ipyfleet/{NAME}/ipython/profile_{NAME}/security/ipcontroller-engine.json"
DOOR = f"ipyengines-{NAME}"
LOGIN = f"ssh -F /etc/ipyfleet/{NAME}/ssh_config -l {DOOR} head.cluster"


def on_far(command: str) -> str:
    """What the fleet's user on the host says to a command, and what goes wrong."""
    return shell("far", f"runuser -u {USER} -- sh -c '{command}' 2>&1", check=False)


def answers() -> bool:
    """Whether the engine runs code."""
    try:
        return bool(python("head", f"print(json.dumps(rc[{FAR}].apply_async(lambda: 'Hello, World').get(5) == 'Hello, World'))"))
    except AssertionError:
        return False


def test_the_direct_way_is_closed_and_the_engine_answers() -> None:
    ports = [value for value in json.loads(shell("far", f"cat {ENGINE_FILE}")).values() if type(value) is int]
    assert len(ports) > 5
    for address in addresses("head").values():
        assert not any(is_open_from("far", address, port) for port in ports)
    assert is_open_from("far", addresses("head")["cluster"], 22)
    # while others take it
    assert all(is_open_from("node1", addresses("head")["cluster"], port) for port in ports)
    assert answers()
    # on the host, nobody but itself gets to the controller through it
    listening = [line.split()[3].rpartition(":") for line in shell("far", "ss -Hltn").splitlines()]
    assert {address for address, _, port in listening if int(port) in ports} == {"127.0.0.1"}


def test_the_key_opens_the_ports_of_engines_and_nothing_else() -> None:
    client = json.loads(shell("head", f"cat /root/.ipython/profile_{NAME}/security/ipcontroller-client.json"))
    assert on_far(f"{LOGIN} id") == "This account is currently not available."
    for place in (f"head.cluster:{client['task']}", "localhost:22"):
        assert on_far(f"{LOGIN} -N -W {place}") == "stdio forwarding failed"
    assert "forwarding failed" in on_far(f"timeout 5 {LOGIN} -N -o ExitOnForwardFailure=yes -R 4444:localhost:22")
    assert shell("head", f"getent passwd {DOOR} | cut -d: -f7").endswith("nologin")


def test_an_ssh_that_ends_comes_back_and_the_engine_keeps_its_memory() -> None:
    python("head", f"rc[{FAR}].push({{'mark': 42}}).get(5); print('null')")
    before = main_pids()
    shell("far", f"systemctl kill -s KILL {TUNNEL}")
    eventually(answers)
    assert python("head", f"print(json.dumps(rc[{FAR}].pull('mark').get(5)))") == 42
    assert {name for name, pid in main_pids().items() if pid != before[name]} == {f"far {TUNNEL}.service"}


def test_a_controller_that_was_killed_finds_it_with_its_memory() -> None:
    python("head", f"rc[{FAR}].push({{'mark': 43}}).get(5); print('null')")
    shell("head", f"systemctl kill -s KILL ipyfleet-{NAME}-controller")
    eventually(answers)
    assert python("head", f"print(json.dumps(rc[{FAR}].pull('mark').get(5)))") == 43


def test_a_host_key_that_changed_is_refused() -> None:
    shell("head", "mkdir /root/kept; mv /etc/ssh/ssh_host_* /root/kept; ssh-keygen -A; systemctl reload ssh")
    try:
        assert "Host key verification failed" in on_far(f"{LOGIN} -N")
        shell("far", f"systemctl restart {TUNNEL} ipyfleet-{NAME}-engine@0")
        eventually(lambda: "Host key verification failed" in command("status", "-i", str(INVENTORY)).stdout, 120)
    finally:
        shell("head", "rm /etc/ssh/ssh_host_*; mv /root/kept/* /etc/ssh/; rmdir /root/kept; systemctl reload ssh")
    # starts that failed quickly are a minute apart in the end
    eventually(answers, 150)
