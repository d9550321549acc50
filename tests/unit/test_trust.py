"""Hosts of a fleet that log in to each other: who does, what they know of each other, and what their keys open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import trust
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import FleetState, SecretStore, StoreError, public_of
from conftest import rendered

GROUPS = {"ipp_controller": ["head"], "ipp_engine": ["head", "n1", "n2"]}
PLACES = {
    "env": "/opt/env",
    "lib": "/opt/lib",
    "etc": "/etc/x",
    "state": "/var/x",
    "security": "/s",
    "profile": "/p",
    "work": "/w",
    "service": "svc",
    "ipython": "/i",
}
KEY = "ssh-ed25519 AAAA"


def described(variables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A fleet as far as it is about logins."""
    hosts = {host: {"fleet_name": "lab", **variables.get(host, {})} for host in GROUPS["ipp_engine"]}
    assert list(trust.problems(GROUPS, hosts)) == []
    found = trust.describe(GROUPS, hosts)
    known = {
        "head": {"keys": [KEY + "h"], "from": ["10.0.0.1"]},
        "n1": {"keys": [KEY + "1"], "from": ["10.0.0.2"]},
        "n2": {"keys": [], "from": []},
    }
    fleet = {
        "launcher": trust.launcher_of(GROUPS, hosts),
        "tunnelled": trust.tunnelled(GROUPS, hosts),
        "trust": found and found | {"known": known},
    }
    slots = {"head": 1, "n1": 2, "n2": 2}
    return fleet | {
        "name": "lab",
        "controller": "head",
        "locks": {},
        "hosts": {host: {"slots": list(range(slots[host]))} for host in hosts},
    }


BY_SSH: dict[str, dict[str, Any]] = {
    "head": {"ipp_controller_launcher": "ssh", "ipp_controller_location": "head.lab"},
    "n2": {"ansible_host": "10.1.1.2", "ansible_port": 2222},
}
BY_MPI: dict[str, dict[str, Any]] = {host: {"ipp_engine_launcher": "mpi"} for host in GROUPS["ipp_engine"]}
FAR: dict[str, dict[str, Any]] = {"n1": {"ipp_engine_tunnel": "ssh"}, "head": {"ipp_controller_location": "head.lab"}}


def test_nobody_logs_in_anywhere_unless_asked_for() -> None:
    assert described({})["trust"] is None


def test_the_controller_s_host_logs_in_to_those_of_engines() -> None:
    fleet = described(BY_SSH)
    assert fleet["trust"]["logins"] == {"head": ["n1", "n2"]}
    assert fleet["trust"]["targets"] == {"n1": {"address": "n1", "port": 22}, "n2": {"address": "10.1.1.2", "port": 2222}}
    assert trust.known_hosts(fleet["trust"], "head") == [f"n1 {KEY}1"]
    assert trust.sources(fleet["trust"], "n1") == "10.0.0.1"
    assert trust.known_hosts(fleet["trust"], "n1") == []


def test_engines_behind_a_tunnel_log_in_to_the_controller_s_host() -> None:
    fleet = described(FAR)
    assert fleet["tunnelled"] == ["n1"]
    assert fleet["trust"]["logins"] == {"n1": ["head"]}
    assert fleet["trust"]["targets"] == {"head": {"address": "head.lab", "port": 22}}
    assert trust.sources(fleet["trust"], "head") == "10.0.0.2"


def test_what_is_set_by_hand_wins_over_what_is_found_out() -> None:
    fleet = described(BY_SSH | {"head": {"ipp_controller_launcher": "ssh", "ipp_node_ssh_from": "192.0.2.0/24, 10.9.9.9"}})
    assert trust.sources(fleet["trust"], "n1") == "10.9.9.9,192.0.2.0/24"


CLASHES: list[tuple[dict[str, dict[str, Any]], str]] = [
    (
        {"n1": {"ipp_engine_launcher": "mpi"}},
        "head: ipp_engine_launcher: expected mpi, which n1 has, got service; MPI has all engines or none",
    ),
    (
        BY_MPI | {"head": BY_MPI["head"] | {"ipp_controller_launcher": "ssh"}},
        "head: ipp_controller_launcher: expected service with engines that MPI starts, got ssh",
    ),
    (
        BY_MPI | {"n1": BY_MPI["n1"] | {"ipp_engine_args": ["--debug"]}},
        "n1: ipp_engine_args: expected those of head, as MPI starts all alike, got ['--debug']",
    ),
    (
        {"head": {"ipp_controller_launcher": "ssh"}, "n1": {"ipp_engine_tunnel": "ssh"}},
        "n1: ipp_engine_tunnel: expected none with engines that ipcluster starts, got ssh",
    ),
    (
        {"n1": {"ipp_engine_tunnel": "ssh", "ipp_node_ssh_from": "10.0.0.300"}},
        "n1: ipp_node_ssh_from: expected addresses or networks, separated by commas, got '10.0.0.300'",
    ),
    (
        BY_SSH | {"n1": {"ansible_host": "gate"}, "n2": {"ansible_host": "gate", "ansible_port": 2222}},
        "n2: ipp_engine_location: expected an address of its own, got gate, which n1 has as well",
    ),
    (
        {"n1": {"ipp_engine_args": ["--debug", "--profile-dir=/x"]}},
        "n1: ipp_engine_args: expected no other profile, unless ipcluster starts the engines, got --profile-dir=/x",
    ),
    (
        BY_SSH | {"n1": {"ipp_node_user": "ops"}},
        "n1: ipp_node_user: expected the default, as on head, got ops",
    ),
    (
        FAR | {"head": {"ipp_controller_tunnel_user": "door"}},
        "n1: ipp_controller_tunnel_user: expected door, as on head, got the default",
    ),
    (
        BY_SSH | {"n1": {"ipp_engine_gpus": 2, "ipp_engine_gpu_variable": "ROCR_VISIBLE_DEVICES"}},
        "n1: ipp_engine_gpu_variable: expected CUDA_VISIBLE_DEVICES for engines that are no services, got ROCR_VISIBLE_DEVICES",
    ),
]


