#!/usr/bin/env python3
"""Throw-away Linux hosts (systemd and sshd) in podman or docker containers.

    lab.py doctor                        find an engine, and a way it starts containers here
    lab.py image [--release bookworm]    make the host image (a no-op when it is there)
    lab.py up PREFIX HOST[=RELEASE] ...  start hosts, write how Ansible reaches them
    lab.py logs PREFIX FOLDER            what a failed run leaves to look at
    lab.py down PREFIX                   remove the hosts and their network
    lab.py run -- CMD ...                run CMD with the environment that doctor worked out

Standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = ROOT / "molecule" / "shared" / "Containerfile"
STATE = Path(os.environ.get("LAB_STATE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ipyfleet-lab")
RELEASES = {"bookworm": "12", "trixie": "13"}
IMAGE = "localhost/ipyfleet-lab"
APT = "podman netavark aardvark-dns runc crun nftables iptables uidmap catatonit mmdebstrap openssh-client"
BOOT_SECONDS = 60


class LabError(Exception):
    """Something that the person at the keyboard can act on."""


def sh(*command: str, check: bool = True, stdin: str | None = None, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed.

    :raises LabError: when it fails and `check` is set.
    """
    done = subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=timeout, check=False)
    if check and done.returncode:
        raise LabError(f"{' '.join(command)}\n  exit {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done


# --- the engine ---------------------------------------------------------------


@functools.cache
def engine() -> str:
    """Name of the container engine that works here."""
    for name in [os.environ["LAB_ENGINE"]] if os.environ.get("LAB_ENGINE") else ["podman", "docker"]:
        # `docker` may be only a client: `info` asks the daemon
        if shutil.which(name) and sh(name, "info", check=False, timeout=60).returncode == 0:
            return name
    raise LabError(f"neither podman nor a docker daemon answers; on Debian: apt-get install -y --no-install-recommends {APT}")


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


def environment(image: str | None = None) -> dict[str, str]:
    """What the engine needs in its environment on this machine, remembered in STATE.

    :param image: an image to try containers with, if that was not done before.
    """
    name = engine()
    found = {"LAB_ENGINE": name}
    if name != "podman" or os.environ.get("CONTAINERS_CONF"):
        return found
    conf = STATE / "containers.conf"
    if not conf.exists() and image:
        try_settings(name, image, conf)
    if conf.exists() and conf.stat().st_size:
        found["CONTAINERS_CONF"] = str(conf)
    return found


def try_settings(name: str, image: str, conf: Path) -> None:
    """Find settings with which a container starts, and keep them in `conf`."""
    failures = []
    for label, text in settings():
        trial = STATE / "trial.conf"
        STATE.mkdir(parents=True, exist_ok=True)
        trial.write_text(text)
        extra = {"CONTAINERS_CONF": str(trial)} if text else {}
        command = [name, "run", "--rm", "--network=none", image, "true"]
        done = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode == 0:
            trial.rename(conf)
            print(f"lab: podman starts containers here with: {label}", file=sys.stderr)
            return
        failures.append(f"  {label}: {done.stderr.strip()[-300:]}")
    raise LabError("podman starts no container here:\n" + "\n".join(failures))


# --- the image ----------------------------------------------------------------


def site_files() -> dict[str, str]:
    """This machine's own way to its package registries, for inside the hosts; never committed."""
    files: dict[str, str] = {}
    pip: list[str] = []
    bundle = next((os.environ[key] for key in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if os.environ.get(key)), None)
    if bundle and Path(bundle).is_file():
        files["etc/ssl/certs/lab-ca-bundle.crt"] = Path(bundle).read_text()
        pip.append("cert = /etc/ssl/certs/lab-ca-bundle.crt")
    listed = sh(sys.executable, "-m", "pip", "config", "list", check=False).stdout
    for key, value in re.findall(r"^global\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        reachable = " ".join(each for each in value.split() if not each.startswith("file:"))
        if key in ("index-url", "extra-index-url", "trusted-host", "timeout") and reachable:
            pip.append(f"{key} = {reachable}")
    if pip:
        files["etc/pip.conf"] = "[global]\n" + "\n".join(pip) + "\n"
    if shutil.which("apt-config"):
        wanted = re.compile(r"Acquire::(https?::Proxy|Check-Valid-Until|Check-Date|https?::[\w.-]+::Proxy)\b")
        keep = [line for line in sh("apt-config", "dump").stdout.splitlines() if wanted.match(line)]
        if keep:
            files["etc/apt/apt.conf.d/99lab-site"] = "\n".join(keep) + "\n"
    return files


def has_image(name: str) -> bool:
    """Whether the engine has an image."""
    return sh(engine(), "image", "inspect", name, check=False).returncode == 0


def base_image(release: str, force: bool) -> str:
    """A minimal Debian: the public image where a registry answers, else one made by mmdebstrap."""
    public = f"docker.io/library/debian:{RELEASES[release]}-slim"
    if has_image(public) or sh(engine(), "pull", "-q", public, check=False, timeout=300).returncode == 0:
        return public
    base = f"localhost/ipyfleet-lab-base:{release}"
    if force or not has_image(base):
        if not shutil.which("mmdebstrap"):
            raise LabError("no registry answers and mmdebstrap is not installed")
        with tempfile.TemporaryDirectory() as folder:
            excluded = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "info", "locale")]
            sh("mmdebstrap", "--quiet", "--variant=minbase", *excluded, release, f"{folder}/rootfs.tar")
            sh(engine(), "import", f"{folder}/rootfs.tar", base)
    return base


