"""The README's first command on machines that have Debian, Python and git, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# what is tested is this clone's, installed or not; the imports below need it (hence E402)
sys.path.insert(0, str(ROOT / "src"))

from ipyfleet.lab import image  # noqa: E402
from ipyfleet.lab.engine import Engine, find_engine  # noqa: E402

USERS = ("root", "somebody")


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
        return [line for line in listed if "python" in line or "postgres" in line]

    @property
    def python(self) -> str:
        """Python of the demo's environment."""
        return f"{self.home}/.local/share/ipyfleet/local/env/bin/python"

    def query(self, sql: str) -> subprocess.CompletedProcess[str]:
        """Ask the demo's database as a client does: by what the shell snippet sets, with no password in code."""
        code = f'import psycopg2; c = psycopg2.connect(""); k = c.cursor(); k.execute("{sql}"); print(k.fetchone()[0])'
        return self.run(f". ~/.config/ipyfleet/local/database.sh && {self.python} -c '{code}'")

    def status(self, url: str) -> str:
        """The HTTP status with which an address answers; ``none`` when nobody does."""
        code = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print("none")
"""
        return self.run(f"{self.python} - '{url}' <<'END'\n{code}\nEND").stdout.strip()


@contextmanager
def started(user: str) -> Iterator[Machine]:
    """A fresh machine, for as long as it is used."""
    tag, engine = image.build_image(find_engine(), containerfile=ROOT / "tests" / "fresh" / "Containerfile")
    found = Machine(engine, tag, user)
    try:
        yield found
    finally:
        engine.run("rm", "-f", "-t", "0", found.name)


@pytest.fixture(params=USERS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A fresh machine, as root and as an ordinary user."""
    with started(request.param) as found:
        yield found


