"""The cluster works, as somebody sees who uses it."""

from __future__ import annotations

import pytest
from fleet import CLIENT_FILE, ENGINE_FILE, NAME, PROFILE, PYTHON, STATE, USER, host, members, play, python, shell

SLOTS = {0: "node1", 1: "node1", 2: "node2", 3: "node2"}


@pytest.mark.parametrize("client", ["head", "desk"])
def test_the_first_lines_of_every_notebook(client: str) -> None:
    assert python(client, 'print(json.dumps([rc.ids, rc[:].apply_sync(lambda: "Hello, World")]))') == [
        [0, 1, 2, 3],
        ["Hello, World"] * 4,
    ]


def test_engines_have_their_ids_for_ever() -> None:
    code = "import socket\nprint(json.dumps({number: rc[number].apply_sync(socket.gethostname) for number in rc.ids}))"
    assert python("head", code) == {str(number): name for number, name in SLOTS.items()}


def test_verify_says_so() -> None:
    said = play("--limit=localhost:all:!gone", playbook="playbooks/verify.yml")
    assert said.returncode == 0, said.stdout
    assert "fleet lab: 4 of 4 engine slots answered" in said.stdout


def test_status_says_so() -> None:
    said = play("--limit=localhost:all:!gone", playbook="playbooks/status.yml")
    assert said.returncode == 0, said.stdout
    assert "fleet lab: 4 of 4 engine slots registered with head" in said.stdout
    assert said.stdout.count("active (running)") == 5


def test_code_travels_and_data_stays() -> None:
    code = """
        import math
        view = rc[:]
        # not block=True: that waits for output too, of which a client that has just connected can miss the end
        view.execute("import os", block=False).get(30)
        view.push({"mark": 42}, block=True)
        balanced = rc.load_balanced_view().map_sync(math.factorial, range(20))
        broadcast = rc.broadcast_view().apply_sync(lambda: (os.uname().nodename, os.getpid()))
        print(json.dumps([view.pull("mark", block=True), sum(balanced), len(set(broadcast))]))
    """
    assert python("desk", code) == [[42] * 4, sum(__import__("math").factorial(n) for n in range(20)), 4]


@pytest.mark.parametrize("name", members("ipp_engine"))
def test_engine_hosts_have_a_unit_a_slot_that_starts_at_boot(name: str) -> None:
    for slot in (0, 1):
        service = host(name).service(f"ipyfleet-{NAME}-engine@{slot}")
        assert service.is_running
        assert service.is_enabled
    assert host(name).service(f"ipyfleet-{NAME}.target").is_enabled
    assert not host(name).service(f"ipyfleet-{NAME}-engine@2").is_running


def test_the_controller_has_one() -> None:
    service = host("head").service(f"ipyfleet-{NAME}-controller")
    assert service.is_running
    assert service.is_enabled


@pytest.mark.parametrize("name", [*members("ipp_controller"), *members("ipp_engine")])
def test_services_run_as_nobody_in_particular(name: str) -> None:
    user = host(name).user(USER)
    assert user.shell.endswith("nologin")
    assert user.uid < 1000
    assert user.groups == [USER]
    owners = shell(name, "ps -eo user:32,args | grep '[/]opt/ipyfleet' | cut -d' ' -f1 | sort -u").split()
    assert owners == [USER]


@pytest.mark.parametrize(
    ("name", "path", "owner", "mode"),
    [
        ("head", CLIENT_FILE, USER, 0o600),
        ("head", ENGINE_FILE, USER, 0o600),
        ("head", f"{PROFILE}/security/curve.json", USER, 0o600),
        ("node1", ENGINE_FILE, USER, 0o600),
        ("node1", f"{PROFILE}/security", USER, 0o700),
        ("node1", STATE, USER, 0o750),
        ("node1", f"/etc/ipyfleet/{NAME}/engine-0.json", "root", 0o640),
        ("desk", f"/root/.ipython/profile_{NAME}/security/ipcontroller-client.json", "root", 0o600),
    ],
)
def test_keys_are_for_those_who_need_them(name: str, path: str, owner: str, mode: int) -> None:
    entry = host(name).file(path)
    assert (entry.user, entry.mode) == (owner, mode)


@pytest.mark.parametrize("name", members("ipp_engine"))
def test_engine_hosts_get_the_engine_s_file_only(name: str) -> None:
    assert shell(name, "find / -xdev -name 'ipcontroller-*.json' -o -xdev -name curve.json").split() == [ENGINE_FILE]


def test_client_hosts_get_the_client_s_file_only() -> None:
    found = shell("desk", "find / -xdev -name 'ipcontroller-*.json' -o -xdev -name curve.json").split()
    assert found == [f"/root/.ipython/profile_{NAME}/security/ipcontroller-client.json"]
    assert shell("desk", f"systemctl list-units --plain --no-legend 'ipyfleet-{NAME}-*'") == ""


def test_hosts_needed_no_package_and_no_index() -> None:
    for name in ("head", "node1", "desk"):
        installed = shell(name, "dpkg -l python3-venv python3-pip 2>/dev/null | grep ^ii; ls /root/.cache 2>/dev/null", check=False)
        assert installed == ""
        assert shell(name, f"{PYTHON} -c 'import sys; print(sys.prefix)'") == f"/opt/ipyfleet/{NAME}/env"


def test_bytecode_came_along() -> None:
    assert int(shell("node1", f"find -L /opt/ipyfleet/{NAME}/env/lib -name '*.pyc' | wc -l")) > 1000