def build_image(release: str = "bookworm", containerfile: Path = HOST, force: bool = False) -> str:
    """Build an image unless one of the same content is there; returns its name.

    :param containerfile: what to build; its folder's name tells images of different ones apart.
    """
    site = site_files()
    content = containerfile.read_text() + release + json.dumps(site, sort_keys=True)
    kind = containerfile.parent.name
    tag = f"{IMAGE}-{kind}:{release}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if not force and has_image(tag):
        return tag
    base = base_image(release, force)
    os.environ.update(environment(base))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(containerfile, f"{folder}/Containerfile")
        (Path(folder) / "site").mkdir()
        for name, text in site.items():
            path = Path(folder) / "site" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        sh(engine(), "build", "--build-arg", f"BASE={base}", "-t", tag, "-f", f"{folder}/Containerfile", folder)
    return tag


# --- hosts --------------------------------------------------------------------


def run_flags() -> list[str]:
    """Flags of `run` for a container with systemd in it."""
    # SYS_ADMIN: without it systemd silently skips ProtectSystem= and the like; with it AppArmor's
    # ban on mount would make every sandboxed unit fail. NET_ADMIN: nft and tc inside.
    common = ["--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=apparmor=unconfined"]
    if engine() == "podman":
        return ["--systemd=always", *common]
    # docker has no systemd mode. On cgroup v1 a systemd with SYS_ADMIN would mount and remount
    # the machine's own /sys/fs/cgroup, so only v2 is taken, in a cgroup namespace of its own.
    if sh("docker", "info", "--format", "{{.CgroupVersion}}").stdout.strip() != "2":
        raise LabError("docker on cgroup v1 cannot run systemd hosts safely: install podman")
    mounts = ["--tmpfs=/run", "--tmpfs=/run/lock", "--tmpfs=/tmp:exec"]
    return [
        *common, "--env=container=docker", "--cgroupns=private", *mounts,
        "--security-opt=seccomp=unconfined", "--stop-signal=SIGRTMIN+3", "--entrypoint=/bin/sh",
    ]  # fmt: skip


def command() -> list[str]:
    """Command of a container with systemd in it."""
    return [] if engine() == "podman" else ["-c", "mount -o remount,rw /sys/fs/cgroup && exec /sbin/init"]


def network(prefix: str) -> str:
    """Make the lab's network; returns what its addresses begin with.

    Hosts get fixed addresses: podman would hand out another one at every start.
    """
    found = sh(engine(), "network", "inspect", prefix, check=False)
    if found.returncode == 0 and (match := re.search(r'"lab\.base":\s*"([\d.]+)"', found.stdout)):
        return match[1]
    seed = int(hashlib.sha256(prefix.encode()).hexdigest(), 16)
    failure = ""
    for attempt in range(30):
        number = (seed + attempt * 7919) % (50 * 250)
        base = f"10.{200 + number // 250}.{1 + number % 250}"
        labels = ["--label", f"lab={prefix}", "--label", f"lab.base={base}"]
        made = sh(engine(), "network", "create", *labels, "--subnet", f"{base}.0/24", prefix, check=False)
        if made.returncode == 0:
            return base
        failure = made.stderr.strip()
    raise LabError(f"no free subnet for network {prefix}: {failure}")


