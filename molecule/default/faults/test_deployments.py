"""Deployments over a running fleet, over a broken one, and with a host that is down."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet import (
    ENGINE_FILE,
    EPHEMERAL,
    INVENTORY,
    NAME,
    PROFILE,
    ROOT,
    STATE,
    USER,
    environ,
    eventually,
    main_pids,
    play,
    python,
    recap,
    shell,
)

PRESENT = "--limit=localhost:all:!gone"


def settled() -> dict[str, str]:
    """Main processes, once all units run for good."""
    eventually(lambda: len(main_pids()) == 5)
    return main_pids()


def test_a_run_that_changes_nothing_touches_no_process() -> None:
    before = settled()
    said = play(PRESENT)
    assert said.returncode == 0, said.stdout
    assert all(counts["changed"] == 0 for counts in recap(said).values())
    assert main_pids() == before


def test_a_host_that_is_down_does_not_stop_the_others_and_is_named() -> None:
    said = play()
    assert said.returncode != 0
    assert recap(said)["gone"]["unreachable"] == 1
    assert "gone is unreachable and left out: " in said.stdout + said.stderr
    assert "fleet lab: 4 of 5 engine slots answered" in said.stdout
    assert "gone slot 0 (id 4): the host did not answer" in said.stdout
    assert {0, 1, 2, 3} == set(python("head", "print(json.dumps(rc.ids))"))


ETC, UNITS, FLEET_ENV = f"/etc/ipyfleet/{NAME}", "/etc/systemd/system", f"/opt/ipyfleet/{NAME}/env"
ENGINE_UNIT = f"ipyfleet-{NAME}-engine@"
# what is done to node1, and what the deployment says it did about it
BREAKAGES: list[tuple[str, str, str]] = [
    # the engines were not started with what was edited: there is nothing to restart
    ("a file that was edited", f"echo '# mine' >>{ETC}/ipengine_config.py", "^change file$"),
    (
        "a file that was edited and used",
        f"echo '# mine' >>{ETC}/ipengine_config.py; systemctl restart {ENGINE_UNIT}1",
        "^change file, restart$",
    ),
    ("a file that is half there", f"truncate -s 20 {ENGINE_FILE}", "^change file$"),
    ("a file that is gone", f"rm {ETC}/engine-0.json", "^create file$"),
    ("a key that others can read", f"chmod 644 {ENGINE_FILE}", "^set$"),
    ("a file of another owner", f"chown root {ENGINE_FILE}", "^change file$"),
    ("a folder of another owner", f"chown root:root {STATE}", "^set$"),
    ("a unit file that was edited", f"sed -i s/250ms/9/ {UNITS}/{ENGINE_UNIT}.service", "^change file$"),
    ("a unit that was stopped", f"systemctl stop {ENGINE_UNIT}0", "^start$"),
    ("a unit that was disabled", f"systemctl disable -q {ENGINE_UNIT}0", "^enable$"),
    (
        "a unit that nobody wants",
        f"cp -p {ETC}/engine-0.json {ETC}/engine-7.json; systemctl enable -q {ENGINE_UNIT}7",
        "^stop and disable, remove$",
    ),
    ("an environment without a stamp", f"rm {FLEET_ENV}/ipyfleet.json", "^install Python environment$"),
    ("an environment whose Python is gone", f"rm {FLEET_ENV}/bin/python", "^install Python environment$"),
    (
        "a client's file that does not belong there",
        f"install -m 600 -o {USER} /dev/null {PROFILE}/security/ipcontroller-client.json",
        "^remove$",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("breakage", "expected"), [case[1:] for case in BREAKAGES], ids=[case[0] for case in BREAKAGES])
def test_what_drifted_is_put_right_and_nothing_else(breakage: str, expected: str) -> None:
    before = settled()
    shell("node1", breakage)
    said = play(PRESENT, "-v")
    assert said.returncode == 0, said.stdout
    counts = recap(said)
    assert {name: counts[name]["changed"] for name in ("head", "node1", "node2", "desk")} == {"head": 0, "node1": 1, "node2": 0, "desk": 0}
    message = re.search(r"^changed: \[node1\].*?^    msg: (.*?)$", said.stdout, re.MULTILINE | re.DOTALL)
    assert message
    assert re.search(expected, message[1])
    after = settled()
    untouched = {key: pid for key, pid in before.items() if "start" not in expected or not key.startswith("node1")}
    assert {key: after[key] for key in untouched} == untouched


def test_a_drift_is_seen_in_check_mode_and_not_touched() -> None:
    before = settled()
    shell("node1", f"echo '# mine' >>/etc/ipyfleet/{NAME}/ipengine_config.py")
    said = play(PRESENT, "--check", "--diff")
    assert recap(said)["node1"]["changed"] == 1
    assert "-# mine" in said.stdout
    assert main_pids() == before
    assert shell("node1", f"tail -1 /etc/ipyfleet/{NAME}/ipengine_config.py") == "# mine"
    assert play(PRESENT).returncode == 0
    assert all(counts["changed"] == 0 for counts in recap(play(PRESENT)).values())


def variant(folder: Path, change: Callable[[str], str]) -> tuple[Path, ...]:
    """The scenario's inventory with a changed fleet file, and the same keys."""
    text = change((ROOT / "molecule" / "default" / "inventory" / "lab.fleet.yml").read_text())
    target = folder / "lab.fleet.yml"
    target.write_text(f"{text}secrets_dir: {INVENTORY}/.ipyfleet/{NAME}\n")
    return target, INVENTORY / "00_hosts.yml"


