"""What tests of scenarios have in common: hosts, playbooks, and code that runs on a host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import testinfra
import yaml

ROOT = Path(__file__).resolve().parents[2]
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = EPHEMERAL / "inventory"
SCENARIO = os.environ["MOLECULE_SCENARIO_NAME"]
ENGINE = os.environ.get("IPYFLEET_LAB_ENGINE", "podman")
# clones that test on one machine at the same time need one each
PREFIX = os.environ.get("LAB_PREFIX", "lab")
NAME = "lab"
SYSTEM = yaml.safe_load((ROOT / "molecule" / SCENARIO / "inventory" / "lab.fleet.yml").read_text()).get("scope") != "user"
# who has everything, in scope user
LOGIN = "ada"
OWN = f"/home/{LOGIN}/.local/share/ipyfleet/{NAME}"
PYTHON = f"/opt/ipyfleet/{NAME}/env/bin/python" if SYSTEM else f"{OWN}/env/bin/python"
ETC = f"/etc/ipyfleet/{NAME}" if SYSTEM else f"{OWN}/etc"
STATE = f"/var/lib/ipyfleet/{NAME}" if SYSTEM else f"{OWN}/var"
PROFILE = f"{STATE}/ipython/profile_{NAME}"
CLIENT_FILE = f"{PROFILE}/security/ipcontroller-client.json"
ENGINE_FILE = f"{PROFILE}/security/ipcontroller-engine.json"
USER = f"ipyfleet-{NAME}" if SYSTEM else LOGIN
WATCHDOG = f"ipyfleet-{NAME}-watchdog.service"
# who logs in, and has the client's file
CLIENT = "root" if SYSTEM else LOGIN
# programs of scope user that run for long
PROGRAMS = "supervisor.supervisord|ipyfleet_unit.py|lib/ipcontroller.py|lib/ipengine.py|lib/ipyfleet_watch.py|-m jupyterlab"


def host(name: str) -> Any:
    """A host of the scenario, over SSH."""
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


@cache
def inventory() -> dict[str, Any]:
    """What `ansible-inventory --list` says."""
    said = subprocess.run(["ansible-inventory", "-i", str(INVENTORY), "--list"], capture_output=True, text=True, check=True, env=environ())
    return dict(json.loads(said.stdout))


def members(group: str) -> list[str]:
    """Hosts of a group that are there."""
    return [name for name in inventory()[group]["hosts"] if inventory()["_meta"]["hostvars"][name].get("lab_release") != "down"]


def environ(**more: str) -> dict[str, str]:
    """Environment of Ansible's commands: the project's own configuration."""
    return {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **more}


def play(
    *arguments: str, playbook: str = "site.yml", sources: tuple[Path, ...] = (INVENTORY,), **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the clone as ops do.

    :param more: of the environment.
    """
    given = [word for source in sources for word in ("-i", str(source))]
    command = ["ansible-playbook", *given, playbook, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environ(**more))


def recap(said: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """Counts of a playbook's run by host."""
    lines = re.findall(r"^(\S+)\s+: (ok=.*)$", said.stdout, re.MULTILINE)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)} for name, counts in lines}


def secrets() -> dict[str, str]:
    """The fleet's keys."""
    return dict(json.loads((INVENTORY / ".ipyfleet" / NAME / "secrets.json").read_text()))


def engine_run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the container engine."""
    return subprocess.run([ENGINE, *arguments], capture_output=True, text=True, check=check, timeout=120)


def container(name: str) -> str:
    """The container of a host."""
    return f"{PREFIX}-{SCENARIO}-{name}"


def shell(name: str, command: str, check: bool = True) -> str:
    """Run a command on a host, not over SSH; returns what it printed."""
    return engine_run("exec", container(name), "sh", "-c", command, check=check).stdout.strip()


def python(name: str, code: str, user: str = CLIENT, timeout: float = 90) -> Any:
    """Run code with the fleet's Python on a host; returns what it printed, read as JSON.

    `rc` is a client that is connected as anybody on a client host would.
    """
    begin = f"import ipyparallel as ipp, json, os\nrc = ipp.Client(profile={NAME!r}, timeout=20)\n"
    return python_alone(name, begin + textwrap.dedent(code), user=user, timeout=timeout)


def python_alone(name: str, code: str, program: str = PYTHON, user: str = CLIENT, timeout: float = 90) -> Any:
    """Run code with a Python on a host; returns what it printed, read as JSON."""
    home = "/root" if user == "root" else f"/home/{user}"
    command = [ENGINE, "exec", "-i", "-u", user, "-e", f"HOME={home}", container(name), program, "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def answer(ids: list[int], seconds: float = 5) -> bool:
    """Whether these engines and no others are there, and run code; what is sent while one comes back may be lost."""
    code = f"print(json.dumps(rc.ids == {ids} and rc[{ids}].apply_async(int).get(timeout={seconds}) == {[0] * len(ids)}))"
    try:
        return bool(python("head", code))
    except AssertionError:
        return False


def command(*words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """What somebody gets who types `ipyfleet` and these words."""
    more = environ(PYTHONPATH=str(ROOT / "src"))
    return subprocess.run([sys.executable, "-m", "ipyfleet", *words], capture_output=True, text=True, check=check, env=more)


def main_pids() -> dict[str, str]:
    """Main processes of all units of the fleet but watchdogs, by host and unit; in scope user all processes that run for long."""
    found: dict[str, str] = {}
    for name in sorted({*members("ipp_controller"), *members("ipp_engine")}):
        if not SYSTEM:
            lines = shell(name, f"ps -u {LOGIN} -o pid=,lstart=,args= | grep -E -e '{PROGRAMS}'", check=False).splitlines()
            found |= {f"{name} {line.split()[0]}": line for line in lines}
            continue
        said = shell(name, f"systemctl show -p Id,MainPID,ExecMainStartTimestampMonotonic 'ipyfleet-{NAME}-*.service'")
        for block in said.split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines())
            if values and values["MainPID"] != "0" and values["Id"] != WATCHDOG:
                found[f"{name} {values['Id']}"] = f"{values['MainPID']} {values['ExecMainStartTimestampMonotonic']}"
    return found


def last_words(minutes: int = 4, lines: int = 12) -> list[str]:
    """What the fleet's units said of late on each host, and which connections they have."""
    journal = f"journalctl -q --no-pager -o short-precise -u 'ipyfleet-{NAME}-*' --since '-{minutes} min'"
    talk = "finished registering|client::client|submitted request"
    said = []
    for name in sorted({*members("ipp_controller"), *members("ipp_engine")}):
        words = shell(name, f"{journal} | grep -vE '{talk}' | tail -{lines}; ss -tnpH state established | grep -c python", check=False)
        said += [f"WORDS {name}: {line[:220]}" for line in words.splitlines()]
    return said


def eventually(condition: Callable[[], Any], seconds: float = 60) -> float:
    """Wait until a condition holds; returns the seconds that took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - begin