@pytest.fixture(scope="module", params=USERS)
def demo(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine whose demo is up, which goes whatever was done to it."""
    with started(request.param) as found:
        said = found.run("bin/demo")
        assert said.returncode == 0, said.stdout + said.stderr
        yield found
        assert found.run("bin/demo --remove").returncode == 0


def address_in(said: str) -> tuple[str, str]:
    """Where JupyterLab is, and its token, as the demo shows it."""
    found = re.search(r"^(http://127\.0\.0\.1:\d+)/lab\?token=([0-9a-f]{64})$", said, re.MULTILINE)
    assert found, said
    return found[1], found[2]


def test_demo_comes_up_stays_as_it_is_and_goes_without_a_trace(machine: Machine) -> None:
    before = machine.files()
    assert machine.processes() == []
    first = machine.run("bin/demo")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "deployed" in first.stdout
    assert "['Hello, World', 'Hello, World']" in first.stdout
    assert "[0, 1]" in first.stdout
    assert "'table squares, in PostgreSQL " in first.stdout
    assert "{'rows': 1000, 'total': 333833500}" in first.stdout
    assert re.search(r"In JupyterLab, a cell ran in [0-9.]+ s and saw 2 engines\.", first.stdout)
    pids = machine.run("pgrep -f ipengine.py || grep -la ipengine.py /proc/[0-9]*/cmdline").stdout
    assert pids
    second = machine.run("bin/demo")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "nothing had to be changed" in second.stdout
    assert "['Hello, World', 'Hello, World']" in second.stdout
    pasted = second.stdout.split("paste:\n")[1].split("\nFor the database")[0]
    lines = "\n".join(line.strip() for line in pasted.strip().splitlines())
    typed = machine.run(f"{machine.python} -c '{lines}; print(rc.ids)'")
    assert typed.stdout.strip() == "[0, 1]", typed.stderr
    machine.run("cd ~/.local/share/ipyfleet/local/jupyterlab/notebooks && cp start-here.ipynb mine.ipynb")
    removed = machine.run("bin/demo --remove")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert machine.processes() == []
    assert machine.files() - before == set()
    assert "no demo to remove" in machine.run("bin/demo --remove").stdout


def test_a_killed_controller_of_the_demo_comes_back_with_its_ports_and_engines(demo: Machine) -> None:
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
    said = demo.run(f"{demo.python} - <<'END'\n{code}\nEND")
    print(said.stdout)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_database_of_the_demo_is_nobody_elses_and_comes_back_when_it_is_killed(demo: Machine) -> None:
    assert demo.query("select count(*) from squares").stdout.strip() == "1000", demo.query("select 1").stderr
    # whoever is asked by root or not: the server is not root, listens here alone, and lets nobody in without a password
    pids = "$(cat /proc/[0-9]*/stat | sed -n 's/^\\([0-9]*\\) (postgres).*/\\1/p')"
    owners = demo.run(f"for pid in {pids}; do stat -c %U /proc/$pid; done").stdout.split()
    assert set(owners) == {"nobody" if demo.user == "root" else demo.user}
    listening = {line.split()[1] for line in demo.run("cat /proc/net/tcp /proc/net/tcp6").stdout.splitlines() if " 0A " in line}
    port = demo.query("show port").stdout.strip()
    assert {each for each in listening if int(each.split(":")[1], 16) == int(port)} == {f"0100007F:{int(port):04X}"}
    unknown = demo.run(
        f". ~/.config/ipyfleet/local/database.sh && PGPASSFILE=/nowhere {demo.python} -c 'import psycopg2; psycopg2.connect(\"\")'"
    )
    assert "no password supplied" in unknown.stderr
    first = f". ~/.config/ipyfleet/local/database.sh && {demo.python} -c 'import psycopg2; psycopg2.connect(\"user=postgres password=x\")'"
    assert "rejects connection" in demo.run(first).stderr
    # a setting that it would not start with is refused before anything is changed
    wrong = '{"postgresql_settings": {"work_mem": "9XB"}}'
    refused = demo.run(
        f"ANSIBLE_CONFIG=$PWD/ansible.cfg XDG_CACHE_HOME=$PWD/.demo/cache .demo/tools/venv/bin/ansible-playbook site.yml -e '{wrong}'"
    )
    assert 'localhost: postgresql_settings.work_mem: invalid value for parameter "work_mem": "9XB"' in refused.stdout
    assert demo.query("show work_mem").stdout.strip() == "4MB"
    demo.run(f"kill -9 {pids}")
    begin = time.monotonic()
    while (demo.query("select count(*) from squares")).stdout.strip() != "1000":
        assert time.monotonic() - begin < 60, demo.run("cat ~/.local/share/ipyfleet/local/run/postgresql.log").stdout
        time.sleep(0.5)
    print(f"figure: database of the demo killed, until it answers: {time.monotonic() - begin:.1f} s")


def test_the_jupyterlab_of_the_demo_lets_in_who_has_the_token_and_comes_back_when_it_is_killed(demo: Machine) -> None:
    said = demo.run("bin/demo").stdout
    assert "nothing had to be changed" in said
    address, token = address_in(said)
    notebook = f"{address}/api/contents/start-here.ipynb?content=0"
    assert demo.status(f"{notebook}&token={token}") == "200"
    assert (demo.status(notebook), demo.status(f"{notebook}&token={'0' * 64}")) == ("403", "403")
    assert token not in demo.run("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout
    # it listens here alone
    listening = {line.split()[1] for line in demo.run("cat /proc/net/tcp /proc/net/tcp6").stdout.splitlines() if " 0A " in line}
    port = int(address.rpartition(":")[2])
    assert {each for each in listening if int(each.split(":")[1], 16) == port} == {f"0100007F:{port:04X}"}
    demo.run("kill -9 $(sed -n 's/.*\"pid\": \\([0-9]*\\).*/\\1/p' ~/.local/share/ipyfleet/local/run/jpserver-*.json)")
    begin = time.monotonic()
    assert demo.status(f"{notebook}&token={token}") == "none"
    while demo.status(f"{notebook}&token={token}") != "200":
        assert time.monotonic() - begin < 60, demo.run("cat ~/.local/share/ipyfleet/local/run/jupyterlab.log").stdout
        time.sleep(0.5)
    print(f"figure: JupyterLab of the demo killed, until it answers: {time.monotonic() - begin:.1f} s")
    again = demo.run("bin/demo").stdout
    assert "nothing had to be changed. In JupyterLab, a cell ran in " in again
    assert address_in(again) == (address, token)
