"""`ipyfleet connect`, as somebody types it: with a stand-in of ssh, and servers that answer as a fleet's do."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import SecretStore
from conftest import ROOT, interruptible
from far import TOKEN, Far


class Desk:
    """A machine with the file of a fleet that is far away, and its keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.far = Far(folder)
        (folder / "run").mkdir(mode=0o700)
        (folder / "far.fleet.yml").write_text(
            "plugin: fleet\nname: far\ncontroller: {host: head, location: head}\nengines: {n1: 1}\n"
            f"hosts: {{head: {{ansible_host: 127.0.0.1, ansible_port: 9, ansible_user: ops}}}}\nports: {self.far.ports['registration']}\n"
            f"jupyterlab: {{host: head, port: {self.far.ports['jupyterlab']}, tunnel_keys: [ssh-ed25519 {'A' * 68}]}}\n"
        )
        store = SecretStore(folder / ".ipyfleet" / "far", lambda path: Path(path).read_text())
        store.create_secrets()
        (store.folder / "jupyterlab.json").write_text(json.dumps({"token": TOKEN}))
        (store.folder / "jupyterlab.json").chmod(0o600)
        self.environ = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "FAKE_SSH": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "BROWSER": str(folder / "browser"),
            "TERM": "dumb",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return interruptible([sys.executable, "-m", "ipyfleet", "connect", *words], self.folder, self.environ)

    def typed(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def files(self) -> list[Path]:
        return list((self.folder / "run").rglob("*.*"))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.far.stop()


def read_until(process: subprocess.Popen[str], last: str) -> str:
    """What a process says, up to a line that begins so."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(last):
            break
    return "".join(lines)


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> str:
    """End it as somebody would; what it said then."""
    process.send_signal(number)
    return process.communicate(timeout=30)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_is_where_until_it_is_ended(desk: Desk, number: signal.Signals) -> None:
    with desk.start("--port", "0") as process:
        said = read_until(process, "All of it")
        url = re.search(rf"^    (http://127\.0\.0\.1:\d+)/lab\?token={TOKEN}$", said, re.MULTILINE)
        assert url, said
        file = re.search(r'^    c = ipp\.Client\("(.*)"\)$', said, re.MULTILINE)
        assert file, said
        assert json.loads(Path(file[1]).read_text())["location"] == "127.0.0.1"
        assert said.endswith("All of it goes through one ssh to head until Ctrl-C.\n")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(family) == 2
        assert not any(TOKEN in word for each in family for word in each.cmdline())
        assert end(process, number) == "disconnected\n"
    assert process.returncode == 0
    assert not psutil.pid_exists(family[1].pid)
    assert not desk.files()


def test_json_is_one_object_when_it_is_connected(desk: Desk) -> None:
    with desk.start("--json", "--port", "0") as process:
        data = json.loads(read_until(process, "{"))
        assert (data["schema"], data["verb"], data["ok"], data["way"], data["token"]) == (1, "connect", True, "ssh", TOKEN)
        assert data["url"] == f"http://127.0.0.1:{data['ports']['jupyterlab']}/lab?token={TOKEN}"
        assert Path(data["client_file"]).exists()
        assert end(process) == ""
    assert process.returncode == 0


def test_the_browser_gets_a_file_and_not_the_token(desk: Desk) -> None:
    seen = desk.folder / "seen"
    (desk.folder / "browser").write_text(f'#!/bin/sh\necho "$@" >{seen}.new; mv {seen}.new {seen}\n')
    (desk.folder / "browser").chmod(0o755)
    with desk.start("far.fleet.yml", "--quiet", "--open", "--port", "0") as process:
        assert re.fullmatch(rf"http://127\.0\.0\.1:\d+/lab\?token={TOKEN}\n", read_until(process, "http"))
        deadline = time.monotonic() + 20
        while not seen.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        page = Path(seen.read_text().strip().removeprefix("file://"))
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        assert TOKEN in page.read_text()
        assert end(process) == ""


def test_an_ssh_that_ends_is_told_and_comes_back(desk: Desk) -> None:
    with desk.start("--port", "0") as process:
        read_until(process, "All of it")
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        deadline = time.monotonic() + 20
        while len(desk.far.calls()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        said = end(process).splitlines()
    assert re.fullmatch(r"[\d:]{8} head: the way there has ended: .*; connecting again", said[0]), said
    assert re.fullmatch(r"[\d:]{8} head: connected again", said[1]), said


def test_only_the_address_and_the_command_are_printed_for_who_has_nothing_but_ssh(desk: Desk) -> None:
    said = desk.typed("--print", "--port", "4444")
    assert said.returncode == 0, said.stderr
    url, command, _, about, other = said.stdout.splitlines()
    assert url == f"http://127.0.0.1:4444/lab?token={TOKEN}"
    assert command.startswith("ssh -o ExitOnForwardFailure=yes -p 9 -l ops -N -L 127.0.0.1:4444:127.0.0.1:")
    assert about == "or, as ipytunnel-far, who may do nothing else:"
    assert " -l ipytunnel-far -N -L 127.0.0.1:4444:" in other
    assert not desk.far.calls()


def test_what_fails_is_told_in_a_line_and_ends_with_1(desk: Desk) -> None:
    taken = desk.typed()
    assert (taken.returncode, taken.stdout) == (1, "")
    assert f"ipyfleet: port {desk.far.ports['jupyterlab']}: expected it to be free on this machine, got " in taken.stderr
    desk.far.mode("refused")
    refused = desk.typed("--port", "0", "--json")
    assert (refused.returncode, refused.stderr) == (1, "")
    data = json.loads(refused.stdout)
    assert (data["ok"], data["message"].startswith("head: expected to log in with a key, got refused")) == (False, True)
    assert not desk.files()


def test_on_this_machine_there_is_nothing_to_keep_open(desk: Desk) -> None:
    (desk.folder / "near.fleet.yml").write_text(
        "plugin: fleet\nname: far\nscope: user\ncontroller: localhost\nengines: {localhost: 1}\nclients: [localhost]\n"
        f"ports: {desk.far.ports['registration']}\njupyterlab: {{host: localhost, port: {desk.far.ports['jupyterlab']}}}\n"
    )
    said = desk.typed("near.fleet.yml")
    assert said.returncode == 0, said.stderr
    assert f"    http://127.0.0.1:{desk.far.ports['jupyterlab']}/lab?token={TOKEN}\n" in said.stdout
    assert '    c = ipp.Client(profile="far")\n' in said.stdout
    assert said.stdout.endswith("All of it is on this machine, localhost; there is nothing to keep open.\n")
    assert not desk.far.calls()
    assert not desk.files()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.fleet.yml", "-i", "far.fleet.yml"], "ipyfleet: connect: expected a fleet file, or -i, got both"),
        (["none.fleet.yml"], "none.fleet.yml: expected a fleet file, got no such file"),
        (["--port", "70000"], "less than or equal to"),
        (["--port", "0", "--identity", "none"], "--identity: expected a private key, got no file "),
    ],
)
def test_what_is_typed_wrong_ends_with_2(desk: Desk, words: list[str], expected: str) -> None:
    said = desk.typed(*words)
    assert said.returncode == 2
    assert expected in " ".join(said.stderr.split())
