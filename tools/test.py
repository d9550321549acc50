"""Run the project's tests, from a machine that has nothing but Python: see bin/test."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bootstrap
import lab

from ipyfleet.lab import LabError
from ipyfleet.lab.image import RELEASES

ROOT = Path(__file__).resolve().parent.parent
TEST = ROOT / ".test"
# folders of programs that run on hosts
PROGRAMS = ("roles/ipp_node/files", "roles/ipp_controller/files", "roles/jupyterlab/files", "roles/postgresql/files")
# how pytest, mypy and Ansible begin a line about what failed
TELLING = re.compile(r"(FAILED|ERROR|E   |WORDS |fatal:|\[ERROR\]|.*: error: )")
# what fails after a failure is mostly its consequence; what was it, is said at the end
FIRST_TOLD, LAST_TOLD = 40, 20
PARTS = ("lint", "unit", "package", "launchers", "fresh", "lab", "scenario")
# scenarios that run at the same time: they wait more than they compute
AT_ONCE = 2
# the scenario in which somebody has a browser
BROWSER = "jupyterlab"
# seconds that one command of the tests may take; the longest took 1900 on a loaded machine
LONGEST = 2700
# the longest begin first, or one of them would run alone in the end
LONG = ("postgresql", "accidents", "default")
SCENARIOS = sorted((path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")), key=lambda name: ([*LONG, name].index(name), name))


@dataclass(frozen=True)
class Outcome:
    """How one command of the tests went.

    :param told: of a failed one, the lines that say what failed.
    """

    name: str
    ok: bool
    seconds: float
    told: Sequence[str] = ()


class Tests:
    """Runs commands, shows what they print, and remembers how they went."""

    def __init__(self, programs: Path) -> None:
        mine = {"PATH": f"{programs}:{os.environ['PATH']}", "VIRTUAL_ENV": str(programs.parent), "PYTHONUNBUFFERED": "1"}
        self.environ = {**os.environ, **mine}
        self.outcomes: list[Outcome] = []
        self.running: set[int] = set()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.interrupt)

    def interrupt(self, number: int, _frame: object) -> None:
        """Pass a signal on to what runs, which a terminal's does not reach, and end."""
        for group in tuple(self.running):
            end(group, number)
        raise KeyboardInterrupt

    def run(self, name: str, *command: str, cwd: Path = ROOT, prefix: str = "") -> bool:
        """Run a command; returns whether it succeeded.

        :param prefix: what each of its lines is printed with, where it is not the only one that runs.
        """
        print(f"\n=== {name}: {' '.join(command)}", flush=True)
        begin = time.monotonic()
        first: list[str] = []
        last: deque[str] = deque(maxlen=LAST_TOLD)
        piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        # in a process group of its own: it is ended with what it started, which holds its output open
        with subprocess.Popen(command, cwd=cwd, env=self.environ, stdin=subprocess.DEVNULL, start_new_session=True, **piped) as process:
            self.running.add(process.pid)
            late = threading.Timer(LONGEST, end, (process.pid, signal.SIGKILL))
            late.start()
            try:
                for line in process.stdout or ():
                    print(prefix + line, end="", flush=True)
                    plain = re.sub(r"\x1b\[[0-9;]*m", "", line).strip(" \u2502-'\n")
                    if TELLING.match(plain):
                        (first if len(first) < FIRST_TOLD else last).append(plain[:300])
            finally:
                late.cancel()
        self.running.discard(process.pid)
        ok = process.returncode == 0
        if process.returncode == -signal.SIGKILL:
            last.append(f"ended after {LONGEST} s")
        self.outcomes.append(Outcome(name, ok, time.monotonic() - begin, () if ok else (*first, *last)))
        return ok

    def lint(self) -> None:
        """Every linter over everything."""
        self.run("ruff", "ruff", "check", ".")
        self.run("ruff format", "ruff", "format", "--check", ".")
        self.run("mypy: shared code", "mypy", "-p", "ansible_collections.ipyfleet.cluster.plugins")
        self.run("mypy: package", "mypy", "-p", "ipyfleet")
        self.run("mypy: the rest", "mypy", "plugins/action", "plugins/filter", "plugins/modules", *PROGRAMS, "tools")
        self.run("mypy: tests", "mypy", "tests/unit", "tests/fresh", "tests/lab", "tests/testinfra", "tests/launchers")
        self.run("mypy: packaging tests", "mypy", "tests/packaging")
        self.run("yamllint", "yamllint", "--strict", ".")
        self.run("ansible-lint", "ansible-lint")
        self.run("changelog", "antsibull-changelog", "lint")

    def unit(self) -> None:
        """Tests without network."""
        self.run("unit tests", "pytest", "-q", "-n", "auto", "--timeout", "180", "--durations", "15", "tests/unit")

    def package(self) -> None:
        """Every shape of the tree is built, installed and used."""
        self.run("packages", "pytest", "-q", "tests/packaging")

    def launchers(self) -> None:
        """A fleet of this user's own, started and stopped by ipyparallel."""
        self.run("launchers", "pytest", "-v", "tests/launchers")

    def fresh(self) -> None:
        """The README's commands on machines that have nothing."""
        self.containers()
        self.run("fresh machines", "pytest", "-v", "tests/fresh")

    def lab(self) -> None:
        """`ipyfleet lab`, as users see it."""
        self.containers()
        self.run("lab", "pytest", "-v", "tests/lab")

    def scenario(self, names: list[str]) -> None:
        """Molecule scenarios on container hosts."""
        # at once, two scenarios would make the same image twice
        self.containers(*(RELEASES if len(names) > 1 else ()))
        if BROWSER in names:
            install_browser()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.one_scenario, names))

    def one_scenario(self, name: str) -> None:
        """One scenario, from its hosts' start to their end."""
        # molecule believes its state in ~/.ansible/tmp, which outlives hosts and clones
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["molecule", "reset", "-s", name], cwd=ROOT, env=self.environ, check=False, **quiet)  # type: ignore[call-overload]
        # wide, or what failed is told in bits and pieces
        wide = ("env", "COLUMNS=200")
        self.run(f"scenario {name}", *wide, "tools/lab.py", "run", "--", "molecule", "test", "-s", name, prefix=f"{name:<11}|")

    def containers(self, *releases: str) -> None:
        """See that hosts can be started, and start with their image.

        :param releases: of which the images are made, too.
        :raises bootstrap.BootstrapError: saying what to install.
        """
        install_packages()
        os.environ.update(self.environ)
        try:
            lab.doctor()
            lab.make_images(releases)
        except LabError as error:
            raise bootstrap.BootstrapError(str(error)) from error


