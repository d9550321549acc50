"""Playbooks on this machine, as far as they go without building or starting anything."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore
from conftest import ROOT

LOCAL = "plugin: fleet\nname: trial\nscope: user\ncontroller: localhost\nengines: {localhost: 2}\nclients: [localhost]\n"


class Home:
    """A home folder with a fleet file, in which playbooks run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = folder / "trial.fleet.yml"
        self.fleet.write_text(LOCAL)

    def play(self, *arguments: str, playbook: str = "site.yml") -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environ = {"HOME": str(self.folder), "PATH": path, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.folder / ".ansible")}
        command = ["ansible-playbook", "-i", str(self.fleet), playbook, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **environ})

    def files(self) -> list[str]:
        """All files but Ansible's own."""
        found = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*")]
        return sorted(name for name in found if not name.startswith(".ansible"))


@pytest.fixture
def home() -> Iterator[Home]:
    """An empty home folder but for a fleet file; its path is short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ipf") as folder:
        yield Home(Path(folder))


def test_check_mode_on_a_pristine_machine_shows_everything_and_changes_nothing(home: Home) -> None:
    said = home.play("--check", "--diff")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "changed=1" in said.stdout
    assert "+c.IPController.restore_engines = True" in said.stdout
    assert "create folder: " in said.stdout
    assert "install Python environment: " in said.stdout
    assert "start: engine@1" in said.stdout
    assert home.files() == ["trial.fleet.yml"]


def test_no_secret_is_shown_not_even_to_the_curious(home: Home) -> None:
    said = home.play("--check", "--diff", "-vvv")
    assert said.returncode == 0
    assert "(secret, not shown)" in said.stdout
    for word in ('"key": "', "curve_secret", '"secret": "'):
        assert word not in said.stdout.replace("curve_secretkey", "").replace("curve.json", "")


def test_validate_says_that_all_is_well_and_changes_nothing(home: Home) -> None:
    said = home.play(playbook="playbooks/validate.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "changed=0" in said.stdout
    assert home.files() == ["trial.fleet.yml"]


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        ("", ["-e", "ipp_engine_slot=2"], "localhost: ipp_engine_slot: unknown variable; did you mean `ipp_engine_slots`?"),
        ("", ["-e", "fleet_scope=root"], "localhost: fleet_scope: expected one of system, user, got 'root'"),
        (
            "",
            ["-e", "ipp_node_python=/nowhere/python"],
            "expected a Python at /nowhere/python, got nothing that runs; check ipp_node_python",
        ),
        (
            "jupyterlab: {host: localhost, tunnel_keys: [ssh-ed25519]}\n",
            [],
            "jupyterlab_tunnel_keys[0]: expected a public key such as ssh-ed25519 AAAA... NAME, without options, got 'ssh-ed25519'",
        ),
        ("", ["-e", "ipp_node_min_free_mb=99999999"], "expected 99999999 MB free for the root folder"),
        (
            "",
            ["-e", '{"ipp_client_users": ["nobody-of-that-name"]}'],
            "expected the user nobody-of-that-name of ipp_client_users, got no such user",
        ),
        ("", ["-e", "ipp_engine_cpus=0,8000"], "localhost: expected cores that the host has for the cpus of its engines, got 8000; it has"),
        (
            "",
            ["-e", "ipp_engine_memory_max_mb=1"],
            "localhost: ipp_engine_memory_max_mb: expected 0 for none, or a size from 256 on",
        ),
        ("", ["-e", "ipp_controller_location=no.such.host.invalid"], "expected the controller's location no.such.host.invalid to resolve"),
        ("", ["-e", '{"ipp_controller_config": {"a b": 1}}'], "ipcontroller_config.py: what the template gave is not valid"),
        ("defaults: {ansible_remote_tmp: '{{ nope }}'}\n", ["-e", "ipp_engine_gpus='{{ nope }}'"], "'nope' is undefined"),
    ],
)
def test_bad_input_is_told_before_anything_is_changed(home: Home, change: str, arguments: list[str], expected: str) -> None:
    home.fleet.write_text(LOCAL + change)
    said = home.play(*arguments)
    assert said.returncode != 0
    assert expected in said.stdout + said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert home.files() == ["trial.fleet.yml"]


def test_a_home_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60)
    deep.mkdir()
    said = Home(deep).play()
    assert said.returncode != 0
    assert "expected a shorter home folder: the path of supervisord's socket exceeds 107 characters" in said.stdout
    assert Home(deep).files() == ["trial.fleet.yml"]


def test_an_inventory_without_a_fleet_is_an_error(home: Home) -> None:
    home.fleet = home.folder / "hosts.ini"
    home.fleet.write_text("[web]\nlocalhost ansible_connection=local\n")
    said = home.play()
    assert said.returncode != 0
    assert "expected a host in the group ipp_controller, got none; is -i a fleet file" in said.stdout + said.stderr


def test_ports_that_are_taken_are_named(home: Home) -> None:
    home.fleet.write_text(f"{LOCAL}ports: 31900\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 31902))
        taken.listen()
        said = home.play()
    assert said.returncode != 0
    mine = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert (
        f"expected ports 31900 to 31999 to be free, got 31902 taken: {mine} (pid {os.getpid()}); set ports: to another block" in said.stdout
    )


def test_an_ini_inventory_will_do(home: Home) -> None:
    home.fleet = home.folder / "hosts.ini"
    python = "ansible_python_interpreter='{{ ansible_playbook_python }}'"
    home.fleet.write_text(
        f"[ipp_controller]\nlocalhost ansible_connection=local {python}\n[ipp_engine]\nlocalhost ipp_engine_slots=3\n"
        "[all:vars]\nfleet_name=ini\nfleet_scope=user\n"
    )
    said = home.play("--check", "--diff")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "start: engine@2" in said.stdout


def test_a_stranger_s_connection_file_is_not_overwritten(home: Home) -> None:
    theirs = home.folder / ".ipython" / "profile_trial" / "security" / "ipcontroller-client.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(json.dumps({"key": "theirs"}))
    said = home.play()
    assert said.returncode != 0
    assert f"{theirs} is not of this fleet; move it away, or give the fleet another name" in said.stdout + said.stderr
    assert json.loads(theirs.read_text()) == {"key": "theirs"}
    assert not (home.folder / ".local").exists()


def test_a_client_s_files_are_private_and_told_to_nobody(home: Home) -> None:
    home.fleet.write_text(LOCAL + "postgresql: localhost\njupyterlab: localhost\n")
    store = SecretStore(home.folder / ".ipyfleet" / "trial", lambda path: Path(path).read_text())
    key, token = store.create_secrets().key, store.create_token()
    password = store.create_passwords(["trial"], {})["trial"]
    folder = home.folder / "client"
    folder.mkdir()
    said = home.play("-e", f"client_dir={folder}", "-vvv", "--diff", playbook="playbooks/client.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "changed=1" in said.stdout
    files = {path.name: path.read_text() for path in folder.iterdir() if path.name != ".ipyfleet-client"}
    assert sorted(files) == ["client.json", "pg_service.conf", "pgpass", "token"]
    assert (json.loads(files["client.json"])["key"], files["token"]) == (key, token)
    assert files["pgpass"].splitlines()[-1] == f"127.0.0.1:{port_of(files)}:*:trial:{password}"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert not [secret for secret in (key, token, password) if secret in said.stdout + said.stderr]
    # what the fleet has no more is taken away, and nothing else is
    (folder / "ca.crt").touch()
    (folder / "notes.txt").touch()
    assert "changed=0" in home.play("-e", f"client_dir={folder}", playbook="playbooks/client.yml").stdout
    assert {path.name for path in folder.iterdir()} == {*files, ".ipyfleet-client", "notes.txt"}
    neither = home.play(playbook="playbooks/client.yml")
    assert "expected -e client_file=PATH, -e client_dir=FOLDER or -e engine_file=PATH, got none" in neither.stdout + neither.stderr


def test_whoever_starts_an_engine_elsewhere_needs_one_file(home: Home) -> None:
    store = SecretStore(home.folder / ".ipyfleet" / "trial", lambda path: Path(path).read_text())
    key = store.create_secrets().key
    file = home.folder / "engine.json"
    said = home.play("-e", f"engine_file={file}", "-vvv", "--diff", playbook="playbooks/client.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    found = json.loads(file.read_text())
    assert (found["key"], file.stat().st_mode & 0o777) == (key, 0o600)
    assert "hb_ping" in found
    assert key not in said.stdout + said.stderr


def test_a_folder_with_something_else_in_it_is_left_alone(home: Home) -> None:
    store = SecretStore(home.folder / ".ipyfleet" / "trial", lambda path: Path(path).read_text())
    store.create_secrets()
    folder = home.folder / "certificates"
    folder.mkdir()
    (folder / "ca.crt").write_text("mine")
    expected = f"client_dir: {folder}: expected an empty folder, or one for a client of fleet trial, got"
    for more in (["--check"], []):
        said = home.play("-e", f"client_dir={folder}", *more, playbook="playbooks/client.yml")
        assert said.returncode != 0
        assert f"{expected} ca.crt" in said.stdout + said.stderr
    (folder / ".ipyfleet-client").write_text("files for a client of fleet other\n")
    said = home.play("-e", f"client_dir={folder}", playbook="playbooks/client.yml")
    assert f"{expected} files for a client of fleet other" in said.stdout + said.stderr
    assert (folder / "ca.crt").read_text() == "mine"
    assert not (folder / "client.json").exists()


def test_a_token_that_was_never_deployed_is_not_handed_out(home: Home) -> None:
    home.fleet.write_text(LOCAL + "jupyterlab: localhost\n")
    store = SecretStore(home.folder / ".ipyfleet" / "trial", lambda path: Path(path).read_text())
    store.create_secrets()
    said = home.play("-e", f"client_dir={home.folder}/client", playbook="playbooks/client.yml")
    assert said.returncode != 0
    assert f"fleet trial: expected JupyterLab's token in {store.folder}, got none; deploy it first" in said.stdout + said.stderr
    assert not (home.folder / "client").exists()
    # the connection file has no token in it
    assert home.play("-e", f"client_file={home.folder}/client.json", playbook="playbooks/client.yml").returncode == 0


def port_of(files: dict[str, str]) -> str:
    return next(line.removeprefix("port=") for line in files["pg_service.conf"].splitlines() if line.startswith("port="))
