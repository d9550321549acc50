"""The cluster is closed to strangers, and its services to each other's hosts."""

from __future__ import annotations

import json
import subprocess

import pytest
from fleet import (
    CLIENT_FILE,
    ENGINE,
    ENGINE_FILE,
    EPHEMERAL,
    NAME,
    PROFILE,
    PYTHON,
    container,
    engine_run,
    inventory,
    play,
    python,
    secrets,
    shell,
)

UNITS = [("head", f"ipyfleet-{NAME}-controller.service"), ("node1", f"ipyfleet-{NAME}-engine@0.service")]


def ask(name: str, **changes: object) -> str:
    """What a stranger gets who has the client's file, but for some changes."""
    info = json.loads(shell("head", f"cat {CLIENT_FILE}")) | changes
    code = f"""
import sys
sys.path.insert(0, "/opt/ipyfleet/{NAME}/lib")
import json, ipyfleet_hub
hub = ipyfleet_hub.Hub(json.loads({json.dumps(info)!r}))
try:
    print("answer", sorted(hub.engines(timeout=3)))
except ipyfleet_hub.NoAnswerError:
    print("nothing")
"""
    return engine_run("exec", container(name), PYTHON, "-c", code).stdout.strip()


def test_who_has_the_file_is_answered() -> None:
    assert ask("desk").startswith("answer [0, 1, 2, 3]")


@pytest.mark.parametrize(
    "changes",
    [
        {"curve_serverkey": None},
        {"key": "0" * 64},
        {"curve_serverkey": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"},
        {"key": "", "curve_serverkey": None},
    ],
    ids=["plaintext", "another key", "another server key", "nothing at all"],
)
def test_strangers_get_nothing(changes: dict[str, object]) -> None:
    assert ask("desk", **changes) == "nothing"


def test_only_the_ports_of_the_plan_listen_and_internal_ones_on_loopback() -> None:
    sockets = [line.split()[3].rsplit(":", 1) for line in shell("head", "ss -tlnH").splitlines()]
    outside = sorted(int(port) for address, port in sockets if address == "0.0.0.0" and port != "22")
    inside = sorted(int(port) for address, port in sockets if address == "127.0.0.1")
    first = json.loads(shell("head", f"cat /etc/ipyfleet/{NAME}/fleet.json"))["first_port"]
    assert outside == [*range(first, first + 9), *range(first + 40, first + 46)]
    assert inside
    assert all(first + 50 <= port < first + 90 for port in inside)


SEARCH = """
import glob, os, subprocess, sys
key = sys.stdin.readline().strip().encode()
def has(path):
    try:
        with open(path, "rb") as stream:
            return key in stream.read()
    except OSError:
        return False
mine = {f"/proc/{os.getpid()}/{name}" for name in ("cmdline", "environ")}
for path in {*glob.glob("/proc/[0-9]*/cmdline"), *glob.glob("/proc/[0-9]*/environ")} - mine:
    if os.path.exists(path) and not os.access(path, os.R_OK):
        print("unreadable:", path)
    if has(path):
        print(path)
if key in subprocess.run(["journalctl", "--no-pager"], capture_output=True).stdout:
    print("journal")
for top in ("etc", "opt", "run", "tmp", "var", "root", "home", "usr/local"):
    for folder, _, names in os.walk(f"/{top}"):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path) and has(path):
                print(path)
"""


@pytest.mark.parametrize(
    ("name", "holders"),
    [
        ("head", [CLIENT_FILE, ENGINE_FILE, f"/root/.ipython/profile_{NAME}/security/ipcontroller-client.json"]),
        ("node1", [ENGINE_FILE]),
        ("desk", [f"/root/.ipython/profile_{NAME}/security/ipcontroller-client.json"]),
    ],
)
def test_keys_are_in_no_process_journal_or_file_but_their_own(name: str, holders: list[str]) -> None:
    assert search(name, secrets()["key"]) == sorted(holders)
    curve = [f"{PROFILE}/security/curve.json"] if name == "head" else []
    assert search(name, secrets()["curve_secret"]) == curve


def search(name: str, key: str) -> list[str]:
    """Where on a host a key is found; it is given by standard input, or the search would find itself."""
    # privileged: root of a container may not read other users' environments
    command = [ENGINE, "exec", "--privileged", "-i", container(name), "python3", "-c", SEARCH]
    said = subprocess.run(command, input=key + "\n", capture_output=True, text=True, check=True).stdout
    return sorted(said.split())


def test_the_control_node_keeps_them_to_itself() -> None:
    folder = EPHEMERAL / "inventory" / ".ipyfleet" / NAME
    assert oct(folder.stat().st_mode)[-3:] == "700"
    assert oct((folder / "secrets.json").stat().st_mode)[-3:] == "600"
    assert secrets()["key"] not in json.dumps(inventory())


def test_no_output_has_them_however_verbose() -> None:
    said = play("--limit=node1:head", "--diff", "-vvvv")
    assert said.returncode == 0, said.stdout[-3000:]
    for key in (secrets()["key"], secrets()["curve_secret"]):
        assert key not in said.stdout + said.stderr


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_units_are_exposed_to_little(name: str, unit: str) -> None:
    line = next(line for line in shell(name, "systemd-analyze security --no-pager").splitlines() if line.startswith(unit))
    assert float(line.split()[1]) <= 2.0


@pytest.mark.parametrize(("name", "unit"), UNITS)
def test_unit_files_are_valid(name: str, unit: str) -> None:
    assert shell(name, f"systemd-analyze verify {unit} 2>&1") == ""


def test_what_runs_on_an_engine_can_do_little_to_its_host() -> None:
    code = """
        def trial():
            import os, socket, subprocess
            def refused(action):
                try:
                    action()
                except OSError as error:
                    return error.__class__.__name__
                return "allowed"
            status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
            return {
                "write to /etc": refused(lambda: open("/etc/trial", "w")),
                "write to /opt": refused(lambda: open("/opt/ipyfleet/trial", "w")),
                "change its own configuration": refused(lambda: open("/etc/ipyfleet/lab/ipengine_config.py", "a")),
                "look at homes": [refused(lambda: os.listdir("/home")), refused(lambda: os.listdir("/root"))],
                "open a raw socket": refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
                "see others' processes": [pid for pid in os.listdir("/proc") if pid == "1"],
                "capabilities": status["CapEff"].strip(),
                "new privileges": status["NoNewPrivs"].strip(),
                "seccomp": status["Seccomp"].strip(),
                "write to its work folder": refused(lambda: open("trial", "w")),
                "cwd": os.getcwd(),
            }
        print(json.dumps(rc[0].apply_sync(trial)))
    """
    assert python("head", code) == {
        "write to /etc": "OSError",
        "write to /opt": "OSError",
        "change its own configuration": "PermissionError",
        "look at homes": ["PermissionError", "PermissionError"],
        "open a raw socket": "PermissionError",
        "see others' processes": [],
        "capabilities": "0000000000000000",
        "new privileges": "1",
        "seccomp": "2",
        "write to its work folder": "allowed",
        "cwd": f"/var/lib/ipyfleet/{NAME}/work",
    }