def end(group: int, number: int) -> None:
    """Send a signal to a process group, if there still is one."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def install_packages() -> None:
    """Install what container hosts need, where this is root on a system with apt.

    :raises bootstrap.BootstrapError: saying what to install, elsewhere.
    """
    needed = lab.APT.split()
    if shutil.which("podman") and shutil.which("ssh"):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        if shutil.which("docker") and shutil.which("ssh"):
            return
        raise bootstrap.BootstrapError(f"container hosts need podman (or docker) and ssh; on Debian, as root: apt-get install {lab.APT}")
    apt_install(*needed)


def install_browser() -> None:
    """Install what the tests of JupyterLab need, where this is root on a system with apt.

    :raises bootstrap.BootstrapError: saying what to install, elsewhere.
    """
    # the test looks for the same ones
    if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise bootstrap.BootstrapError("the scenario jupyterlab needs a browser; on Debian, as root: apt-get install chromium")
    apt_install("chromium")


def apt_install(*packages: str) -> None:
    """Install packages of Debian's.

    :raises bootstrap.BootstrapError: with apt's reason, when it cannot.
    """
    print(f"=== installing with apt: {' '.join(packages)}", flush=True)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise bootstrap.BootstrapError(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/test", description=f"Parts: {', '.join(PARTS)}. Scenarios: {', '.join(SCENARIOS)}.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="all of them when none is given; scenario=NAME for one")
    wanted = parser.parse_args().parts or list(PARTS)
    chosen = [name for part in wanted for name in ([part.partition("=")[2]] if "=" in part else SCENARIOS if part == "scenario" else [])]
    for part in wanted:
        if part.partition("=")[0] not in PARTS:
            parser.error(f"expected parts of {', '.join(PARTS)}, got {part}")
    if unknown := set(chosen) - set(SCENARIOS):
        parser.error(f"expected scenarios of {', '.join(SCENARIOS)}, got {', '.join(unknown)}")
    try:
        print("=== getting ready (test tools, into .test)", flush=True)
        tests = Tests(bootstrap.make(TEST / "tools", ROOT / "requirements-test.txt"))
        steps: dict[str, Callable[[], None]] = {
            "lint": tests.lint,
            "unit": tests.unit,
            "package": tests.package,
            "launchers": tests.launchers,
            "fresh": tests.fresh,
            "lab": tests.lab,
            "scenario": lambda: tests.scenario(chosen),
        }
        for part in dict.fromkeys(part.partition("=")[0] for part in wanted):
            steps[part]()
    except bootstrap.BootstrapError as problem:
        print(f"bin/test: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bin/test: interrupted", file=sys.stderr)
        return 130
    print("\n=== outcome")
    for outcome in tests.outcomes:
        print(f"{'ok    ' if outcome.ok else 'FAILED'} {outcome.seconds:7.1f} s  {outcome.name}")
        for line in outcome.told:
            print(f"       {line}")
    return 0 if all(outcome.ok for outcome in tests.outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
