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
from fleet import ENGINE, EPHEMERAL, INVENTORY, NAME, ROOT, container, environ, eventually, main_pids, shell

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
        self.before: dict[str, str] = {}
        self.same = False
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
        watch = threading.Timer(120, os.killpg, (process.pid, signal.SIGKILL))
        watch.start()
        output, _ = process.communicate()
        watch.cancel()
        self.check_clean(output)
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
        self.check_clean(output)

    def check_clean(self, output: str) -> None:
        """Nothing says too much."""
        assert "Traceback" not in output, output
        assert not [each for each in secrets(KEYS, self.file.parent / ".ipyfleet" / "new") if each in output]

    def check_end(self, run: subprocess.CompletedProcess[str]) -> None:
        """What has to come of the case."""
        if self.case.ends == "untouched":
            assert not (self.file.parent / ".ipyfleet").exists()
            assert snapshot() == self.before
            self.same = True
            return
        if self.case.ends != "deployed":
            run = self.play("site.yml", sources=self.write(FLEETS[self.case.fleet])[:2])
        slots = {True: "fleet new: 1 of 1", False: "fleet lab: 2 of 2"}[self.case.pristine]
        assert run.returncode == 0, run.stdout
        assert f"{slots} engine slots answered" in run.stdout

    def tear_down(self, before: dict[str, str]) -> None:
        """Take the case's fleet away, and see that nothing is left of it."""
        plain = self.write(FLEETS[self.case.fleet])
        self.play("playbooks/teardown.yml", "-e", "teardown_data=true", "-e", "teardown_keys=true", sources=plain[:2])
        assert snapshot() == before
        self.same = True


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


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, str]]:
    """What the last case left, when that is known."""
    return {}


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, known: dict[str, dict[str, str]]) -> Iterator[Stage]:
    """A case, broken and mended; afterwards the scenario is as before, whatever came of it."""
    case: Case = request.param
    set_up = Stage(case, tmp_path)
    before = known.pop("hosts", None) or snapshot()
    try:
        set_up.do(case.breaks)
        set_up.before = snapshot() if case.breaks else before
        yield set_up
    finally:
        set_up.do(case.mends, check=False)
        if case.pristine and case.ends != "untouched":
            set_up.tear_down(before)
        # what was mended may be of another time
        if set_up.same and not case.breaks:
            known["hosts"] = before
        set_up.sockets.cleanup()


@pytest.mark.parametrize("stage", [pytest.param(case, id=f"{group}: {case.id}") for group, case in all_cases()], indirect=True)
def test_accident(stage: Stage) -> None:
    begin = time.monotonic()
    run = stage.accident()
    print(f"{time.monotonic() - begin:.1f} s, exit code {run.returncode}\n{run.stdout}")
    stage.check_output(run.stdout, stage.case.says)
    assert run.returncode == stage.case.exits
    if stage.case.ends == "unfinished":
        assert stage.play("playbooks/verify.yml", "-e", "ipp_controller_verify_timeout=3").returncode != 0
        stage.do(stage.case.mends, check=False)
    stage.check_end(run)
