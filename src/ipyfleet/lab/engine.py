"""The container engine of this machine, podman or docker, and what it needs to start containers here."""

from __future__ import annotations

import getpass
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ipyfleet.errors import IpyfleetError

NAMES = ("podman", "docker")
# names the engine to use, where both are there
VARIABLE = "IPYFLEET_LAB_ENGINE"
CONF = "CONTAINERS_CONF"

# takes a line about what takes its time right now
Say = Callable[[str], None]


class LabError(IpyfleetError):
    """Something that the person at the keyboard can act on."""


def quiet(text: str) -> None:
    """Say nothing."""


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a command printed, its errors first."""
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
    return lines[-1].strip() if lines else f"exit code {done.returncode}"


def run(
    *command: str, check: bool = True, stdin: str | None = None, timeout: float = 900, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed.

    :param timeout: seconds.
    :param environ: added to the environment.
    :raises LabError: with its last line when it fails and `check` is set, or when it does not end.
    """
    full = {**os.environ, **(environ or {})}
    try:
        done = subprocess.run(command, env=full, capture_output=True, text=True, input=stdin, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command[:2])}: expected an end, got none in {timeout:.0f} s") from error
    if check and done.returncode:
        raise LabError(f"{' '.join(command[:2])}: {last_line(done)}")
    return done


