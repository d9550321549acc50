"""Hosts of a lab: containers with systemd and a real sshd, in networks of their own."""

from __future__ import annotations

import concurrent.futures
import json
import shlex
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ipyfleet.lab.engine import Engine, LabError, Say, last_line, quiet, run
from ipyfleet.lab.image import build_image
from ipyfleet.lab.networks import LABEL, aliases_of, connect, mac_of, network, network_name, remove_networks

BOOT_SECONDS = 60
# Makes the login user, lets the lab's key in, and says what the host's own keys are.
SETUP = """
set -eu; umask 077
user=$1
id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
[ "$user" = root ] || printf '%s ALL=(ALL) NOPASSWD: ALL\\n' "$user" >/etc/sudoers.d/lab
home=$(getent passwd "$user" | cut -d: -f6)
mkdir -p "$home/.ssh" /run/sshd
cat >"$home/.ssh/authorized_keys"
chown -R "$user:" "$home/.ssh"
systemctl start ssh
cat /etc/ssh/ssh_host_*_key.pub
"""


@dataclass(frozen=True)
class Host:
    """A host of a lab.

    :param container: name of its container.
    :param state: ``running`` or ``degraded``, as its systemd says, or the state of its container.
    :param addresses: its addresses by network, where they were asked for; the lab's own network has no name.
    :param keys: its public host keys, as in a file of known hosts.
    :param started: whether it was not running before.
    """

    name: str
    container: str
    state: str
    addresses: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    started: bool = False

    @property
    def ok(self) -> bool:
        """Whether it runs."""
        return self.state in ("running", "degraded")


# states of containers that never ran
HALF_MADE = ("configured", "created", "initialized")


@dataclass(frozen=True)
class Way:
    """How to log in to the hosts.

    :param key: path of the private SSH key; made when there is none.
    :param known_hosts: path of the file of the hosts' own keys.
    :param user: who logs in; anybody but root gets sudo without a password.
    """

    key: Path
    known_hosts: Path
    user: str = "root"


def up(
    engine: Engine,
    prefix: str,
    wanted: Mapping[str, str],
    way: Way,
    extra: Sequence[str] = (),
    say: Say = quiet,
    networks: Mapping[str, Sequence[str]] | None = None,
) -> tuple[dict[str, Host], Engine]:
    """Start the hosts that do not run, in parallel; returns all of them, and the engine as it starts them.

    :param prefix: name of the network; containers are called after it and the host.
    :param wanted: releases by host.
    :param extra: more words for the engine's ``run``.
    :param networks: names of networks by host, of those that are not in the lab's own alone; the first has the host's
        name, and each has the host's name with its own behind a dot.
    :raises LabError: when one does not come up.
    """
    there = {host.name: host for host in states(engine, prefix)}
    for host in [host for host in there.values() if host.state in HALF_MADE]:
        # an interrupted `up` leaves these, and podman does not start them: it takes their addresses for given away
        engine.run("rm", "-f", host.container)
        del there[host.name]
    images = {}
    for release in sorted({release for host, release in wanted.items() if host not in there}):
        images[release], engine = build_image(engine, release, say=say)
    make_key(way.key, prefix)
    names = {name: (networks or {}).get(name) or ("",) for name in wanted}
    bases = {each: network(engine, prefix, each) for each in dict.fromkeys(each for found in names.values() for each in found)}
    hosts = {
        name: replace(
            there.get(name) or Host(name, f"{prefix}-{name}", "absent"),
            addresses={each: f"{bases[each]}.{10 + number}" for each in names[name]},
        )
        for number, name in enumerate(wanted)
    }
    if not all(host.ok for host in hosts.values()):
        say(f"starting {', '.join(name for name, host in hosts.items() if not host.ok)}")
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        futures = [
            pool.submit(_start, engine, prefix, host, images.get(wanted[name], ""), way, extra, stop) for name, host in hosts.items()
        ]
        try:
            started = [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    lines = [f"{host.container} {key}\n" for host in started for key in host.keys]
    way.known_hosts.write_text("".join(lines), encoding="utf-8")
    return {host.name: host for host in started}, engine


def _start(engine: Engine, prefix: str, host: Host, image: str, way: Way, extra: Sequence[str], stop: threading.Event) -> Host:
    """Start one host, unless it runs, and wait until its systemd is up."""
    if host.state == "absent":
        (first, address), *others = host.addresses.items()
        place = ["--network", network_name(prefix, first), "--ip", address, "--mac-address", mac_of(host.container)]
        aliases = [word for alias in aliases_of(host.name, first, plain=True) for word in ("--network-alias", alias)]
        labels = ["--name", host.container, "--hostname", host.name, "--label", f"{LABEL}={prefix}"]
        engine.run("run", "-d", *labels, *place, *aliases, *_run_flags(engine), *extra, image, *_command(engine))
        for name, address in others:
            connect(engine, prefix, name, host.name, host.container, address)
    elif host.state == "paused":
        engine.run("unpause", host.container)
    elif not host.ok:
        engine.run("start", host.container)
    state = _booted(engine, host.container, stop)
    public = way.key.with_name(way.key.name + ".pub").read_text(encoding="utf-8")
    keys = engine.run("exec", "-i", host.container, "sh", "-c", SETUP, "sh", way.user, stdin=public).stdout
    # without the comment, which names the machine that the image was built on
    known = tuple(" ".join(line.split()[:2]) for line in keys.splitlines())
    return replace(host, state=state, keys=known, started=not host.ok)


def _booted(engine: Engine, container: str, stop: threading.Event) -> str:
    """Wait until a host's systemd is up; returns what it says."""
    deadline = time.monotonic() + BOOT_SECONDS
    while not stop.is_set():
        asked = engine.run("exec", container, "timeout", "10", "systemctl", "is-system-running", "--wait", check=False)
        if (state := asked.stdout.strip()) in ("running", "degraded"):
            return state
        about = engine.run("inspect", "--format", "{{.State.Status}}, exit code {{.State.ExitCode}}", container, check=False)
        runs = about.stdout.startswith("running,")
        if not runs or time.monotonic() > deadline:
            got = (state or last_line(asked)) if runs else f"a container that is {last_line(about)}"
            raise LabError(f"{container}: expected its systemd to be running, got {got}{_last_words(engine, container)}")
        time.sleep(0.1)
    raise LabError(f"{container}: cancelled")


def _last_words(engine: Engine, container: str) -> str:
    """What a host that did not come up said last, or what is known to be behind it."""
    logs = engine.run("logs", "--tail", "20", container, check=False)
    if "Too many open files" in logs.stdout + logs.stderr:
        # each systemd needs several, and 128 is what a user gets by default
        return "; no inotify instances are left for it: sudo sysctl fs.inotify.max_user_instances=1024"
    return f"; its last words: {last_line(logs)}" if (logs.stdout + logs.stderr).strip() else ""


def _run_flags(engine: Engine) -> list[str]:
    """Flags of `run` for a container with systemd in it."""
    # SYS_ADMIN: without it systemd silently skips ProtectSystem= and the like; with it AppArmor's
    # ban on mount would make every sandboxed unit fail. NET_ADMIN: nft and tc inside.
    common = ["--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=apparmor=unconfined"]
    if engine.name == "podman":
        return ["--systemd=always", *common]
    # docker has no systemd mode
    mounts = ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec"]
    return [
        *common, "--env=container=docker", "--cgroupns=private", *mounts,
        "--security-opt=seccomp=unconfined", "--stop-signal=SIGRTMIN+3", "--entrypoint=/bin/sh",
    ]  # fmt: skip


def _command(engine: Engine) -> list[str]:
    """Command of a container with systemd in it."""
    return [] if engine.name == "podman" else ["-c", "mount -o remount,rw /sys/fs/cgroup && exec /sbin/init"]


def make_key(key: Path, comment: str) -> None:
    """Make an SSH key pair without a passphrase, if there is none.

    :raises LabError: when ssh is not installed.
    """
    missing = [program for program in ("ssh", "ssh-keygen") if not shutil.which(program)]
    if missing:
        raise LabError(f"expected {missing[0]}, got no such program; on Debian or Ubuntu: sudo apt install openssh-client")
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key))