def start(prefix: str, host: str, address: str, image: str, public_key: str, extra: list[str]) -> dict[str, str]:
    """Start one host, or start it again, and wait until its systemd is up."""
    name = f"{prefix}-{host}"
    if sh(engine(), "container", "inspect", name, check=False).returncode == 0:
        sh(engine(), "start", name)
    else:
        place = ["--network", prefix, "--network-alias", host, "--ip", address]
        labels = ["--name", name, "--hostname", host, "--label", f"lab={prefix}"]
        sh(engine(), "run", "-d", *labels, *place, *run_flags(), *extra, image, *command())
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        state = sh(engine(), "exec", name, "systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        if state in ("running", "degraded"):
            break
        if time.monotonic() > deadline:
            said = sh(engine(), "logs", "--tail", "30", name, check=False).stdout
            raise LabError(f"{name}: systemd says {state!r}\n{said}")
        time.sleep(0.1)
    script = "umask 077; mkdir -p /root/.ssh /run/sshd; cat >/root/.ssh/authorized_keys; systemctl start ssh"
    sh(engine(), "exec", "-i", name, "sh", "-ec", script, stdin=public_key)
    return {"name": name, "ip": address, "systemd": state}


def up(prefix: str, hosts: list[str], inventory: Path, key: Path, extra: list[str]) -> dict[str, object]:
    """Start hosts in parallel and write an inventory of how to reach them.

    :param hosts: names, each with ``=release`` where that is not the first one of RELEASES.
    """
    wanted = {name: release or next(iter(RELEASES)) for name, _, release in (each.partition("=") for each in hosts)}
    images = {release: build_image(release) for release in sorted(set(wanted.values()))}
    os.environ.update(environment(next(iter(images.values()))))
    for path in (inventory, key):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not key.exists():
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", prefix, "-f", str(key))
    base = network(prefix)
    public = key.with_name(key.name + ".pub").read_text()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        futures = {
            host: pool.submit(start, prefix, host, f"{base}.{10 + number}", images[release], public, extra)
            for number, (host, release) in enumerate(wanted.items())
        }
        started = {host: future.result() for host, future in futures.items()}
    variables = {host: {"ansible_host": each["name"], "lab_ip": each["ip"], **connection(key)} for host, each in started.items()}
    inventory.write_text(json.dumps({"all": {"hosts": variables}}, indent=1) + "\n")  # JSON is YAML
    return {"hosts": started, "inventory": str(inventory)}


def connection(key: Path) -> dict[str, str]:
    """How Ansible reaches the hosts: over the engine's exec, to a real sshd that speaks on its standard input.

    No address has to be reachable from here (rootless, Docker Desktop), and a host that is cut off
    from its network can still be looked at. Values are literal: testinfra does not render templates.
    """
    options = "-o BatchMode=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    return {
        "ansible_connection": "ssh",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key.resolve()),
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_common_args": f"-o ProxyCommand='{engine()} exec -i %h /usr/sbin/sshd -i' {options}",
    }


def containers(prefix: str) -> list[str]:
    """Names of a lab's containers."""
    return sh(engine(), "ps", "-a", "--filter", f"label=lab={prefix}", "--format", "{{.Names}}").stdout.split()


def logs(prefix: str, folder: Path) -> None:
    """Keep journals, units and sockets of all hosts in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    questions = {
        "journal": "journalctl -b --no-pager",
        "units": "systemctl --failed --no-pager; systemctl --no-pager status",
        "net": "ip addr; ss -tlnp; nft list ruleset",
    }
    for name in containers(prefix):
        for label, question in questions.items():
            done = sh(engine(), "exec", name, "sh", "-c", question, check=False, timeout=60)
            (folder / f"{name}.{label}.txt").write_text(done.stdout + done.stderr)


def down(prefix: str) -> None:
    """Remove a lab's hosts and network."""
    names = containers(prefix)
    if names:
        sh(engine(), "rm", "-fv", *(["-t", "0"] if engine() == "podman" else []), *names)
    sh(engine(), "network", "rm", prefix, check=False)


def doctor() -> dict[str, object]:
    """What is used here: engine, its version, its environment, and an image."""
    image = build_image()
    os.environ.update(environment(image))
    kept = {key: os.environ[key] for key in ("LAB_ENGINE", "CONTAINERS_CONF") if key in os.environ}
    return {"image": image, "environment": kept, "version": sh(engine(), "--version").stdout.strip()}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("doctor")
    verb = verbs.add_parser("image")
    verb.add_argument("--release", choices=RELEASES, default="bookworm")
    verb.add_argument("--containerfile", type=Path, default=HOST)
    verb.add_argument("--force", action="store_true")
    verb = verbs.add_parser("up")
    verb.add_argument("prefix")
    verb.add_argument("hosts", nargs="+", metavar="HOST[=RELEASE]")
    verb.add_argument("--inventory", type=Path, required=True, help="inventory file to write")
    verb.add_argument("--key", type=Path, required=True, help="SSH key to use, made when absent")
    verb.add_argument("--run-arg", action="append", default=[], help="one more argument for `run`, as it is")
    verb = verbs.add_parser("logs")
    verb.add_argument("prefix")
    verb.add_argument("folder", type=Path)
    verb = verbs.add_parser("down")
    verb.add_argument("prefix")
    verb = verbs.add_parser("run")
    verb.add_argument("argv", nargs=argparse.REMAINDER)
    return top


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.verb == "run":
            words = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
            os.environ.update(environment())
            os.execvp(words[0], words)
        os.environ.update(environment())
        if args.verb == "image":
            print(build_image(args.release, args.containerfile, args.force))
        elif args.verb == "doctor":
            print(json.dumps(doctor(), indent=1))
        elif args.verb == "up":
            print(json.dumps(up(args.prefix, args.hosts, args.inventory, args.key, args.run_arg), indent=1))
        elif args.verb == "logs":
            logs(args.prefix, args.folder)
        elif args.verb == "down":
            down(args.prefix)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
