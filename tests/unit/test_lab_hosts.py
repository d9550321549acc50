"""Container engines, images and hosts of a lab without any: a stand-in answers what the real ones would."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from stand_in import MAPPED, ROOTFUL, ROOTLESS, StandIn, info

from ipyfleet.lab import LabError, hosts, image, networks
from ipyfleet.lab import engine as engines
from ipyfleet.lab.engine import Engine, find_engine, free_ids, starting

pytestmark = pytest.mark.usefixtures("own_folders")

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


# -- networks


def test_hosts_of_several_networks_have_an_address_and_a_name_in_each(stand_in: StandIn, tmp_path: Path) -> None:
    answers = {
        "ps*": (0, "", ""),
        "network inspect lab-one*": (0, '{"ipyfleet.lab.base": "10.1.1"}', ""),
        "network inspect lab-two*": (0, '{"ipyfleet.lab.base": "10.1.2"}', ""),
        "network inspect*": (0, '{"ipyfleet.lab.base": "10.1.3"}', ""),
        "exec* is-system-running*": (0, "running", ""),
        "*": (0, "", ""),
    }
    log = stand_in("podman", answers)
    stand_in("ssh", {})
    stand_in("ssh-keygen", {})
    (tmp_path / "key.pub").write_text("key\n")
    way = hosts.Way(tmp_path / "key", tmp_path / "known_hosts")
    wanted = {"a": "bookworm", "b": "bookworm"}
    started, engine = hosts.up(Engine("podman"), "lab", wanted, way, networks={"a": ["one", "two"]})
    assert started["a"].addresses == {"one": "10.1.1.10", "two": "10.1.2.10"}
    assert started["b"].addresses == {"": "10.1.3.11"}
    calls = log.read_text()
    assert "--network lab-one --ip 10.1.1.10" in calls
    assert "--network-alias a --network-alias a.one" in calls
    assert "network connect --ip 10.1.2.10 --alias a.two" in calls
    found = json.loads(hosts.inventory(started, engine, way))["all"]["hosts"]
    assert found["a"]["lab_addresses"] == {"one": "10.1.1.10", "two": "10.1.2.10"}
    assert "lab_addresses" not in found["b"]


def test_all_networks_of_a_lab_are_removed(stand_in: StandIn) -> None:
    log = stand_in("podman", {"network ls*": (0, "lab\nlab-one\n", ""), "*": (0, "", "")})
    networks.remove_networks(Engine("podman"), "lab")
    assert log.read_text().splitlines()[-1].endswith("network rm lab lab-one")
