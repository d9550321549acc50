"""The inventory plugin engines, with a real controller on loopback and Ansible's own command."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.loader import inventory_loader
from ipcontroller import FIRST_GUEST
from test_controller import Cluster, eventually
from test_inventory_plugin import command

FLEET = """
plugin: ipyfleet.cluster.fleet
name: test
scope: user
controller: {{host: localhost, location: {name}, ip: 127.0.0.1}}
engines: {{localhost: 1, far: 1}}
ports: {port}
"""


class Lab:
    """A fleet's folder, and the controller that its files are about."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "run").mkdir()
        self.cluster = Cluster(folder / "run")
        info = json.loads(self.cluster.client_file.read_text())
        self.write("lab.fleet.yml", FLEET.format(port=self.cluster.plan.first, name=socket.gethostname()))
        keys = folder / ".ipyfleet" / "test"
        keys.mkdir(mode=0o700, parents=True)
        (keys / "secrets.json").touch(mode=0o600)
        (keys / "secrets.json").write_text(json.dumps({"key": info["key"], "curve_public": info["curve_serverkey"], "curve_secret": "x"}))
        (keys / "state.json").write_text(json.dumps({"deployed": True, "slots": {"localhost": [0], "far": [1]}}))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def ask(self, text: str, *before: str) -> tuple[int, dict[str, Any], str]:
        """Exit code, inventory and complaints for a file with this text."""
        path = self.write("live.engines.yml", f"plugin: ipyfleet.cluster.engines\n{text}")
        sources = [word for name in (*before, path.name) for word in ("-i", str(self.folder / name))]
        said = command("ansible-inventory", *sources, "--list", ANSIBLE_NOCOLOR="1", IPYTHONDIR=str(self.folder / "ipython"))
        return said.returncode, json.loads(said.stdout) if said.returncode == 0 else {}, said.stderr.replace(str(self.folder), "LAB")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    yield found
    found.cluster.stop()


def members(inventory: dict[str, Any]) -> dict[str, list[str]]:
    return {group: sorted(each["hosts"]) for group, each in inventory.items() if group.startswith("engines") and each.get("hosts")}