@dataclass(frozen=True)
class Engine:
    """A container engine that answers.

    :param name: its command.
    :param environ: what it needs in its environment to start containers here.
    """

    name: str
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(self, *words: str, check: bool = True, stdin: str | None = None, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run one of its commands; see `run`."""
        return run(self.name, *words, check=check, stdin=stdin, timeout=timeout, environ=self.environ)

    def has(self, kind: str, name: str) -> bool:
        """Whether it has an object, such as the ``image`` of a name."""
        return self.run(kind, "inspect", name, check=False).returncode == 0


def cache() -> Path:
    """Folder of what was found out about this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipyfleet" / "lab"


def find_engine(name: str | None = None) -> Engine:
    """The container engine that works here; podman, where both do.

    :param name: the one to use; what IPYFLEET_LAB_ENGINE says when None.
    :raises LabError: when there is none, or with the reason for which each of them does not do.
    """
    wanted = name or os.environ.get(VARIABLE)
    installed = [each for each in ([wanted] if wanted else NAMES) if shutil.which(each)]
    if not installed:
        got = "no such program" if wanted else "neither"
        raise LabError(f"expected {wanted or ' or '.join(NAMES)}, got {got}; install podman, on Debian or Ubuntu: sudo apt install podman")
    reasons = []
    for each in installed:
        try:
            check_engine(each)
        except LabError as error:
            reasons.append(str(error))
        else:
            return Engine(each, remembered(each))
    raise LabError("\n".join(reasons))


def known_engine(name: str) -> Engine:
    """The container engine that something was made with, whether or not hosts can run with it today.

    :raises LabError: when it is not there any more.
    """
    if not shutil.which(name):
        raise LabError(f"expected {name}, which the hosts were made with, got no such program")
    return Engine(name, remembered(name))


def check_engine(name: str) -> None:
    """See that an engine answers, and that hosts can run with it.

    :raises LabError: with the reason why not, and what to do about it.
    """
    done = run(name, "info", "--format", "{{json .}}", check=False, timeout=60)
    try:
        about = json.loads(done.stdout)
    except ValueError:
        about = {}
    errors = about.get("ServerErrors") or []
    if done.returncode or errors or not about:
        raise LabError(f"{name}: expected it to answer, got: {errors[0] if errors else last_line(done)}")
    reason = unfit_docker(about) if "host" not in about else unfit_podman(about["host"])
    if reason:
        raise LabError(f"{name}: {reason}")


def unfit_docker(about: Mapping[str, Any]) -> str:
    """Why hosts cannot run with this docker; empty when they can.

    :param about: what ``docker info`` says.
    """
    # On cgroup v1 a systemd with SYS_ADMIN would mount and remount the machine's own /sys/fs/cgroup.
    if str(about.get("CgroupVersion")) != "2":
        return "expected cgroups v2, without which it cannot run systemd hosts safely, got v1; install podman"
    return ""


def unfit_podman(host: Mapping[str, Any]) -> str:
    """Why hosts cannot run with this podman; empty when they can.

    :param host: the part ``host`` of what ``podman info`` says.
    """
    if not host.get("security", {}).get("rootless"):
        return ""
    mapped = (host.get("idMappings") or {}).get("uidmap") or []
    if sum(int(each.get("size", 0)) for each in mapped) <= 1:
        who, ids = getpass.getuser(), free_ids(Path("/etc/subuid"), Path("/etc/subgid"))
        todo = f"usermod --add-subuids {ids} --add-subgids {ids} {who}"
        return f"expected ranges of ids for {who} in /etc/subuid and /etc/subgid, got none; as root: {todo}"
    if host.get("cgroupVersion") == "v1":
        return "expected cgroups v2, without which an ordinary user's containers cannot run systemd, got v1; do it as root"
    return ""


def free_ids(*files: Path) -> str:
    """A range of ids that nobody has yet, as usermod takes it; an overlap would let users into each other's files.

    :param files: such as ``/etc/subuid``: lines of name, first id and number of ids.
    """
    taken = [100000]
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        taken += [int(match[1]) + int(match[2]) for line in lines if (match := re.fullmatch(r"[^:]+:(\d+):(\d+)", line.strip()))]
    return f"{max(taken)}-{max(taken) + 65535}"


# --- what it needs in its environment -----------------------------------------


def settings() -> list[tuple[str, str]]:
    """Texts of containers.conf to try, the least invasive first."""

    def limit(what: int) -> str:
        hard = resource.getrlimit(what)[1]
        # podman lowers its own limit of processes to 32768, so the hard limit seen here can be too much
        hard = 16384 if hard == resource.RLIM_INFINITY else min(hard, 16384)
        return f"{hard}:{hard}"

    limits = f'default_ulimits = ["nofile={limit(resource.RLIMIT_NOFILE)}", "nproc={limit(resource.RLIMIT_NPROC)}"]'
    found = [("as installed", "")]
    # podman asks for more open files than a process without CAP_SYS_RESOURCE may raise to
    found.append(("own ulimits", f"[containers]\n{limits}\n"))
    if shutil.which("runc"):
        # crun refuses a hybrid cgroup v1/v2 hierarchy
        found.append(("runc", '[engine]\nruntime = "runc"\n'))
        found.append(("runc, own ulimits", f'[containers]\n{limits}\n[engine]\nruntime = "runc"\n'))
    return found


def remembered(name: str) -> dict[str, str]:
    """What was found to be needed in the environment of an engine."""
    conf = cache() / "containers.conf"
    if name != "podman" or os.environ.get(CONF) or not conf.exists() or not conf.stat().st_size:
        return {}
    return {CONF: str(conf)}


def starting(engine: Engine, image: str) -> Engine:
    """The engine with settings with which containers start; they are remembered for the next time.

    :param image: an image to try them with.
    :raises LabError: when none of them does.
    """
    conf = cache() / "containers.conf"
    if engine.name != "podman" or os.environ.get(CONF):
        return engine
    # what works can depend on what else runs: on a hybrid hierarchy, crun starts containers only while others have systemd
    if conf.exists() and starts(engine, image):
        return engine
    conf.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for label, text in settings():
        with tempfile.TemporaryDirectory(dir=conf.parent) as folder:
            trial = Path(folder) / conf.name
            trial.write_text(text, encoding="utf-8")
            tried = replace(engine, environ={CONF: str(trial)} if text else {})
            done = try_out(tried, image)
            if done.returncode == 0:
                trial.rename(conf)
                return replace(engine, environ=remembered(engine.name))
        failures.append(f"{engine.name} run, {label}: {last_line(done)}")
    raise LabError("\n".join(failures))


def try_out(engine: Engine, image: str) -> subprocess.CompletedProcess[str]:
    """Start a container that does nothing."""
    return engine.run("run", "--rm", "--network=none", image, "true", check=False, timeout=120)


def starts(engine: Engine, image: str) -> bool:
    """Whether an engine starts containers as it is."""
    return try_out(engine, image).returncode == 0
