"""Jump hosts that do not lead on, and locations that do not lead to the controller: said in one line, with nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import EPHEMERAL, INVENTORY, play, shell
from ways import addresses, command

CONFIG = "/etc/ssh/sshd_config.d/ways.conf"
WAITING = "nothing works without the controller's host"


@pytest.fixture
def sockets(tmp_path: Path) -> list[str]:
    """Words with which no connection of before is used."""
    return ["-e", f"ansible_control_path_dir={tmp_path}"]


def refusal(says: str, *words: str, sources: tuple[Path, ...] = (INVENTORY,)) -> None:
    said = play(*words, playbook="playbooks/validate.yml", sources=sources)
    assert said.returncode != 0
    assert says in " ".join((said.stdout + said.stderr).split()), said.stdout + said.stderr


@pytest.fixture
def no_forwarding() -> Iterator[None]:
    shell("jump", f"echo 'AllowTcpForwarding no' >{CONFIG}")
    yield
    shell("jump", f"rm {CONFIG}")


@pytest.mark.usefixtures("no_forwarding")
def test_a_jump_host_that_does_not_forward(sockets: list[str]) -> None:
    says = "expected the jump host to lead on, got refused; see AllowTcpForwarding and PermitOpen of its sshd"
    refusal(f"head: {says}; {WAITING}", *sockets)
    assert f"head: {says}" in " ".join(command("connect", str(INVENTORY)).stderr.split())


@pytest.fixture
def nobody_let_in() -> Iterator[None]:
    shell("jump", "mv /home/hop/.ssh /home/hop/away")
    yield
    shell("jump", "mv /home/hop/away /home/hop/.ssh")


@pytest.mark.usefixtures("nobody_let_in")
def test_a_jump_host_that_lets_nobody_in(sockets: list[str]) -> None:
    says = "expected the jump host to let us in with a key, got refused; check its user and key, in ~/.ssh/config"
    refusal(f"head: {says}; {WAITING}", *sockets)
    assert f"head: {says}" in " ".join(command("connect", str(INVENTORY)).stderr.split())


def test_the_key_of_the_jump_host_is_checked(sockets: list[str], tmp_path: Path) -> None:
    text = (EPHEMERAL / "ssh_config").read_text().replace(f'"{EPHEMERAL}/known_hosts"', "")
    (tmp_path / "config").write_text(text)
    way = {"ansible_ssh_common_args": f"-F {tmp_path}/config -o ProxyJump=jump"}
    (tmp_path / "zz.yml").write_text(json.dumps({"all": {"hosts": {"head": way}}}))
    says = "expected a host key of the jump host that is known, got an unknown one; log in to it once by ssh to accept it"
    refusal(f"head: {says}; {WAITING}", *sockets, sources=(INVENTORY, tmp_path / "zz.yml"))


def test_a_port_on_which_nothing_listens_behind_the_jump_host(sockets: list[str], tmp_path: Path) -> None:
    (tmp_path / "zz.yml").write_text(json.dumps({"all": {"hosts": {"node1": {"ansible_port": 22}}}}))
    says = "node1 is unreachable and left out: expected the jump host to reach it, got: Connection refused"
    refusal(says, *sockets, sources=(INVENTORY, tmp_path / "zz.yml"))


@pytest.mark.parametrize("how", ["name", "address"])
def test_a_location_on_the_network_that_is_closed_to_engines(how: str) -> None:
    location = {"name": "head.management", "address": addresses("head")["management"]}[how]
    says = f"node1: expected a way to the controller's location {location}, got: no answer in 5 s; open ports"
    # the desk is not on that network
    refusal(says, "-e", f"ipp_controller_location={location}", "--limit=!desk")


def test_an_address_to_listen_on_that_is_another_host_s() -> None:
    other = addresses("node1")["cluster"]
    refusal(
        f"expected the controller's address {other} to be one of this host, got one that is not; correct ip",
        "-e",
        f"ipp_controller_ip={other}",
    )