@pytest.mark.parametrize(("variables", "expected"), CLASHES)
def test_what_does_not_go_together(variables: dict[str, dict[str, Any]], expected: str) -> None:
    hosts = {host: {"fleet_name": "lab", **variables.get(host, {})} for host in GROUPS["ipp_engine"]}
    assert list(trust.problems(GROUPS, hosts)) == [expected]


@pytest.mark.parametrize("variables", [BY_SSH, BY_MPI, FAR])
def test_it_is_for_scope_system(variables: dict[str, dict[str, Any]]) -> None:
    hosts = {host: {"fleet_name": "lab", "fleet_scope": "user", **variables.get(host, {})} for host in GROUPS["ipp_engine"]}
    (problem,) = trust.problems(GROUPS, hosts)
    assert "is for scope system, got scope user" in problem


# -- the key


def test_the_key_is_made_once_and_is_one_of_openssh_s(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "keys", lambda path: Path(path).read_text())
    assert store.create_login_key(dry=True) != ""
    assert store.login_key() == ""
    made = store.create_login_key()
    assert store.create_login_key() == store.login_key() == made
    assert made.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert public_of(made).startswith("ssh-ed25519 AAAA")
    assert (tmp_path / "keys" / "ssh.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "keys" / "ssh.json").write_text('{"private": "nonsense"}')
    with pytest.raises(StoreError, match="expected a private key of OpenSSH's"):
        store.login_key()


def test_what_hosts_said_of_themselves_is_remembered(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "keys", lambda path: Path(path).read_text())
    state = FleetState(True, {"n1": [0]}, {}, {"n1": {"keys": [KEY], "from": []}})
    store.remember(state)
    assert store.state() == state


# -- what is written on hosts


def keys_of(text: str) -> str:
    """The line of a file of keys."""
    (line,) = (line for line in text.splitlines() if line and not line.startswith("#"))
    return line


def test_the_controller_s_key_starts_engines_and_nothing_else() -> None:
    secrets = {"login_public": KEY}
    line = keys_of(
        rendered("ipp_engine/authorized_keys.j2", fleet=described(BY_SSH), trust={"sources": "10.0.0.1"}, places=PLACES, secrets=secrets)
    )
    command = "/opt/env/bin/python /opt/lib/ipyfleet_engines.py --security=/s --etc=/etc/x --profile=/p --work=/w"
    assert line == f'restrict,from="10.0.0.1",command="{command}" {KEY} controller of fleet lab'
    line = keys_of(
        rendered("ipp_engine/authorized_keys.j2", fleet=described(BY_MPI), trust={"sources": "10.0.0.1"}, places=PLACES, secrets=secrets)
    )
    assert line == f'restrict,from="10.0.0.1" {KEY} controller of fleet lab'


def test_what_a_host_says_of_itself_is_written_nowhere_else_unless_it_is_a_key_or_an_address() -> None:
    said = {
        "keys": [KEY, "ssh-ed25519 AAAA\n* ssh-ed25519 BBBB", "# no key"],
        "from": ["10.0.0.2", '10.0.0.3",permitopen="*:*', "10.0.0.4\nssh-ed25519 AAAA"],
    }
    assert trust.learned({"n1": {"ssh": said}}) == {"n1": {"keys": [KEY], "from": ["10.0.0.2"]}}
    described_far = described(FAR)["trust"] | {
        "known": {"head": {"keys": said["keys"], "from": []}, "n1": {"keys": [], "from": said["from"]}}
    }
    assert trust.known_hosts(described_far, "n1") == [f"head.lab {KEY}"]
    assert trust.sources(described_far, "head") == "10.0.0.2"


def test_a_host_that_logs_in_from_nowhere_is_told() -> None:
    fleet = described(BY_SSH)["trust"]
    assert trust.unknown_sources(fleet) == []
    assert trust.unknown_sources(fleet | {"known": {}}) == ["head"]


@pytest.mark.parametrize(("bound", "target"), [("0.0.0.0", "127.0.0.1"), ("10.0.0.5", "10.0.0.5"), ("fd00::5", "[fd00::5]")])
def test_the_engines_key_opens_the_engines_ports_and_nothing_else(bound: str, target: str) -> None:
    fleet = described(FAR) | {"ports": {"engine": {"registration": 10000, "broadcast": [10007, 10008]}}}
    known = {"fleet": fleet, "trust": {"sources": "10.0.0.2"}, "secrets": {"login_public": KEY}, "ipp_controller_ip": bound}
    options = keys_of(rendered("ipp_controller/authorized_keys.j2", **known)).split(f" {KEY}")[0].split(",")
    assert options[:5] == ["restrict", "port-forwarding", 'command="/bin/false"', 'permitlisten="localhost:1"', 'from="10.0.0.2"']
    assert options[5:] == [f'permitopen="{target}:{port}"' for port in (10000, 10007, 10008)]


def test_ports_of_other_hosts_are_in_the_settings_of_ssh() -> None:
    text = rendered("ipp_node/ssh_config.j2", fleet=described(BY_SSH), inventory_hostname="head", places=PLACES)
    assert "Host 10.1.1.2\n    Port 2222\nHost *\n" in text
    assert "Host n1" not in text
    assert "StrictHostKeyChecking yes" in text
