"""Everything that may go wrong on the way to a fleet: one test, and the cases in `cases/`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from accidents import FLEETS, Case, all_cases, fill
from fleet import ENGINE, EPHEMERAL, INVENTORY, NAME, ROOT, container, environ, eventually, main_pids, recap, shell

HOSTS = ("head", "node1", "node2", "spare")
KEYS = INVENTORY / ".ipyfleet" / NAME
# all that a fleet brings to a host, and when it was last written; its services and their main processes
LOOK = """
find /etc/ipyfleet /opt/ipyfleet /etc/systemd/system -maxdepth 3 '(' -type d -printf '%p %m %u\\n' ')' -o -printf '%p %m %u %T@\\n' | sort
find /var/lib/ipyfleet /run/ipyfleet -mindepth 1 -maxdepth 1
find /root /home -name profile_new
getent passwd | grep ipyfleet
systemctl show -p Id,MainPID,ExecMainStartTimestampMonotonic 'ipyfleet-*.service'
"""


class Stage:
    """The scenario's hosts, and a folder on this machine, for one case."""

    def __init__(self, case: Case, folder: Path) -> None:
        common = next(iter(json.loads((INVENTORY / "00_hosts.yml").read_text())["all"]["hosts"].values()))["ansible_ssh_common_args"]
        words = {name: container(name) for name in HOSTS}
        words |= {"here": str(folder), "engine": ENGINE, "key": str(EPHEMERAL / "id_ed25519"), "keys": str(KEYS)}
        words |= {"python": sys.executable, "proxy": f"-o ProxyCommand='{ENGINE} exec -i %h /usr/sbin/sshd -i'", "common": common}
        self.words = words
        self.case = case
        self.folder = folder
        self.file = folder / "fleet" / f"{'new' if case.pristine else NAME}.fleet.yml"
        self.file.parent.mkdir()
        self.sources = self.write(case.text())
        self.sockets = tempfile.TemporaryDirectory(prefix="ssh-")  # a short path, for sockets
        # connections of other cases are not to be used; and a task is to be named before a host is done with it
        self.environ = environ(ANSIBLE_SSH_CONTROL_PATH_DIR=self.sockets.name, ANSIBLE_DISPLAY_SKIPPED_HOSTS="1")

    def write(self, text: str) -> list[Path]:
        """Write the inventories; returns their paths, the strongest last."""
        keys = "" if self.case.pristine or "name:" not in text else f"\nsecrets_dir: {KEYS}\n"
        self.file.write_text(fill(text, self.words).rstrip() + keys + "\n")
        found = [] if self.case.only_ini else [self.file]
        found.append(INVENTORY / "00_hosts.yml")
        if self.case.ini:
            found.append(self.folder / "hosts.ini")
            found[-1].write_text(fill(self.case.ini, self.words))
        if self.case.hosts:
            found.append(self.folder / "zz_hosts.yml")
            found[-1].write_text(yaml.safe_dump({"all": {"hosts": fill(self.case.hosts, self.words)}}))
        return found

    def do(self, commands: Any, check: bool = True) -> None:
        """Run shell commands by host, `here` on this machine."""
        for name, command in fill(commands, self.words).items():
            if name == "here":
                subprocess.run(["sh", "-ec", command], cwd=self.folder, check=check, timeout=60, env=environ())
            else:
                shell(name, f"set -e; {command}", check=check)

    def start(self, *arguments: str, sources: list[Path] | None = None) -> subprocess.Popen[str]:
        """Start a playbook."""
        given = [word for source in (sources or self.sources) for word in ("-i", str(source))]
        return subprocess.Popen(
            ["ansible-playbook", *given, *fill(arguments, self.words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environ,
            start_new_session=True,
        )

    def play(self, *arguments: str, sources: list[Path] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a playbook to its end."""
        process = self.start(*arguments, sources=sources)
        output, _ = process.communicate(timeout=90)
        return subprocess.CompletedProcess(process.args, process.returncode, output, "")

    def accident(self) -> subprocess.CompletedProcess[str]:
        """Run the case's command, with what happens meanwhile.

        :raises AssertionError: when it does not end in time.
        """
        process = self.start(*self.case.command)
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        watch = threading.Timer(self.case.seconds, end)
        watch.start()
        meanwhile, lines = self.case.meanwhile, []
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            if meanwhile and meanwhile.at in line:
                if meanwhile.again:
                    other = self.play(*self.case.command)
                    assert other.returncode == 2, other.stdout
                    self.check_output(other.stdout, meanwhile.again)
                self.do(fill(meanwhile.do, {**self.words, "pid": str(process.pid)}))
                meanwhile = None
        code = process.wait()
        watch.cancel()
        output = "".join(lines)
        assert not late.is_set(), f"not within {self.case.seconds} s:\n{output}"
        assert meanwhile is None, f"never printed {meanwhile}:\n{output}"
        return subprocess.CompletedProcess(process.args, code, output, "")

    def check_output(self, output: str, says: str) -> None:
        """One line says what is expected, and none says too much."""
        expected = fill(says, self.words)
        # Ansible folds a text of one line at 80 columns
        said = [*output.splitlines(), *re.sub(r"\n +", " ", output).splitlines()]
        assert any(expected in line for line in said), f"expected {expected}\n{output}"
        assert "Traceback" not in output, output
        assert not [each for each in secrets(KEYS, self.file.parent / ".ipyfleet" / "new") if each in output]

    def check_works(self, run: subprocess.CompletedProcess[str]) -> None:
        """A run that ended well, with every slot."""
        slots = {True: "fleet new: 1 of 1", False: "fleet lab: 2 of 2"}[self.case.pristine]
        assert run.returncode == 0, run.stdout
        assert f"{slots} engine slots answered" in run.stdout

    def check_end(self, run: subprocess.CompletedProcess[str]) -> None:
        """What has to come of the case."""
        if self.case.ends == "untouched":
            assert not (self.file.parent / ".ipyfleet").exists()
            return
        plain = self.write(FLEETS[self.case.fleet])
        if self.case.ends != "deployed":
            self.check_works(self.play("site.yml", sources=plain[:2]))
        else:
            self.check_works(run)
        again = self.play("site.yml", sources=plain[:2] if self.case.ends != "deployed" else None)
        assert all(counts["changed"] == 0 for counts in recap(again).values()), again.stdout


def secrets(*folders: Path) -> Iterator[str]:
    """Every key that nobody may see."""
    for path in (folder / "secrets.json" for folder in folders):
        if path.exists():
            kept = json.loads(path.read_text())
            yield from (kept["key"], kept["curve_secret"])


def snapshot() -> dict[str, str]:
    """What of fleets is on every host."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(HOSTS, pool.map(lambda name: shell(name, LOOK, check=False), HOSTS), strict=True))


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    eventually(lambda: len(main_pids()) == 3)


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """A case, broken and mended; afterwards the scenario is as before, whatever came of it."""
    set_up = Stage(request.param, tmp_path)
    before = snapshot()
    try:
        set_up.do(set_up.case.breaks)
        yield set_up
    finally:
        set_up.do(set_up.case.mends, check=False)
        if set_up.case.pristine and set_up.case.ends != "untouched":
            plain = set_up.write(FLEETS[set_up.case.fleet])
            set_up.play("playbooks/teardown.yml", "-e", "teardown_data=true", "-e", "teardown_keys=true", sources=plain[:2])
            assert snapshot() == before
        set_up.sockets.cleanup()


@pytest.mark.parametrize("stage", [pytest.param(case, id=f"{group}: {case.id}") for group, case in all_cases()], indirect=True)
def test_accident(stage: Stage) -> None:
    before = snapshot()
    begin = time.monotonic()
    run = stage.accident()
    print(f"{time.monotonic() - begin:.1f} s, exit code {run.returncode}\n{run.stdout}")
    stage.check_output(run.stdout, stage.case.says)
    assert run.returncode == stage.case.exits
    if stage.case.ends == "unfinished":
        assert stage.play("playbooks/verify.yml", "-e", "ipp_controller_verify_timeout=3").returncode != 0
        stage.do(stage.case.mends, check=False)
    stage.check_end(run)
    if stage.case.ends == "untouched":
        assert snapshot() == before
