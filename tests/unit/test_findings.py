"""What speaks against a deployment, from what was seen on the hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.findings import problems

FLEET = {
    "name": "lab",
    "scope": "system",
    "controller": "head",
    "location": "head.lab",
    "bind": "0.0.0.0",
    "secrets_dir": "/keys",
    "ports": {"first": 10000, "last": 10099},
}
SEEN: dict[str, Any] = {
    "python": "3.11",
    "interpreter": "/usr/bin/python3.11",
    "root": True,
    "systemd": True,
    "socket_too_long": False,
    "free_mb": {"root": 9000, "state": 9000},
    "mounted": {"/opt/ipyfleet/lab": "", "/etc/ipyfleet/lab": ""},
    "location": {"addresses": ["10.0.0.5"]},
    "no_such_user": [],
    "foreign": [],
    "other_secrets": [],
    "refused": [],
}


def judge(deployed: bool = True, need: int = 100, scope: str = "system", bind: str = "0.0.0.0", **hosts: dict[str, Any]) -> list[str]:
    facts = {host: SEEN | seen for host, seen in hosts.items()}
    return problems(FLEET | {"scope": scope, "bind": bind}, facts, deployed, dict.fromkeys(facts, need))


def test_healthy_hosts_have_none() -> None:
    assert judge(head={"taken": [], "others": []}, n1={}, n2={}) == []


def test_mixed_python_versions_are_one_sentence_that_says_what_to_do() -> None:
    assert judge(head={}, n1={}, n2={"python": "3.13"}) == [
        "expected one version of Python on all hosts, because code travels between them, got 3.11 on head, n1; 3.13 on n2;"
        " set ipp_node_python on the odd ones, or leave them out"
    ]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (
            {"python": "3.9"},
            "n1: expected Python 3.10 or newer, got 3.9 at /usr/bin/python3.11; install one and name it in ipp_node_python",
        ),
        ({"python": None}, "n1: expected a Python at /usr/bin/python3.11, got nothing that runs; check ipp_node_python"),
        ({"root": False}, "n1: expected to be root, got another user; set ansible_become, or scope: user"),
        ({"systemd": False}, "n1: expected systemd, got a host without it; use scope: user"),
        (
            {"mounted": {"/opt/ipyfleet/lab": "noexec"}},
            "n1: expected a file system at /opt/ipyfleet/lab that can be written and run from, got one that is mounted noexec",
        ),
        ({"free_mb": {"root": 50, "state": 500}}, "n1: expected 100 MB free for the root folder, got 50 MB"),
        (
            {"location": {"addresses": [], "error": "Name or service not known"}},
            "n1: expected the controller's location head.lab to resolve, got: Name or service not known;"
            " set controller: {host: ..., location: NAME} to one that does",
        ),
        (
            {"location": {"addresses": ["127.0.1.1"]}},
            "n1: expected the controller's location head.lab to lead to it, got 127.0.1.1;"
            " set controller: {host: ..., location: NAME} to one that does",
        ),
        (
            {"location": {"addresses": ["10.0.0.5"], "no_way": "no answer in 5 s"}},
            "n1: expected a way to the controller's location head.lab, got: no answer in 5 s;"
            " open ports 10000 to 10099 in firewalls between,"
            " or set controller: {host: ..., location: NAME} to one that leads there",
        ),
        ({"no_such_user": ["eve"]}, "n1: expected the user eve of ipp_client_users, got no such user"),
        ({"refused": ["postgresql_settings.jit: no"]}, "n1: postgresql_settings.jit: no"),
        ({"foreign": ["/x"]}, "n1: /x is not of this fleet; move it away, or give the fleet another name"),
        ({"socket_too_long": True}, "n1: expected a shorter home folder: the path of supervisord's socket exceeds 107 characters"),
    ],
)
def test_a_problem_of_a_host(seen: dict[str, Any], expected: str) -> None:
    assert judge(n1=seen) == [expected]


def test_scope_user_needs_neither_root_nor_systemd() -> None:
    assert judge(scope="user", n1={"root": False, "systemd": False}) == []


def test_hosts_of_scope_user_do_not_share_their_home() -> None:
    assert judge(scope="user", head={"server": "nas:/home"}, n1={"server": "nas:/scratch"}, n2={"server": ""}, n3={"server": ""}) == []
    assert judge(scope="user", head={"server": "nas:/home"}, n1={"server": ""}, n2={"server": "nas:/home"}) == [
        "expected a home folder of each host's own, got one from nas:/home on head, n2;"
        " log in as a user whose home is local, or use scope: system"
    ]


def test_the_controller_may_resolve_its_own_name_to_loopback() -> None:
    assert judge(head={"location": {"addresses": ["127.0.1.1"]}}) == []


def test_a_location_on_another_network_than_the_controller_listens_on() -> None:
    head = {"addresses": ["10.0.0.5", "10.1.0.5"]}
    assert judge(bind="10.0.0.5", head=head, n1={}) == []
    assert judge(bind="10.1.0.5", head=head, n1={}) == [
        "n1: expected the controller's location head.lab to lead to 10.1.0.5, on which alone it listens, got 10.0.0.5;"
        " correct location or ip of the controller"
    ]
    # one that is translated on the way
    assert judge(bind="10.1.0.5", head={"addresses": ["10.1.0.5"]}, n1={}) == []


def test_an_address_to_listen_on_has_to_be_one_of_the_controller_s_host() -> None:
    wrong = ["head: expected the controller's address 10.1.0.6 to be one of this host, got one that is not; correct ip"]
    assert judge(bind="10.1.0.6", head={"addresses": ["10.0.0.5", "10.1.0.5"]}) == wrong
    assert judge(bind="127.0.0.1", head={"addresses": ["10.0.0.5"]}) == judge(bind="10.1.0.6", head={"addresses": []}) == []


def test_taken_ports_name_who_has_them() -> None:
    taken = [{"port": 10000 + n, "pid": 812, "command": "nginx", "reason": "Address already in use"} for n in range(4)]
    assert judge(head={"taken": taken}) == [
        "head: expected ports 10000 to 10099 to be free, got 10000, 10001, 10002, ... taken: nginx (pid 812); set ports: to another block"
    ]
    unknown = [{"port": 10000, "pid": None, "command": "", "reason": "Address already in use"}]
    assert judge(head={"taken": unknown}) == [
        "head: expected ports 10000 to 10099 to be free, got 10000 taken: Address already in use; set ports: to another block"
    ]


def test_another_fleet_s_ports() -> None:
    other = {"name": "test", "first": 10050, "last": 10149}
    assert judge(head={"others": [other]}) == [
        "head: expected ports 10000 to 10099 for this fleet alone, got fleet test with 10050 to 10149; set ports: to another block"
    ]
    assert judge(head={"others": [{"name": "test", "first": 10100, "last": 10199}]}) == []


def test_keys_that_were_lost_are_not_replaced() -> None:
    (text,) = judge(deployed=False, head={"other_secrets": ["/var/lib/x.json"]})
    assert text.startswith("head: /var/lib/x.json has other keys than /keys: this fleet was deployed from elsewhere")
    assert judge(deployed=True, head={"other_secrets": ["/var/lib/x.json"]}) == []


def test_problems_of_all_hosts_are_told_together() -> None:
    found = judge(head={"systemd": False}, n1={"root": False}, n2={"python": "3.8"})
    assert [text.split(":")[0] for text in found] == ["head", "n1", "n2"]


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("/", ""),
        ("/home/ada", "nas:/export/home"),
        ("/home/bob", ""),
        ("/homework", ""),
    ],
)
def test_what_server_a_folder_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, server: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:44 / /home rw shared:2 - nfs4 nas:/export/home rw,addr=10.0.0.9\n"
        "31 30 8:2 / /home/bob rw - xfs /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(fleet_facts, "standing", lambda each: each)
    assert fleet_facts.server_of(path, str(mounts)) == server
