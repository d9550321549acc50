"""`ipyfleet lab` without a container engine: a stand-in answers what the real ones would."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_file import read_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.fleet_yaml import positions
from typer.testing import CliRunner

from ipyfleet.cli.app import app
from ipyfleet.errors import InputError
from ipyfleet.lab import Lab, LabError, hosts, image
from ipyfleet.lab import engine as engines
from ipyfleet.lab.engine import Engine, find_engine, free_ids, starting

StandIn = Callable[..., Path]
ROOTFUL = {"host": {"security": {"rootless": False}, "cgroupVersion": "v1"}}
MAPPED = [{"container_id": 0, "host_id": 1000, "size": 1}, {"container_id": 1, "host_id": 100000, "size": 65536}]
ROOTLESS = {"host": {"security": {"rootless": True}, "cgroupVersion": "v2", "idMappings": {"uidmap": MAPPED}}}


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the test's, and no program but stand-ins."""
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in (engines.VARIABLE, engines.CONF, "PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """Makes a program that answers by the first pattern that its arguments match; returns the log of its calls."""

    def make(name: str, answers: Mapping[str, tuple[int, str, str]]) -> Path:
        path, log = tmp_path / "bin" / name, tmp_path / f"{name}.log"
        lines = [
            f"{pattern.replace(' ', chr(92) + ' ')}) printf %s {shlex.quote(out)}; printf %s {shlex.quote(err)} >&2; exit {rc} ;;"
            for pattern, (rc, out, err) in answers.items()
        ]
        path.write_text("\n".join(["#!/bin/sh", f'echo "$CONTAINERS_CONF $*" >>{shlex.quote(str(log))}', 'case "$*" in', *lines, "esac"]))
        path.chmod(0o755)
        return log

    return make


def info(about: Mapping[str, Any]) -> dict[str, tuple[int, str, str]]:
    return {"info*": (0, json.dumps(about), "")}


# -- the engine


def test_no_engine_is_told_with_what_to_install() -> None:
    with pytest.raises(LabError) as raised:
        find_engine()
    assert str(raised.value) == "expected podman or docker, got neither; install podman, on Debian or Ubuntu: sudo apt install podman"


def test_podman_comes_first_and_another_one_can_be_named(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in("podman", info(ROOTFUL))
    stand_in("docker", info({"CgroupVersion": "2"}))
    assert find_engine().name == "podman"
    monkeypatch.setenv(engines.VARIABLE, "docker")
    assert find_engine().name == "docker"
    monkeypatch.setenv(engines.VARIABLE, "nerdctl")
    with pytest.raises(LabError, match="expected nerdctl, got no such program"):
        find_engine()


@pytest.mark.parametrize(
    ("name", "answers", "expected"),
    [
        ("podman", {"info*": (125, "", "warning\nError: no such socket\n")}, "podman: expected it to answer, got: Error: no such socket"),
        ("podman", {"info*": (0, "", "")}, "podman: expected it to answer, got: exit code 0"),
        ("docker", info({"ServerErrors": ["no daemon"]}), "docker: expected it to answer, got: no daemon"),
        ("docker", info({"CgroupVersion": "1"}), "docker: expected cgroups v2, without which it cannot run systemd hosts safely, got v1"),
        (
            "podman",
            info({"host": {**ROOTLESS["host"], "cgroupVersion": "v1"}}),
            "podman: expected cgroups v2, without which an ordinary user",
        ),
        ("podman", info({"host": {**ROOTLESS["host"], "idMappings": {"uidmap": MAPPED[:1]}}}), "podman: expected ranges of ids for "),
        ("podman", info({"host": {**ROOTLESS["host"], "idMappings": None}}), "podman: expected ranges of ids for "),
    ],
)
def test_an_engine_that_does_not_do_says_why(stand_in: StandIn, name: str, answers: dict[str, tuple[int, str, str]], expected: str) -> None:
    stand_in(name, answers)
    with pytest.raises(LabError) as raised:
        find_engine()
    assert str(raised.value).startswith(expected)
    assert len(str(raised.value).splitlines()) == 1


def test_an_ordinary_user_with_ids_and_cgroups_will_do(stand_in: StandIn) -> None:
    stand_in("podman", info(ROOTLESS))
    stand_in("docker", {"info*": (1, "", "permission denied")})
    assert find_engine() == Engine("podman")


def test_new_ids_are_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    assert free_ids(path) == "100000-165535"
    path.write_text("ada:100000:65536\n# a comment\nbob:231072:65536\n")
    assert free_ids(path) == "296608-362143"


def test_settings_with_which_containers_start_are_found_once(stand_in: StandIn, tmp_path: Path) -> None:
    log = stand_in("podman", {"run*": (1, "", "setrlimit: not permitted")})
    stand_in("runc", {})
    with pytest.raises(LabError) as raised:
        starting(Engine("podman"), "image")
    assert [line.split(": ", 1)[0] for line in str(raised.value).splitlines()] == [
        "podman run, as installed", "podman run, own ulimits", "podman run, runc", "podman run, runc, own ulimits",
    ]  # fmt: skip
    assert len(log.read_text().splitlines()) == 4
    stand_in("podman", {"run*": (0, "", "")})
    assert starting(Engine("podman"), "image") == Engine("podman")
    log.unlink()
    assert starting(Engine("podman"), "image") == Engine("podman")
    assert len(log.read_text().splitlines()) == 1
    conf = tmp_path / "XDG_CACHE_HOME" / "ipyfleet" / "lab" / "containers.conf"
    conf.write_text('[engine]\nruntime = "runc"\n')
    # what worked once and does no more is looked for again
    stand_in("podman", {"run*": (1, "", "cgroups in hybrid mode not supported")})
    with pytest.raises(LabError):
        starting(Engine("podman", {"CONTAINERS_CONF": str(conf)}), "image")
    stand_in("podman", info(ROOTFUL))
    assert find_engine().environ == {"CONTAINERS_CONF": str(tmp_path / "XDG_CACHE_HOME/ipyfleet/lab/containers.conf")}


def test_a_command_that_does_not_end_is_told(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "podman"
    program.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    program.chmod(0o755)
    with pytest.raises(LabError, match="podman ps: expected an end, got none in 0 s"):
        Engine("podman").run("ps", timeout=0.1)


# -- the image


def test_no_registry_and_no_mmdebstrap_are_told_with_what_would_help(stand_in: StandIn) -> None:
    stand_in("podman", {"image*": (1, "", "no such image"), "pull*": (125, "", "Error: dial tcp: no such host\n")})
    said: list[str] = []
    with pytest.raises(LabError) as raised:
        image.base_image(Engine("podman"), "trixie", say=said.append)
    assert str(raised.value) == (
        "docker.io/library/debian:13-slim: Error: dial tcp: no such host; "
        "mmdebstrap, once installed, makes such an image from Debian's archive"
    )
    assert said == ["fetching docker.io/library/debian:13-slim"]


def test_what_broke_a_build_is_told_and_all_of_it_kept(stand_in: StandIn, tmp_path: Path) -> None:
    output = (
        'STEP 3/5: RUN set -eu; apt-get update\nE: Unable to locate package sudo\nError: building at STEP "RUN set -eu": exit status 100\n'
    )
    stand_in("podman", {"image inspect localhost*": (1, "", ""), "image*": (0, "[]", ""), "run*": (0, "", ""), "build*": (125, "", output)})
    with pytest.raises(LabError) as raised:
        image.build_image(Engine("podman"))
    log = tmp_path / "XDG_CACHE_HOME" / "ipyfleet" / "lab" / "build.log"
    assert "expected the image to be built, got: E: Unable to locate package sudo; all of it is in" in str(raised.value)
    assert str(log) in str(raised.value)
    assert log.read_text() == output


def test_hosts_get_this_machines_way_to_its_packages_but_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates\n")
    monkeypatch.setenv("PIP_CERT", str(bundle))
    listed = "global.index-url='https://me:secret@index.example/simple'\nglobal.extra-index-url='https://more.example/simple'\n"
    monkeypatch.setattr(image, "run", lambda *words, **_: subprocess.CompletedProcess(words, 0, listed, ""))
    assert image.site_files() == {
        "etc/ssl/certs/lab-ca-bundle.crt": "certificates\n",
        "etc/pip.conf": "[global]\ncert = /etc/ssl/certs/lab-ca-bundle.crt\nextra-index-url = https://more.example/simple\n",
    }


# -- hosts


def test_hosts_are_reached_over_the_engine_and_their_keys_are_checked(tmp_path: Path) -> None:
    way = hosts.Way(tmp_path / "two words" / "key", tmp_path / "two words" / "known_hosts", "ops")
    found = hosts.connection(Engine("docker"), way)
    words = shlex.split(found["ansible_ssh_common_args"])
    assert "ProxyCommand=docker exec -i %h /usr/sbin/sshd -i" in words
    assert f'UserKnownHostsFile="{tmp_path}/two words/known_hosts"' in words
    assert "StrictHostKeyChecking=yes" in words
    assert found["ansible_ssh_private_key_file"] == f"{tmp_path}/two words/key"
    assert found["ansible_user"] == "ops"


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ("Failed to mount cgroup\n", "; its last words: Failed to mount cgroup"),
        ("", ""),
        (
            "Failed to allocate manager object: Too many open files\nExiting PID 1...\n",
            "; no inotify instances are left for it: sudo sysctl fs.inotify.max_user_instances=1024",
        ),
    ],
)
def test_a_host_that_does_not_boot_is_told_with_its_last_words(stand_in: StandIn, tmp_path: Path, logs: str, expected: str) -> None:
    answers = {
        "ps*": (0, "lab-a", ""),
        "inspect --type*": (0, "/lab-a exited\n", ""),
        "inspect --format*": (0, "exited, exit code 255\n", ""),
        "network inspect*": (0, '{"ipyfleet.lab.base": "10.1.2"}', ""),
        "exec*": (255, "", "not running"),
        "logs*": (0, logs, ""),
    }
    stand_in("podman", answers)
    stand_in("ssh", {})
    stand_in("ssh-keygen", {})
    (tmp_path / "key.pub").write_text("key\n")
    with pytest.raises(LabError) as raised:
        hosts.up(Engine("podman"), "lab", {"a": "bookworm"}, hosts.Way(tmp_path / "key", tmp_path / "known_hosts"))
    assert str(raised.value) == f"lab-a: expected its systemd to be running, got a container that is exited, exit code 255{expected}"


def test_ssh_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"expected ssh, got no such program; on Debian or Ubuntu: sudo apt install openssh-client"):
        hosts.make_key(tmp_path / "key", "lab")


# -- a lab


@pytest.fixture
def there(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> dict[str, hosts.Host]:
    """Hosts that there are: those that were started, without any container."""
    found: dict[str, hosts.Host] = {}

    def up(engine: Engine, prefix: str, wanted: Mapping[str, str], *_: object, **__: object) -> tuple[dict[str, hosts.Host], Engine]:
        for name in wanted:
            was = found.get(name)
            found[name] = hosts.Host(name, f"{prefix}-{name}", "running", started=was is None)
        return dict(found), engine

    def down(*_: object) -> list[str]:
        gone = list(found)
        found.clear()
        return gone

    stand_in("podman", info(ROOTFUL))
    monkeypatch.setattr(hosts, "up", up)
    monkeypatch.setattr(hosts, "down", down)
    monkeypatch.setattr(hosts, "states", lambda *_: list(found.values()))
    return found


@pytest.mark.parametrize("name", ["Lab", "a b", "../x", "", "-a", "a" * 21])
def test_a_lab_is_called_as_fleets_are(name: str) -> None:
    with pytest.raises(InputError, match="--name: expected lower-case letters, digits and dashes, at most 20, a letter first, got"):
        Lab(name)


@pytest.mark.parametrize("engines_", [1, 3])
def test_a_lab_has_a_fleet_file_that_only_its_owner_can_read(there: dict[str, hosts.Host], engines_: int) -> None:
    lab = Lab("try-it")
    lab.start(engines=engines_, slots=4)
    text = lab.fleet_file.read_text()
    fleet = read_fleet(yaml.safe_load(text), lab.fleet_file.name, positions(text))
    nodes = tuple(f"node{number}" for number in range(1, engines_ + 1))
    assert fleet.groups["ipp_engine"] == nodes
    assert fleet.groups["ipp_controller"] == fleet.groups["ipp_client"] == ("head",)
    assert all(fleet.host_vars[name]["ansible_host"] == f"ipyfleet-try-it-{name}" for name in ("head", *nodes))
    assert {fleet.host_vars[name]["ipp_engine_slots"] for name in nodes} == {4}
    assert fleet.all_vars["ipp_controller_location"] == "head"
    assert "`ipyfleet lab down --name try-it`" in text
    assert lab.folder.stat().st_mode & 0o777 == 0o700
    assert set(there) == {"head", *nodes}


def test_a_second_start_starts_nothing_and_leaves_the_fleet_file_alone(there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    assert all(host.started for host in lab.start(slots=1).values())
    lab.fleet_file.write_text("changed by its owner")
    assert not any(host.started for host in lab.start().values())
    assert lab.fleet_file.read_text() == "changed by its owner"
    status = lab.status()
    assert status is not None
    assert status.ok
    del there["node2"]
    status = lab.status()
    assert status is not None
    assert [host.state for host in status.hosts] == ["running", "running", "absent"]


def test_another_shape_is_refused_while_there_are_hosts(there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    lab.start()
    with pytest.raises(InputError) as raised:
        lab.start(engines=2, slots=3)
    assert raised.value.problems == (
        "lab lab: expected engines 2, slots 2, as it has, got engines 2, slots 3; take it away first, with `ipyfleet lab down`",
    )
    there.clear()
    lab.start(engines=1, slots=3)
    assert "  node1: 3\n" in lab.fleet_file.read_text()


def test_two_at_once_do_not_meet_in_one_lab(there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    lab.start()
    handle = os.open(lab.folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for call in (lab.start, lab.down):
            with pytest.raises(LabError, match="lab lab: another `ipyfleet lab` is at work on it; try again when that is done"):
                call()
    finally:
        os.close(handle)
    assert set(there) == {"head", "node1", "node2"}


def test_nothing_is_left_of_a_lab_and_others_stay(there: dict[str, hosts.Host], tmp_path: Path) -> None:
    state = tmp_path / "XDG_STATE_HOME"
    first, second = Lab("one"), Lab("two")
    first.start()
    second.folder.mkdir()
    (second.folder / "lab.json").touch()
    assert first.down() == ["head", "node1", "node2"]
    assert list((state / "ipyfleet" / "lab").iterdir()) == [second.folder]
    (second.folder / "lab.json").unlink()
    assert second.down() == []
    assert list(state.iterdir()) == []
    assert there == {}


def test_a_start_that_fails_at_once_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="expected podman or docker"):
        Lab().start()
    assert list((tmp_path / "XDG_STATE_HOME").iterdir()) == []
    assert Lab().status() is None
    assert Lab().down() == []


def test_a_damaged_or_impossible_folder_is_told(tmp_path: Path, there: dict[str, hosts.Host]) -> None:
    lab = Lab()
    lab.start()
    (lab.folder / "lab.json").write_text('{"engines": 2')
    for call in (lab.start, lab.status, lab.down):
        with pytest.raises(LabError, match=r"lab/lab/lab\.json: expected what `ipyfleet lab` wrote, got something else; remove it, then"):
            call()
    (lab.folder / "lab.json").unlink()
    assert lab.down() == ["head", "node1", "node2"]
    assert there == {}
    (tmp_path / "XDG_STATE_HOME" / "ipyfleet").touch()
    with pytest.raises(LabError, match="XDG_STATE_HOME/ipyfleet/lab/lab: expected a folder that can be written to, got: Not a directory"):
        lab.start()


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (
            ["--engines", "0", "--release", "sid"],
            ["--engines: expected a number from 1 to 64, got 0", "--release: expected bookworm or trixie, got sid"],
        ),
        (["--slots", "65"], ["--slots: expected a number from 1 to 64, got 65"]),
        (["--name", "A"], ["--name: expected lower-case letters, digits and dashes, at most 20, a letter first, got 'A'"]),
    ],
)
def test_a_lab_that_cannot_be_is_refused_before_anything_is_started(words: list[str], problems: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["lab", "up", *words])
    assert isinstance(result.exception, InputError)
    assert list(result.exception.problems) == problems
    assert not (tmp_path / "XDG_STATE_HOME").exists()


def test_status_and_down_without_a_lab_say_so() -> None:
    result = CliRunner().invoke(app, ["lab", "status", "--name", "mine"])
    assert (result.exit_code, result.output) == (1, "there is no lab mine; ipyfleet lab up --name mine makes one\n")
    result = CliRunner().invoke(app, ["lab", "status", "--json"])
    assert (result.exit_code, json.loads(result.output)) == (1, {"schema": 1, "ok": False, "lab": None})
    result = CliRunner().invoke(app, ["lab", "down"])
    assert result.exit_code == 0
    assert "there was no lab lab" in result.output


def test_status_of_a_lab_with_a_host_that_is_down_names_it(there: dict[str, hosts.Host]) -> None:
    Lab().start()
    there["node1"] = replace(there["node1"], state="exited")
    result = CliRunner().invoke(app, ["lab", "status"])
    assert result.exit_code == 3
    assert "ipyfleet-lab-node1  exited" in result.output
    assert "lab lab is not up as a whole; ipyfleet lab up brings it back" in result.output
    shown = json.loads(CliRunner().invoke(app, ["lab", "status", "--json"]).output)
    assert [host["state"] for host in shown["lab"]["hosts"]] == ["running", "exited", "running"]