def test_a_running_controller_s_engines(lab: Lab) -> None:
    controller = lab.cluster.controller()
    engine = lab.cluster.engine(0)
    client = lab.cluster.client()
    eventually(lambda: client.ids == [0])
    lab.cluster.start_guest()
    eventually(lambda: client.ids == [0, FIRST_GUEST])

    # of a fleet, with slots; what the fleet file says of hosts is there too
    code, found, said = lab.ask("groups: {reserve: engine_counts.idle >= 2}\nengine_timeout: 60\n", "lab.fleet.yml")
    assert code == 0, said
    assert members(found) == {
        "engines": ["localhost"],
        "engines_idle": ["localhost"],
        "engines_guests": ["localhost"],
        "engines_missing": ["far"],
    }
    assert found["reserve"]["hosts"] == ["localhost"]
    here = found["_meta"]["hostvars"]["localhost"]
    assert (here["engine_ids"], here["engines"][0]["pid"], here["engines"][0]["slot"]) == ([0, FIRST_GUEST], engine.pid, 0)
    assert found["_meta"]["hostvars"]["far"]["engine_missing_ids"] == [1]

    # what is busy is not asked, and not waited for
    work = client[0].apply_async(time.sleep, 600)
    eventually(lambda: client.queue_status()[0]["queue"] == 1)
    begin = time.monotonic()
    code, found, said = lab.ask("fleet: lab.fleet.yml\nengine_timeout: 60\n")
    assert code == 0, said
    assert time.monotonic() - begin < 30
    assert members(found)["engines_busy"] == ["localhost"]
    # without the fleet file before it, a host is reached all the same
    here = found["_meta"]["hostvars"]["localhost"]
    assert (here["ansible_connection"], here["engines"][0]["state"], here["engines"][0]["pid"]) == ("local", "busy", None)
    assert client.queue_status()[0]["queue"] == 1

    # of anybody's controller
    code, found, said = lab.ask(f"connection_file: {lab.cluster.client_file}\n")
    assert code == 0, said
    assert members(found)["engines_unplaced"] == members(found)["engines_busy"] == ["engine-0"]
    profile = lab.folder / "ipython" / "profile_mine" / "security"
    profile.mkdir(parents=True)
    (profile / "ipcontroller-client.json").write_text(lab.cluster.client_file.read_text())
    cached = f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {lab.folder}/cache\n"
    assert members(lab.ask(f"profile: mine\n{cached}")[1])["engines_busy"] == ["engine-0"]
    assert not work.ready()
    client.close()

    # another key, and then no controller at all; what was kept is there for as long as was asked for
    info = json.loads(lab.cluster.client_file.read_text())
    lab.write("other.json", json.dumps(info | {"key": "another"}))
    code, found, said = lab.ask("timeout: 2\nconnection_file: other.json\n")
    at = f"127.0.0.1:{lab.cluster.plan.first}"
    assert (code, found) == (1, {})
    assert "[ERROR]: LAB/live.engines.yml:3: connection_file: expected the controller at" in said
    assert f"{at} to answer what is signed with this file's key, got: Hub connection request timed out" in said
    lab.cluster.kill(controller)
    assert members(lab.ask(f"profile: mine\n{cached}")[1])["engines_busy"] == ["engine-0"]
    for text, before in (("fleet: lab.fleet.yml\n", ()), ("timeout: 2\n", ("lab.fleet.yml",))):
        code, found, said = lab.ask(text, *before)
        assert (code, found) == (1, {})
        assert f"expected a controller that listens at 127.0.0.1:{lab.cluster.plan.first}, got: Connection refused" in said
        assert said.splitlines()[-1] == "[ERROR]: LAB/live.engines.yml: 1 problem; nothing was changed"
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connection_file: no.json\n", "2: connection_file: expected a client's connection file, got no such file as LAB/no.json"),
        ("connection_file: run\n", "2: connection_file: expected a client's connection file, got LAB/run, which cannot be read"),
        ("profile: none\n", "2: profile: expected a client's connection file, got no such file as LAB/ipython/profile_none/"),
        (
            "connection_file: run/security/ipcontroller-engine.json\n",
            "2: connection_file: expected a client's connection file, got LAB/run/security/ipcontroller-engine.json, in which there is no",
        ),
        ("fleet: no.fleet.yml\n", "no.fleet.yml: expected a fleet file, got no such file"),
        ("fleet: new.fleet.yml\n", "2: fleet: fleet new: expected its keys in LAB/.ipyfleet/new, got none; deploy it first"),
        ("fleet: wrong.fleet.yml\n", "LAB/wrong.fleet.yml:2: name: expected"),
        ("", "1: plugin: expected one of the keys connection_file, profile, fleet, or a fleet in a source before this one, got neither"),
        ("timeout: soon\nprofil: x\n", "2: timeout: expected a number of seconds"),
        ("strict: true\ncompose: {x: nope + 1}\nprofile: none\n", "4: profile: expected a client's connection file"),
        ("profile: [x\n", "expected YAML, got"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_no_inventory(lab: Lab, text: str, expected: str) -> None:
    one = "plugin: fleet\nname: {}\ncontroller: localhost\nscope: user\nengines: {{localhost: 1}}\n"
    lab.write("new.fleet.yml", one.format("new"))
    lab.write("wrong.fleet.yml", one.format("WRONG"))
    code, found, said = lab.ask(text)
    assert (code, found) == (1, {})
    assert expected in said
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith("nothing was changed")


def test_keys_in_a_vault_are_read(lab: Lab) -> None:
    password = lab.write("password", "sesame\n")
    secrets = lab.folder / ".ipyfleet" / "test" / "secrets.json"
    assert command("ansible-vault", "encrypt", "--vault-password-file", str(password), str(secrets)).returncode == 0
    code, _, said = lab.ask("fleet: lab.fleet.yml\n")
    assert code == 1
    assert "if it is in a vault, give its password with --ask-vault-pass" in said
    lab.write("live.engines.yml", "plugin: ipyfleet.cluster.engines\nfleet: lab.fleet.yml\n")
    path = str(lab.folder / "live.engines.yml")
    opened = command("ansible-inventory", "-i", path, "--list", "--vault-password-file", str(password))
    # it got as far as the controller, which does not run
    assert "expected a controller that listens at" in opened.stderr


@pytest.mark.parametrize(
    ("name", "taken"), [("lab.engines.yml", True), ("x.engines.yaml", True), ("engines.yml", False), ("lab.fleet.yml", False)]
)
def test_which_files_are_its_own(tmp_path: Path, name: str, taken: bool) -> None:
    (tmp_path / name).touch()
    assert inventory_loader.get("ipyfleet.cluster.engines").verify_file(str(tmp_path / name)) is taken
