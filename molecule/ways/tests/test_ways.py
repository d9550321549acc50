"""The short ways are closed, and everything goes the long one."""

from __future__ import annotations

import itertools
import json
import shlex

import pytest
from fleet import INVENTORY, NAME, python, shell
from ways import PORTS, addresses, command, is_open_from, is_open_here

from ipyfleet import Cluster
from ipyfleet.client import is_reachable

ENGINES = [0, 1, 2, 3]
FIRST_PORT = "registration"


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return Cluster(INVENTORY)


@pytest.mark.parametrize("name", PORTS)
def test_ssh_is_open_to_the_jump_host_alone(name: str) -> None:
    for address in addresses(name).values():
        assert not any(is_open_here(address, port) for port in (22, 2222))
    assert is_open_from("jump", addresses(name)["management"], PORTS[name])


def test_sshd_is_not_where_it_usually_is() -> None:
    assert not is_open_from("jump", addresses("node1")["management"], 22)


@pytest.mark.parametrize("name", PORTS)
def test_every_login_over_a_network_came_from_the_jump_host(name: str) -> None:
    said = shell(name, r"journalctl --no-pager -q | grep -Po 'Accepted publickey for \S+ from \K[0-9.]+' | sort -u")
    # those of the desk and of the host far to head are other tests'
    others = {addresses("desk")["cluster"], addresses("far")["cluster"]} if name == "head" else set()
    assert set(said.split()) - others == {addresses("jump")["management"]}


def test_the_jump_host_does_no_more_than_forward() -> None:
    assert shell("jump", "getent passwd hop | cut -d: -f7") == "/usr/sbin/nologin"
    assert shell("jump", "ls -d /opt/ipyfleet /etc/ipyfleet 2>/dev/null", check=False) == ""


@pytest.mark.parametrize("name", ["node1", "node2"])
def test_engines_reach_the_controller_on_the_cluster_s_network_alone(name: str, cluster: Cluster) -> None:
    info = cluster.access().info
    there = addresses("head")
    listening = shell("head", f"ss -Hltn 'sport = :{info[FIRST_PORT]}'").split()[3]
    assert listening == f"{there['cluster']}:{info[FIRST_PORT]}"
    assert is_open_from(name, there["cluster"], info[FIRST_PORT])
    assert not is_open_from(name, there["management"], info[FIRST_PORT])


def test_every_engine_answers_a_client_on_the_controller_s_host() -> None:
    assert python("head", 'print(json.dumps([rc.ids, rc[:].apply_sync(lambda: "Hello, World")]))') == [ENGINES, ["Hello, World"] * 4]


def test_a_client_on_this_machine_comes_through_both_hosts(cluster: Cluster) -> None:
    info = cluster.access().info
    assert not is_reachable(info)
    assert not is_open_here(addresses("head")["cluster"], info[FIRST_PORT])
    result = cluster.verify()
    assert result.ok, result.failures
    assert result.client
    assert (result.client.way, result.client.answered) == ("ssh", tuple(ENGINES))
    client = cluster.client()
    assert client[:].apply_sync(int, "42") == [42] * 4
    client.close()


def test_connect_comes_through_both_hosts(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        assert (connection.host, connection.over_ssh, connection.notes) == ("head", True, ())
        client = connection.client()
        assert client.ids == ENGINES
        client.close()


def test_what_connect_prints_has_the_jump_host_and_where_the_controller_listens() -> None:
    words = shlex.split(json.loads(command("connect", str(INVENTORY), "--print", "--json").stdout)["command"])
    assert "ProxyJump=jump" in words
    targets = [word.split(":")[2] for before, word in itertools.pairwise(words) if before == "-L"]
    assert set(targets) == {addresses("head")["cluster"]}


def test_verbs_come_through_the_jump_host() -> None:
    status = json.loads(command("status", "-i", str(INVENTORY), "--json").stdout)
    assert (status["status"], [slot["state"] for slot in status["slots"]]) == ("ok", ["listed"] * 4)
    logs = command("logs", "-i", str(INVENTORY), "-n", "1", "-l", "node1", "--json")
    assert {line["unit"] for line in json.loads(logs.stdout)["logs"]} == {"engine@0", "engine@1", "watchdog"}
    said = command("exec", "-i", str(INVENTORY), "-b", "--", "id -un; hostname")
    assert said.returncode == 0, said.stdout
    assert {f"{name}: {word}" for name in (*PORTS, "desk") for word in ("root", name)} <= set(said.stdout.splitlines())


@pytest.mark.parametrize("name", ["node1", "node2"])
def test_a_shell_comes_through_the_jump_host(name: str) -> None:
    assert command("ssh", name, "-i", str(INVENTORY), "--", "hostname").stdout == f"{name}\n"


def test_the_inventory_shows_no_password() -> None:
    said = command("inventory", "-i", str(INVENTORY), "--json").stdout
    reach = {host["name"]: host["reach"] for host in json.loads(said)["inventory"]}
    assert reach["node1"]["port"] == 2222
    assert reach["node2"]["user"] == "ops"
    assert "sesame" not in said
    assert NAME in said
