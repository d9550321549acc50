"""`ipyfleet lab` as somebody uses it who tries ipyfleet: up, looked at, used from this machine, and gone without a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# what is tested is this clone's, installed or not; the imports below need it (hence E402)
sys.path.insert(0, str(ROOT / "src"))

from ipyfleet import Cluster  # noqa: E402
from ipyfleet.lab import Lab  # noqa: E402
from ipyfleet.lab.engine import Engine, find_engine  # noqa: E402
from ipyfleet.lab.image import HOST, RELEASE, build_image  # noqa: E402
from ipyfleet.lab.networks import LABEL  # noqa: E402

NAME = f"try-{uuid.uuid4().hex[:6]}"


def typed(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """What somebody gets who types `ipyfleet` and these words."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "160"}
    said = subprocess.run([sys.executable, "-m", "ipyfleet", *words], capture_output=True, text=True, check=False, env=environ, timeout=900)
    assert not check or said.returncode == 0, said.stdout + said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    return said


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The container engine, with the image that hosts are started from."""
    return build_image(find_engine(), RELEASE, HOST)[1]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab of one engine host that nobody has deployed to, in folders of the test's own."""
    with tempfile.TemporaryDirectory(prefix="two words ") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        found = Lab(NAME)
        yield found
        found.down()
        del os.environ["XDG_STATE_HOME"]


def traces(engine: Engine) -> list[str]:
    """Containers and networks of the lab."""
    commands = (("ps", "-a", "--format", "{{.Names}}"), ("network", "ls", "--format", "{{.Name}}"))
    return [name for words in commands for name in engine.run(*words).stdout.split() if NAME in name]


def pids(lab: Lab) -> dict[int, int | None]:
    """Process ids of the engines, by id."""
    return {slot.id: slot.pid for slot in Cluster(lab.fleet_file).verify(client=False).check_ok().slots}


def test_a_lab_comes_up_with_answers_and_says_how_to_go_on(lab: Lab) -> None:
    said = typed("lab", "up", "--name", NAME, "--engines", "1", "--slots", "2").stdout
    assert "2 of 2 engine slots answered" in said
    assert f"Cluster('{lab.fleet_file}').client()" in said
    assert said.endswith(f"When done: ipyfleet lab down --name {NAME}\n")
    assert lab.folder.stat().st_mode & 0o077 == 0


def test_every_other_verb_works_with_its_fleet_file(lab: Lab) -> None:
    said = typed("lab", "status", "--name", NAME).stdout
    assert "running" in said
    assert "2 of 2 engine slots registered" in said
    shown = json.loads(typed("lab", "status", "--name", NAME, "--json").stdout)
    assert (shown["ok"], shown["lab"]["fleet_file"]) == (True, str(lab.fleet_file))
    assert {host["name"]: host["state"] for host in shown["lab"]["hosts"]} == {"head": "running", "node1": "running"}
    assert "a client on this machine reached 2 engines" in typed("verify", "-i", str(lab.fleet_file)).stdout
    # an ordinary user's login, as on hosts of one's own
    assert typed("ssh", "head", "-i", str(lab.fleet_file), "--", "id", "-un").stdout == "ops\n"


def test_a_client_on_this_machine_reaches_its_engines(lab: Lab) -> None:
    client = Cluster(lab.fleet_file).client()
    try:
        assert client.ids == [0, 1]
        # by name: this Python need not be the hosts' own
        assert client[:].apply_sync(os.path.basename, "/hello/world") == ["world", "world"]
    finally:
        client.close()


def test_a_second_up_changes_nothing_and_says_so(lab: Lab) -> None:
    before = pids(lab)
    said = typed("lab", "up", "--name", NAME).stdout
    assert f"lab {NAME} was up already; nothing was changed" in said
    assert pids(lab) == before


def test_another_shape_is_refused_and_nothing_happens(lab: Lab) -> None:
    before = pids(lab)
    said = typed("lab", "up", "--name", NAME, "--engines", "2", check=False)
    assert said.returncode == 2
    line = f"ipyfleet: lab {NAME}: expected engines 1, as it has, got engines 2; take it away first, with `ipyfleet lab down`\n"
    assert said.stderr == line
    assert pids(lab) == before


def test_a_host_with_another_key_is_not_talked_to(lab: Lab, engine: Engine) -> None:
    node = f"{lab.prefix}-node1"
    renew = "rm /etc/ssh/ssh_host_*; ssh-keygen -q -A"
    engine.run("exec", node, "sh", "-c", f"cp -a /etc/ssh /root/ssh; {renew}")
    # connections that are open already do not ask again
    engine.run("exec", node, "sh", "-c", "pkill -u ops sshd || true")
    said = typed("exec", "-i", str(lab.fleet_file), "-l", "node1", "--", "true", check=False)
    assert said.returncode != 0
    assert "Host key verification failed" in said.stdout + said.stderr
    engine.run("exec", node, "sh", "-c", "rm -r /etc/ssh; mv /root/ssh /etc/ssh")
    typed("exec", "-i", str(lab.fleet_file), "-l", "node1", "--", "true")


def test_hosts_that_were_stopped_are_started_again(lab: Lab, engine: Engine) -> None:
    engine.run("stop", "-t", "0", f"{lab.prefix}-node1")
    said = typed("lab", "status", "--name", NAME, check=False)
    assert said.returncode == 3
    assert f"lab {NAME} is not up as a whole" in said.stdout
    said = typed("lab", "up", "--name", NAME)
    assert "starting node1" in said.stdout
    assert "2 of 2 engine slots answered" in said.stdout
    assert "nothing was changed" not in said.stdout


def test_a_host_that_an_interruption_left_half_made_is_made_anew(lab: Lab, engine: Engine) -> None:
    node = f"{lab.prefix}-node1"
    image = engine.run("inspect", "--format", "{{.Image}}", node).stdout
    address = engine.run("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", node).stdout.strip()
    engine.run("rm", "-f", "-t", "0", node)
    place = ["--network", lab.prefix, "--ip", address, "--label", f"{LABEL}={lab.prefix}"]
    engine.run("create", "--name", node, *place, image.strip())
    said = typed("lab", "up", "--name", NAME)
    assert "2 of 2 engine slots answered" in said.stdout


def test_nothing_is_left_of_it(lab: Lab, engine: Engine) -> None:
    assert traces(engine) != []
    said = typed("lab", "down", "--name", NAME).stdout
    assert f"lab {NAME} is gone: hosts head, node1, network {lab.prefix}, folder {lab.folder}" in said
    assert traces(engine) == []
    assert list(Path(os.environ["XDG_STATE_HOME"]).iterdir()) == []
    assert f"there was no lab {NAME}" in typed("lab", "down", "--name", NAME).stdout
