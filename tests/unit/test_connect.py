"""From this machine to a fleet through one ssh process: what is there then, what is left, and what is said when it fails."""

from __future__ import annotations

import gc
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from far import TOKEN, Far, Notebook, Stranger

from ipyfleet import client_folder, connect, local_ports, tunnel
from ipyfleet.client_folder import OWNER
from ipyfleet.connect import Connection, Wish, open_connection
from ipyfleet.errors import ClientError, InputError

ANY = Wish(port=0)


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH", str(tmp_path))
    monkeypatch.setattr(tunnel, "BACK_OFF", (0.05,))
    found = Far(tmp_path)
    yield found
    found.stop()
    assert not folders(tmp_path), "files were left behind"
    assert not [each for each in psutil.Process().children() if "FAKE_SSH" in environ_of(each)], "a process was left behind"


def environ_of(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:
        return {}


def folders(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "run" / "ipyfleet").glob("*"))


def opened(far: Far, wish: Wish = ANY, say: Callable[[str], None] = lambda _: None, *without: str) -> Connection:
    return open_connection(far.access(*without), wish, say, 0.5)


def eventually(fact: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.02)
    return fact()


def test_all_of_a_fleet_is_on_this_machine_and_nothing_is_left_of_it(far: Far) -> None:
    with opened(far) as connection:
        assert connection.alive
        assert connection.url == f"http://127.0.0.1:{connection.ports['jupyterlab']}/lab?token={TOKEN}"
        assert connection.notes == ()
        request = urllib.request.Request(
            connection.url.split("/lab")[0] + "/api/status", headers={"Authorization": f"token {connection.token}"}
        )
        assert urllib.request.urlopen(request).status == 200
        info = json.loads(connection.client_file.read_text())
        assert (info["location"], info["interface"], info["key"]) == ("127.0.0.1", "tcp://127.0.0.1", "secret")
        assert info["registration"] == connection.ports["registration"]
        assert "host=db.example.org" in connection.dsn
        assert f"port={connection.ports['postgresql']}" in connection.dsn
        assert connection.environment["PGSERVICE"] == "lab"
        (folder,) = folders(far.folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        assert not connection.wait(0)
    assert connection.wait(0)
    assert not connection.alive
    connection.close()


def test_ssh_gets_what_it_needs_and_no_secret(far: Far) -> None:
    access = far.access(host="10.0.0.5", user="ops", ssh_common_args="-o LogLevel=QUIET -o ControlPath=/x")
    open_connection(access, ANY, print, 0.5).close()
    (words,) = far.calls()
    given = [value for before, value in itertools.pairwise(words) if before == "-o"]
    for setting in ("ExitOnForwardFailure=yes", "BatchMode=yes", "ControlPath=none", "ServerAliveInterval=15"):
        assert setting in given
    # ssh takes the first that it sees
    assert given.index("ControlPath=none") < given.index("ControlPath=/x")
    assert given.index("LogLevel=INFO") < given.index("LogLevel=QUIET")
    assert not any("StrictHostKeyChecking" in value for value in given)
    assert words[-1] == "10.0.0.5"
    assert "-N" in words
    assert all(value.startswith("127.0.0.1:") for before, value in itertools.pairwise(words) if before == "-L")
    assert not any(TOKEN in word or "secret" in word for word in words)


def test_another_user_logs_in_with_that_key_alone(far: Far, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    access = far.access(user="ops", ssh_private_key_file="/root/.ssh/id", ssh_common_args="-J jump")
    open_connection(access, Wish(0, "ipytunnel-lab", str(key)), print, 0.5).close()
    (words,) = far.calls()
    assert words[words.index("-l") + 1] == "ipytunnel-lab"
    assert [value for before, value in itertools.pairwise(words) if before == "-i"] == [str(key)]
    assert "IdentitiesOnly=yes" in words
    assert "-J" in words


def test_an_ssh_that_ends_is_started_anew_with_the_same_ports(far: Far) -> None:
    news: list[str] = []
    with opened(far, ANY, news.append) as connection:
        ports = dict(connection.ports)
        far.mode("away")
        os.kill(ssh_of(far), signal.SIGKILL)
        assert eventually(lambda: len(news) == 2), news
        assert news[0] == "head: the way there has ended: expected ssh to stay connected, got: it ended by signal 9; connecting again"
        assert news[1].startswith("head: expected a way to the host, got none; check ansible_host and the network; trying on")
        assert not connection.alive
        tries = len(far.calls())
        assert eventually(lambda: len(far.calls()) > tries + 2)
        far.mode("")
        assert eventually(lambda: news[-1] == "head: connected again"), news
        # the same reason was told once
        assert len(news) == 3
        assert connection.alive
        assert connection.ports == ports
        (folder,) = folders(far.folder)
        assert json.loads((folder / OWNER).read_text())["ssh"]["pid"] == ssh_of(far)
        with socket.create_connection(("127.0.0.1", ports["registration"]), 5) as hub:
            assert hub.recv(1) == b"\xff"


def ssh_of(far: Far) -> int:
    mine = [each for each in psutil.Process().children() if environ_of(each).get("FAKE_SSH") == str(far.folder)]
    return int(next(each.pid for each in mine if each.status() != psutil.STATUS_ZOMBIE))


def test_it_ends_while_it_is_on_its_way_back(far: Far) -> None:
    news: list[str] = []
    connection = opened(far, ANY, news.append)
    far.mode("away")
    os.kill(ssh_of(far), signal.SIGKILL)
    assert eventually(lambda: len(news) == 2)
    connection.close()
    tries = len(far.calls())
    time.sleep(0.3)
    assert len(far.calls()) == tries


def test_a_connection_that_is_forgotten_ends(far: Far) -> None:
    connection = opened(far)
    process = psutil.Process(ssh_of(far))
    del connection
    gc.collect()
    assert eventually(lambda: not process.is_running())


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("refused", "head: expected to log in with a key, got refused; check ansible_user and the key, or name others with --user"),
        ("unknown", "head: expected a host key that is known, got an unknown one; log in once by ssh to accept it"),
        ("changed", "head: expected the host key that is known, got another one"),
        ("away", "head: expected a way to the host, got none"),
        ("nowhere", "head: expected the name head to resolve, got an unknown one"),
        ("closed", "head: expected an SSH server, got a connection that was closed"),
        ("taken", "head: expected port 4711 of this machine to be free, got it taken just now; try again"),
        ("strange", "head: expected ssh to stay connected, got: command-line: line 0: Bad configuration option: nonsense"),
        ("prohibited", "sshd does not forward to it; see its AllowTcpForwarding and PermitOpen, and permitopen of the key"),
    ],
)
def test_a_first_try_that_fails_says_why_in_one_line(far: Far, mode: str, expected: str) -> None:
    far.mode(mode)
    with pytest.raises(ClientError) as error:
        opened(far)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert len(far.calls()) == 1