def connection(engine: Engine, way: Way) -> dict[str, str]:
    """How Ansible reaches the hosts: over the engine's exec, to a real sshd that speaks on its standard input.

    No address has to be reachable from here (rootless, Docker Desktop), and a host that is cut off
    from its network can still be looked at. Values are literal: testinfra does not render templates.
    """
    options = [
        f"ProxyCommand={engine.name} exec -i %h /usr/sbin/sshd -i",
        f'UserKnownHostsFile="{way.known_hosts.resolve()}"',
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "LogLevel=ERROR",
    ]
    return {
        "ansible_connection": "ssh",
        "ansible_user": way.user,
        "ansible_ssh_private_key_file": str(way.key.resolve()),
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": " ".join(f"-o {shlex.quote(option)}" for option in options),
    }


def states(engine: Engine, prefix: str) -> list[Host]:
    """The containers of a lab, as hosts with the state of their container."""
    names = engine.run("ps", "-a", "--filter", f"label={LABEL}={prefix}", "--format", "{{.Names}}").stdout.split()
    # podman's `ps` has only words for people about the state; docker's `inspect` has names that begin with a slash
    asked = engine.run("inspect", "--type", "container", "--format", "{{.Name}} {{.State.Status}}", *names).stdout if names else ""
    found = sorted(line.lstrip("/").split() for line in asked.splitlines())
    return [Host(name.removeprefix(f"{prefix}-"), name, state) for name, state in found]


def logs(engine: Engine, prefix: str, folder: Path) -> None:
    """Keep journals, units and sockets of all hosts in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = {
        "journal": "journalctl -b --no-pager",
        "units": "systemctl --failed --no-pager; systemctl --no-pager status",
        "net": "ip addr; ss -tlnp; nft list ruleset",
    }
    for host in states(engine, prefix):
        for label, question in questions.items():
            done = engine.run("exec", host.container, "sh", "-c", question, check=False, timeout=60)
            (folder / f"{host.container}.{label}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")


def down(engine: Engine, prefix: str) -> list[str]:
    """Remove a lab's hosts and networks; returns the names of the hosts that there were."""
    there = states(engine, prefix)
    # podman would wait for systemd to end
    at_once = ["-t", "0"] if engine.name == "podman" else []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: engine.run("rm", "-fv", *at_once, host.container), there))
    remove_networks(engine, prefix)
    return [host.name for host in there]


def inventory(hosts: Mapping[str, Host], engine: Engine, way: Way) -> str:
    """An inventory of hosts and how to reach them; it is JSON, and so YAML as well."""
    variables = {name: {"ansible_host": host.container, **connection(engine, way), **_addresses(host)} for name, host in hosts.items()}
    return json.dumps({"all": {"hosts": variables}}, indent=1) + "\n"


def _addresses(host: Host) -> dict[str, Mapping[str, str]]:
    """A host's addresses as a variable, where its networks have names."""
    return {"lab_addresses": host.addresses} if "" not in host.addresses else {}
