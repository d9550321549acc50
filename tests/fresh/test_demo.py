"""The README's first command on machines that have Debian, Python and git, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# what is tested is this clone's, installed or not; the imports below need it (hence E402)
sys.path.insert(0, str(ROOT / "src"))

from ipyfleet.lab import image  # noqa: E402
from ipyfleet.lab.engine import Engine, find_engine  # noqa: E402


class Machine:
    """A container in which a user has a clone."""

    def __init__(self, engine: Engine, tag: str, user: str) -> None:
        self.engine = engine
        self.name = f"fresh-{user}-{uuid.uuid4().hex[:8]}"
        self.user = user
        self.home = "/root" if user == "root" else f"/home/{user}"
        engine.run("run", "-d", "--init", "--name", self.name, tag)
        archive = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        packed = subprocess.run(["tar", "-cz", "--null", "-T", "-"], cwd=ROOT, input=archive, capture_output=True, check=True).stdout
        unpack = [engine.name, "exec", "-i", "-u", user, self.name, "sh", "-c", f"mkdir {self.home}/clone && tar -xzC {self.home}/clone"]
        subprocess.run(unpack, input=packed, check=True)

    def run(self, command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone."""
        # this machine's way to the package index, if it needs one of its own
        trust = [f"-eSSL_CERT_FILE=/{image.BUNDLE}"] if image.BUNDLE in image.site_files() else []
        given = ["-u", self.user, "-e", f"HOME={self.home}", "-w", f"{self.home}/clone", *trust, self.name]
        return self.engine.run("exec", *given, "sh", "-c", command, check=False, timeout=timeout)

    def files(self) -> set[str]:
        """Every file and folder of the machine that a user can have made."""
        found = self.run(f"find {self.home} /tmp /var/tmp /etc /opt /var/lib -xdev 2>/dev/null")
        return set(found.stdout.splitlines())

    def processes(self) -> list[str]:
        """Command lines of everything that runs, but the container's own."""
        listed = self.run("for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done").stdout.splitlines()
        return [line for line in listed if "python" in line]


@pytest.fixture(params=["root", "somebody"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A fresh machine, as root and as an ordinary user."""
    tag, engine = image.build_image(find_engine(), containerfile=ROOT / "tests" / "fresh" / "Containerfile")
    found = Machine(engine, tag, request.param)
    yield found
    engine.run("rm", "-f", "-t", "0", found.name)


def test_demo_comes_up_stays_as_it_is_and_goes_without_a_trace(machine: Machine) -> None:
    before = machine.files()
    assert machine.processes() == []
    first = machine.run("bin/demo")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "deployed" in first.stdout
    assert "['Hello, World', 'Hello, World']" in first.stdout
    assert "[0, 1]" in first.stdout
    pids = machine.run("pgrep -f ipengine.py || grep -la ipengine.py /proc/[0-9]*/cmdline").stdout
    assert pids
    second = machine.run("bin/demo")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "nothing had to be changed" in second.stdout
    assert "['Hello, World', 'Hello, World']" in second.stdout
    pasted = second.stdout.split("paste:\n")[1].split("\nbin/demo")[0]
    lines = "\n".join(line.strip() for line in pasted.strip().splitlines())
    typed = machine.run(f"{machine.home}/.local/share/ipyfleet/local/env/bin/python -c '{lines}; print(rc.ids)'")
    assert typed.stdout.strip() == "[0, 1]", typed.stderr
    removed = machine.run("bin/demo --remove")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert machine.processes() == []
    assert machine.files() - before == set()
    assert "no demo to remove" in machine.run("bin/demo --remove").stdout


def test_a_killed_controller_of_the_demo_comes_back_with_its_ports_and_engines(machine: Machine) -> None:
    assert machine.run("bin/demo").returncode == 0
    python = f"{machine.home}/.local/share/ipyfleet/local/env/bin/python"
    code = """
import glob, os, signal, time
import ipyparallel as ipp
rc = ipp.Client(profile="local")
rc[:].push({"mark": 42}, block=True)
def controllers():
    lines = {path: open(path, "rb").read().split(b"\\0") for path in glob.glob("/proc/[0-9]*/cmdline")}
    found = [path for path, line in lines.items() if any(word.endswith(b"/ipcontroller.py") for word in line[:2])]
    return sorted(int(path.split("/")[2]) for path in found)
def marks():
    try:
        return rc[:].pull("mark", block=False).get(timeout=1)
    except Exception:
        return None
for _ in range(3):
    # the first of them: the others are its schedulers
    os.kill(controllers()[0], signal.SIGKILL)
    begin = time.monotonic()
    while marks() != [42, 42]:
        assert time.monotonic() - begin < 40, "not back"
    what = "controller of the demo killed, until an open client reaches all engines with their memory"
    print(f"figure: {what}: {time.monotonic() - begin:.1f} s")
    time.sleep(11)
"""
    said = machine.run(f"{python} - <<'END'\n{code}\nEND")
    print(said.stdout)
    assert said.returncode == 0, said.stdout + said.stderr
    assert machine.run("bin/demo --remove").returncode == 0