def test_a_jupyterlab_that_is_down_leads_to_status(far: Far) -> None:
    far.stop("jupyterlab")
    expected = f"head: expected JupyterLab to answer at 127.0.0.1:{far.ports['jupyterlab']} of its host, got nothing"
    with pytest.raises(ClientError, match=rf"{expected}; `ipyfleet status` says how it does"):
        opened(far)


def test_a_jupyterlab_that_is_starting_is_waited_for(far: Far) -> None:
    far.stop("jupyterlab")
    port = far.ports["jupyterlab"]
    later = threading.Timer(0.5, far.serve, ("jupyterlab", Notebook, ThreadingHTTPServer, port))
    later.start()
    open_connection(far.access(), ANY, print, 10).close()
    later.join()


def test_a_token_that_is_not_taken(far: Far) -> None:
    access = far.access()
    access.files["token"] = "another"
    with pytest.raises(ClientError, match="expected JupyterLab to take the token that is kept here, got 403; deploy it again"):
        open_connection(access, ANY, print, 0.5)


def test_another_program_in_jupyterlab_s_place(far: Far) -> None:
    far.stop("jupyterlab")
    far.serve("jupyterlab", Stranger, ThreadingHTTPServer, far.ports["jupyterlab"])
    with pytest.raises(ClientError, match="got another program, which answered 404"):
        opened(far)


def test_without_jupyterlab_the_controller_has_to_answer(far: Far) -> None:
    with opened(far, Wish(), print, "jupyterlab") as connection:
        assert (connection.url, connection.token) == ("", "")
    far.stop("registration")
    with pytest.raises(ClientError, match="head: expected its controller to answer, got nothing; `ipyfleet status` says"):
        opened(far, Wish(), print, "jupyterlab")


def test_a_database_that_is_down_is_a_note(far: Far) -> None:
    far.stop("postgresql")
    with opened(far) as connection:
        assert connection.notes == ("127.0.0.1: expected the database to answer, got nothing; `ipyfleet status` says how it does",)


def test_without_a_database_there_is_nothing_to_find_one_with(far: Far) -> None:
    with opened(far, ANY, print, "postgresql") as connection:
        assert (connection.dsn, connection.environment) == ("", {})


def test_a_port_that_is_taken_is_named_with_its_program(far: Far) -> None:
    # all servers are of this very process, on the ports that they have there
    with pytest.raises(ClientError) as error:
        opened(far, Wish())
    port, program = far.ports["jupyterlab"], psutil.Process().name()
    assert str(error.value) == (
        f"port {port}: expected it to be free on this machine, got {program} (process {os.getpid()}) there;"
        " choose another with --port, or any with --port 0"
    )
    assert not far.calls()


def test_other_ports_that_are_taken_move_and_free_ones_stay(far: Far) -> None:
    with opened(far) as connection:
        assert connection.ports["registration"] != far.ports["registration"]
    access = far.access()
    free = local_ports.free_port()
    moved = [target if target.name != "postgresql" else type(target)("postgresql", "127.0.0.1", free) for target in access.way.targets]
    planned = connect.plan(type(access)(**{**vars(access), "way": type(access.way)("head", {}, tuple(moved))}), ANY)
    assert {each.name: each.here for each in planned}["postgresql"] == free