def test_more_slots_and_fewer_slots_touch_no_other_engine(tmp_path: Path) -> None:
    before = settled()
    more = variant(tmp_path, lambda text: text.replace("node[1:2]: 2", "node1: 3\n  node2: 2"))
    said = play(PRESENT, sources=more)
    assert said.returncode == 0, said.stdout
    assert "fleet lab: 5 of 5 engine slots answered" in said.stdout
    grown = main_pids()
    assert {key: grown[key] for key in before} == before
    assert [key for key in grown if key not in before] == [f"node1 ipyfleet-{NAME}-engine@2.service"]
    said = play(PRESENT)
    assert said.returncode == 0, said.stdout
    assert main_pids() == before
    assert python("head", "print(json.dumps(rc.ids))") == [0, 1, 2, 3]


def test_a_new_setting_restarts_what_reads_it(tmp_path: Path) -> None:
    before = settled()
    changed = variant(tmp_path, lambda text: text.replace("defaults: {", "defaults: {ipp_engine_env: {FLAVOUR: mild}, "))
    said = play(PRESENT, sources=changed)
    assert said.returncode == 0, said.stdout
    after = settled()
    assert [key for key in before if after[key] == before[key]] == [f"head ipyfleet-{NAME}-controller.service"]
    assert python("head", "print(json.dumps(rc[:].apply_sync(os.getenv, 'FLAVOUR')))") == ["mild"] * 4
    assert play(PRESENT).returncode == 0


def test_packages_of_the_fleet_file(tmp_path: Path) -> None:
    with_package = variant(tmp_path, lambda text: text + "python_packages: [cowsay==6.1]\n")
    said = play(PRESENT, sources=with_package)
    assert said.returncode == 0, said.stdout
    assert python("head", "print(json.dumps(rc[:].apply_sync(lambda: __import__('cowsay').__version__)))") == ["6.1"] * 4
    settled()
    again = play(PRESENT, sources=with_package)
    assert all(counts["changed"] == 0 for counts in recap(again).values())
    assert play(PRESENT).returncode == 0


def test_another_fleet_on_the_same_hosts(tmp_path: Path) -> None:
    before = settled()
    file = tmp_path / "two.fleet.yml"
    file.write_text("plugin: fleet\nname: two\ncontroller: {host: head, location: head}\nengines: {node1: 1}\nclients: [desk]\n")
    said = play(sources=(file, INVENTORY / "00_hosts.yml"))
    assert said.returncode == 0, said.stdout
    assert "fleet two: 1 of 1 engine slots answered" in said.stdout
    code = "rc.close(); two = ipp.Client(profile='two'); print(json.dumps(two[:].apply_sync(lambda: 'Hello, World')))"
    assert python("desk", code) == ["Hello, World"]
    clash = tmp_path / "three.fleet.yml"
    first = shell("head", "python3 -c \"import json; print(json.load(open('/etc/ipyfleet/two/fleet.json'))['first_port'])\"")
    clash.write_text(file.read_text().replace("name: two", "name: three") + f"ports: {int(first) + 50}\n")
    said = play(sources=(clash, INVENTORY / "00_hosts.yml"))
    assert said.returncode != 0
    assert (
        f"head: expected ports {int(first) + 50} to {int(first) + 149} for this fleet alone, got fleet two with {first} to" in said.stdout
    )
    gone = play("-e", "teardown_keys=true", playbook="playbooks/teardown.yml", sources=(file, INVENTORY / "00_hosts.yml"))
    assert gone.returncode == 0, gone.stdout
    for name in ("head", "node1", "desk"):
        found = shell(
            name, "find / -xdev \\( -path '*/ipyfleet/two' -o -name 'ipyfleet-two*' -o -name profile_two \\) -not -path '/proc/*'"
        )
        assert found == ""
    assert shell("node1", "getent passwd ipyfleet-two", check=False) == ""
    assert not (tmp_path / ".ipyfleet").exists()
    assert main_pids() == before


def test_keys_may_be_in_a_vault(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    copy = tmp_path / "keys"
    shutil.copytree(EPHEMERAL / "inventory" / ".ipyfleet" / NAME, copy)
    encrypt = ["ansible-vault", "encrypt", "--vault-password-file", str(password), str(copy / "secrets.json")]
    subprocess.run(encrypt, check=True, capture_output=True, env=environ())
    said = play(PRESENT, "-e", f"fleet_secrets_dir={copy}", "--vault-password-file", str(password))
    assert said.returncode == 0, said.stdout
    assert all(counts["changed"] == 0 for counts in recap(said).values())
