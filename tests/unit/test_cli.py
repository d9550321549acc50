"""The command, as somebody types it; on this machine, as far as it goes without building anything."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, interruptible

from ipyfleet.cli.state import variables_of
from ipyfleet.errors import InputError
from ipyfleet.sources import chosen
from ipyfleet.ssh import ssh_command

LOCAL = "plugin: ipyfleet.cluster.fleet\nname: trial\nscope: user\ncontroller: localhost\nengines: {localhost: 2}\nclients: [localhost]\n"
FAR = (
    "plugin: fleet\nname: far\ncontroller: {host: head, location: head}\nengines: {'n[1:2]': 2}\n"
    "hosts: {head: {ansible_host: 127.0.0.1, ansible_port: 9}}\n"
)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ipf") as folder:
        yield Path(folder)


def typed(home: Path, *words: str, fleet: str = LOCAL) -> subprocess.CompletedProcess[str]:
    """What somebody gets who types `ipyfleet` and these words in a folder with a fleet file."""
    if fleet:
        (home / "trial.fleet.yml").write_text(fleet)
    (home / "hosts.ini").write_text("localhost ansible_connection=local\n")
    environ = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-m", "ipyfleet", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env=environ,
        stdin=subprocess.DEVNULL,
    )


VERBS = (
    "up", "verify", "status", "validate", "start", "stop", "restart", "logs", "teardown", "run", "inventory", "ssh", "exec",
    "backup", "backups", "drill", "restore", "connect", "signal", "drain", "scale", "upgrade", "bundle", "rotate", "sync",
)  # fmt: skip


def test_help_names_every_verb_and_exit_code(home: Path) -> None:
    said = typed(home, "--help")
    assert said.returncode == 0
    assert all(f" {verb} " in said.stdout for verb in VERBS)
    assert "0 all there, 1 failed, 2 bad input, 3 partly there" in said.stdout
    assert typed(home, "--version").stdout == f"ipyfleet {version()}\n"


def version() -> str:
    lines = (ROOT / "galaxy.yml").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("version:"))


@pytest.mark.parametrize(
    ("words", "fleet", "expected"),
    [
        (["upp"], LOCAL, "No such command 'upp'. Did you mean 'up'?"),
        (["up", "now"], LOCAL, "Got unexpected extra argument"),
        (["up", "--chek"], LOCAL, "No such option: --chek"),
        (["status"], "", "ipyfleet: -i: expected a fleet file, got none in"),
        (["status", "-i", "none.fleet.yml"], "", "none.fleet.yml: expected a fleet file, got no such file"),
        (["up", "-e", "slots"], LOCAL, "ipyfleet: -e: expected NAME=VALUE, a mapping or @FILE, got 'slots'"),
        (["up", "-e", "ipp_engine_slot=2"], LOCAL, "localhost: ipp_engine_slot: unknown variable; did you mean `ipp_engine_slots`?"),
        (["up", "--limit", "nobody"], LOCAL, "leaves us with no hosts to target"),
        (["up"], LOCAL.replace("controller:", "controler:"), "trial.fleet.yml:4: controler: unknown key; did you mean `controller`?"),
        (["run", "sitee"], LOCAL, "got sitee; did you mean site?"),
        (["run", "mine.yml"], LOCAL, "mine.yml: expected a playbook, got no such file"),
        (["exec"], LOCAL, "ipyfleet: exec: expected a command after --, got none"),
        (["ssh", "node9"], FAR, "ipyfleet: node9: expected a host of the fleet, got none of that name; it has head, n1, n2"),
        (["ssh", "localhost"], LOCAL, "ipyfleet: localhost: expected a host that is reached by ssh, got one by local"),
        (["up", "--", "-K"], LOCAL, "ipyfleet: -K: expected no question that nobody could answer, got one; give -K before --"),
        (["teardown"], LOCAL, "ipyfleet: teardown: expected --yes, or a terminal to ask on, got neither"),
        (["status", "-i", "hosts.ini"], LOCAL, "expected a host in the group ipp_controller, got none"),
        (["backup"], FAR, "expected a fleet with a database, got one without; name its host in the fleet file"),
        (["drill"], LOCAL + "postgresql: localhost\n", "expected a fleet of scope system, got scope user, whose database"),
        (["restore"], FAR, "Missing argument 'DATABASE'"),
        (["restore", "lab"], FAR, "expected a fleet with a database, got one without"),
        (["run", "restore"], FAR + "postgresql: head\n", "expected -e restore_database=NAME, got none"),
        (["restart", "--slot", "localhost/9"], LOCAL, "ipyfleet: chosen_services: expected controller, jupyterlab, a slot such as HOST/0"),
        (["signal", "INTT"], LOCAL, "ipyfleet: signal_name: expected one of HUP, INT, QUIT, KILL, USR1, USR2, TERM, got INTT"),
        (["signal"], LOCAL, "Missing argument 'SIGNAL'"),
        (["bundle", "-o", "none/here.tar.gz"], LOCAL, "none/here.tar.gz: expected a file in a folder that is there, got another path"),
        (["rotate"], LOCAL, "Missing option '--what'"),
        (["rotate", "-w", "hub-key"], LOCAL, "ipyfleet: rotate: expected --yes, or a terminal to ask on, got neither"),
        (["rotate", "-w", "hub", "-y"], LOCAL, "rotate_what: expected hub-key, certificates, passwords or all, got hub"),
        (["run", "rotate"], LOCAL, "rotate_what: expected hub-key, certificates, passwords or all, got none"),
        (["run", "rotate", "-l", "localhost", "-e", "rotate_what=all"], LOCAL, "expected no --limit, as keys are of the whole fleet"),
        (["sync"], LOCAL, "Missing argument 'FOLDER'"),
        (["sync", "nowhere"], LOCAL, "nowhere: expected a folder, got nothing there"),
        (["run", "sync"], LOCAL, "expected -e sync_folder=FOLDER, got none"),
        (["logs", "--lines", "0"], LOCAL, "Input should be greater than or equal to 1"),
    ],
)
def test_what_is_typed_wrong_is_told_in_a_line_and_ends_with_2(home: Path, words: list[str], fleet: str, expected: str) -> None:
    said = typed(home, *words, fleet=fleet)
    assert said.returncode == 2, said.stdout + said.stderr
    assert expected in " ".join(said.stderr.split())
    assert "Traceback" not in said.stdout + said.stderr


def test_one_of_several_fleets_has_to_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.fleet.yml").touch()
    assert chosen(None) == ["a.fleet.yml"]
    (tmp_path / "b.fleet.yaml").touch()
    with pytest.raises(InputError, match=r"expected one fleet file, got a\.fleet\.yml, b\.fleet\.yaml; choose one with -i"):
        chosen(None)
    assert chosen(["b.fleet.yaml", "hosts.ini"]) == ["b.fleet.yaml", "hosts.ini"]


def test_extra_variables_are_taken_as_ansible_takes_them() -> None:
    assert variables_of(["a=1=2", '{"b": [1]}', "@more.yml"]) == ({"a": "1=2", "b": [1]}, ["--extra-vars=@more.yml"])


def test_check_mode_tells_what_would_change_and_changes_nothing(home: Path) -> None:
    said = typed(home, "up", "--check", "--diff")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "+c.IPController.restore_engines = True" in said.stdout
    assert "  install Python environment: " in said.stdout
    assert "1 host would change" in said.stdout.splitlines()[-1]
    assert not (home / ".local").exists()
    assert not (home / ".ipyfleet").exists()


def test_json_is_all_there_is_on_standard_output(home: Path) -> None:
    said = typed(home, "up", "--check", "--json")
    data = json.loads(said.stdout)
    assert said.stderr == ""
    assert (data["schema"], data["verb"], data["ok"], data["check"], data["changed"]) == (1, "up", True, True, True)
    assert {change["what"] for change in data["hosts"][0]["changes"]} >= {"create folder", "install Python environment", "start"}
    refused = typed(home, "up", "--json", "-e", "ipp_node_min_free_mb=99999999")
    assert refused.returncode == 1
    told = json.loads(refused.stdout)
    assert told["status"] == "refused"
    assert told["failures"][0]["host"] == "localhost"
    assert told["failures"][0]["message"].startswith("expected 99999999 MB free for the root folder")


def test_what_comes_after_two_dashes_goes_to_ansible(home: Path) -> None:
    said = typed(home, "up", "-v", "--check", "--", "--list-hosts")
    assert "hosts (1):" in said.stdout


def test_a_command_on_every_host(home: Path) -> None:
    said = typed(home, "exec", "--", "echo hello; echo $((6*7))")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "localhost: hello\nlocalhost: 42\n" in said.stdout
    failed = typed(home, "exec", "--", "exit 3")
    assert failed.returncode == 1
    assert "localhost: exit code 3" in failed.stdout


def test_a_terminal_shows_each_host_while_it_happens(home: Path) -> None:
    (home / "trial.fleet.yml").write_text(LOCAL)
    environ = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    environ.pop("CI", None)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(home)
        os.execve(sys.executable, [sys.executable, "-m", "ipyfleet", "exec", "--", "sleep 1; echo hello"], environ)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody is left who writes to it
        while some := os.read(terminal, 65536):
            shown += some
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"exec: Run the command +\d+ s", text)
    assert re.search(r"localhost +changed +[\d.]+ s", text)
    assert "localhost: hello" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_from_outside_is_told_and_ends_with_130(home: Path, number: signal.Signals) -> None:
    (home / "trial.fleet.yml").write_text(LOCAL)
    environ = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "ipyfleet", "exec", "--", "sleep 30"]
    with interruptible(command, home, environ) as process:
        assert process.stdout
        while "Run the command" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "cancelled; run it again to go on\n")


def test_the_inventory_as_a_table_and_as_json(home: Path) -> None:
    said = typed(home, "inventory", fleet=FAR)
    assert said.stdout.splitlines()[0].startswith("fleet far, scope system, controller head at head, ports ")
    assert [line.split()[:4] for line in said.stdout.splitlines()[2:]] == [
        ["head", "controller", "-", "127.0.0.1"],
        ["n1", "engine", "2", "n1"],
        ["n2", "engine", "2", "n2"],
    ]
    hosts = json.loads(typed(home, "inventory", "--json", fleet=FAR).stdout)["inventory"]
    assert hosts[0]["reach"] == {"host": "127.0.0.1", "port": 9}


def test_an_unreachable_controller_refuses_the_run(home: Path) -> None:
    said = typed(home, "up", "--json", fleet=FAR.replace("'n[1:2]'", "head"))
    assert said.returncode == 1
    data = json.loads(said.stdout)
    assert not data["ok"]
    assert any("expected an SSH server, got refused" in failure["message"] for failure in data["failures"])


def test_ssh_is_called_as_ansible_would() -> None:
    reach = {"host": "10.0.0.5", "port": 2222, "user": "ops", "ssh_private_key_file": "/k e y", "ssh_common_args": "-o ProxyJump='a b'"}
    command = ssh_command("head", reach, "-N")
    assert command == ["ssh", "-o", "ProxyJump=a b", "-p", "2222", "-l", "ops", "-i", "/k e y", "-N", "10.0.0.5"]
    assert ssh_command("head", {}) == ["ssh", "head"]


def test_completion_knows_fleet_files_and_hosts(home: Path) -> None:
    (home / "trial.fleet.yml").write_text(FAR)
    environ = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT / "src"), "_IPYFLEET_COMPLETE": "complete_bash"}

    def offered(*words: str) -> list[str]:
        more = {"COMP_WORDS": " ".join(["ipyfleet", *words]), "COMP_CWORD": str(len(words))}
        script = "import sys; sys.argv[0] = 'ipyfleet'; from ipyfleet.cli import main; main()"
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=environ | more).stdout.split()

    assert offered("sta") == ["status", "start"]
    assert offered("up", "--limit", "n") == ["n1", "n2"]
    assert offered("status", "-i", "tr") == offered("connect", "tr") == ["trial.fleet.yml"]