@pytest.mark.parametrize(
    ("wish", "without", "reach", "expected"),
    [
        (Wish(identity="/no/key"), (), {}, "--identity: expected a private key, got no file /no/key"),
        (Wish(port=0), ("jupyterlab",), {}, "--port: expected a fleet with JupyterLab, got lab, which has none"),
        (Wish(user="ops"), (), {"connection": "local"}, "head: expected no --port, --user or --identity for a fleet on this machine"),
    ],
)
def test_wishes_that_do_not_go_together(far: Far, wish: Wish, without: tuple[str, ...], reach: dict[str, str], expected: str) -> None:
    with pytest.raises(InputError) as error:
        connect.plan(far.access(*without, **reach), wish)
    assert expected in str(error.value)


def test_a_port_that_this_user_may_not_have(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ordinary(socket.socket):
        def bind(self, address: Any) -> None:
            if 0 < address[1] < 1024:
                raise PermissionError(13, "Permission denied")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Ordinary)
    expected = "--port: expected a port that this user may listen on, such as one from 1024 on, got 80"
    with pytest.raises(InputError, match=expected):
        connect.plan(far.access(), Wish(port=80))


def test_a_port_that_another_program_takes_meanwhile_gets_no_token(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    class Listener(Notebook):
        def log_request(self, *_: Any) -> None:
            heard.append(self.path)

    stranger = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    stranger.daemon_threads = True
    threading.Thread(target=stranger.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(connect, "notebook_port", lambda *_: stranger.server_address[1])
    # it takes ssh a moment to find out, and to end
    far.mode("late")
    try:
        with pytest.raises(ClientError, match=r"expected port \d+ of this machine to be free, got it taken just now; try again"):
            opened(far)
    finally:
        stranger.shutdown()
        stranger.server_close()
    assert not heard


def test_whether_a_program_listens_somewhere() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert local_ports.listens(os.getpid(), port) is True
        with subprocess.Popen(["sleep", "60"]) as other:
            assert local_ports.listens(other.pid, port) is False
            other.kill()
    assert local_ports.listens(os.getpid(), port) is False


@pytest.mark.parametrize("session", ["", "setsid "])
def test_what_ssh_goes_through_ends_with_it_and_is_not_waited_for(far: Far, session: str) -> None:
    script = far.folder / "through.sh"
    # a command that hears no signal but one, and may be out of reach
    script.write_text(f"#!/bin/sh\n{session}sh -c 'trap \"\" TERM; echo $$ >{far.folder}/pid; exec sleep 3' &\nexec sleep 60\n")
    script.chmod(0o755)
    ssh = tunnel.Tunnel("head", [str(script)])
    assert eventually(lambda: (far.folder / "pid").exists() and (far.folder / "pid").read_text() != "")
    child = psutil.Process(int((far.folder / "pid").read_text()))
    begin = time.monotonic()
    ssh.close()
    assert time.monotonic() - begin < 2
    assert not ssh.alive
    assert session or eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 1)
    child.wait()


def test_a_fleet_on_this_machine_takes_no_ssh(far: Far) -> None:
    with open_connection(far.access(connection="local"), Wish(), print, 0.5) as connection:
        assert (connection.over_ssh, connection.alive) == (False, True)
        assert connection.ports == far.ports
        assert json.loads(connection.client_file.read_text())["location"] == "head"
    assert not far.calls()


def test_what_a_killed_process_left_is_taken_away(far: Far) -> None:
    """Its ssh as well; but nothing of a process that lives."""
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from far import Far; from pathlib import Path; from ipyfleet.connect import *\n"
        "import os, signal\n"
        f"far = Far(Path({str(far.folder)!r}))\n"
        "connection = open_connection(far.access(), Wish(port=0), print, 5)\n"
        "print(connection._keeper.tunnel.process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    orphan = psutil.Process(int(said.stdout))
    (left,) = folders(far.folder)
    with opened(far) as mine:
        assert eventually(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
        assert not left.exists()
        with opened(far) as other:
            assert mine.client_file.exists()
            assert other.client_file.parent.name == f"lab-{os.getpid()}-2"


def test_a_clock_that_is_set_ends_no_connection(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(far) as mine:
        for seconds in (-3600, 3600):
            create_time = psutil.Process.create_time
            with monkeypatch.context() as patch:
                patch.setattr(psutil.Process, "create_time", lambda self, by=seconds, real=create_time: real(self) + by)
                opened(far).close()
            assert mine.client_file.exists()
            assert mine.alive


def test_a_later_process_of_the_same_id_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = client_folder.mark_of(os.getpid())
    assert mark
    assert client_folder.still_runs(mark)
    assert not client_folder.still_runs(mark | {"ticks": 1})
    assert not client_folder.still_runs(mark | {"boot": "another"})
    # where a start is told by the clock
    born = psutil.Process().create_time()
    monkeypatch.setattr(client_folder, "mark_of", lambda pid: {"pid": pid, "created": born})
    assert client_folder.still_runs({"pid": os.getpid(), "created": born + 1})
    assert not client_folder.still_runs({"pid": os.getpid(), "created": born - 60})
