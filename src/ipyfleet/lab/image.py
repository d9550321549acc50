"""The image that hosts of a lab are started from: Debian with systemd, sshd, sudo and Python."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ipyfleet.lab.engine import Engine, LabError, Say, cache, last_line, quiet, run, starting

HOST = Path(__file__).with_name("Containerfile")
RELEASES = {"bookworm": "12", "trixie": "13"}
RELEASE = "bookworm"
BUNDLE = "etc/ssl/certs/lab-ca-bundle.crt"


def site_files() -> dict[str, str]:
    """This machine's own way to its package registries, for inside the hosts, by path; empty on most machines.

    An address with a password in it is left out.
    """
    files: dict[str, str] = {}
    pip: list[str] = []
    bundle = next((os.environ[key] for key in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE") if os.environ.get(key)), None)
    if bundle and Path(bundle).is_file():
        files[BUNDLE] = Path(bundle).read_text(encoding="utf-8")
        pip.append(f"cert = /{BUNDLE}")
    listed = run(sys.executable, "-m", "pip", "config", "list", check=False).stdout
    for key, value in re.findall(r"^global\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        reachable = " ".join(each for each in value.split() if not each.startswith("file:") and "@" not in each)
        if key in ("index-url", "extra-index-url", "trusted-host", "timeout") and reachable:
            pip.append(f"{key} = {reachable}")
    if pip:
        files["etc/pip.conf"] = "[global]\n" + "\n".join(pip) + "\n"
    if shutil.which("apt-config"):
        wanted = re.compile(r"Acquire::(https?::Proxy|Check-Valid-Until|Check-Date|https?::[\w.-]+::Proxy)\b")
        keep = [line for line in run("apt-config", "dump").stdout.splitlines() if wanted.match(line) and "@" not in line]
        if keep:
            files["etc/apt/apt.conf.d/99lab-site"] = "\n".join(keep) + "\n"
    return files


def base_image(engine: Engine, release: str, force: bool = False, say: Say = quiet) -> str:
    """A minimal Debian: the public image where a registry answers, else one made by mmdebstrap; returns its name.

    :param force: make it again, though it is there.
    :raises LabError: when neither can be had.
    """
    public = f"docker.io/library/debian:{RELEASES[release]}-slim"
    base = f"localhost/ipyfleet-lab-base:{release}"
    if engine.has("image", public):
        return public
    if not force and engine.has("image", base):
        return base
    say(f"fetching {public}")
    pulled = engine.run("pull", "-q", public, check=False, timeout=600)
    if pulled.returncode == 0:
        return public
    if not shutil.which("mmdebstrap"):
        raise LabError(f"{public}: {last_line(pulled)}; mmdebstrap, once installed, makes such an image from Debian's archive")
    say(f"making a Debian {release} with mmdebstrap, since no registry answers (half a minute, once)")
    with tempfile.TemporaryDirectory() as folder:
        excluded = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "info", "locale")]
        run("mmdebstrap", "--quiet", "--variant=minbase", *excluded, release, f"{folder}/rootfs.tar")
        engine.run("import", f"{folder}/rootfs.tar", base)
    return base


def build_image(
    engine: Engine, release: str = RELEASE, containerfile: Path = HOST, force: bool = False, say: Say = quiet
) -> tuple[str, Engine]:
    """Build an image unless one of the same content is there; returns its name, and the engine as it starts it.

    :param containerfile: what to build; its folder's name tells images of different ones apart.
    :raises LabError: when it cannot be built.
    """
    site = site_files()
    content = containerfile.read_text(encoding="utf-8") + release + json.dumps(site, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    tag = f"localhost/ipyfleet-{containerfile.parent.name}:{release}-{digest}"
    if not force and engine.has("image", tag):
        return tag, starting(engine, tag)
    base = base_image(engine, release, force, say)
    engine = starting(engine, base)
    say(f"building the image of {release} hosts (a minute, once)")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(containerfile, f"{folder}/Containerfile")
        (Path(folder) / "site").mkdir()
        for name, text in site.items():
            path = Path(folder) / "site" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        build = ["build", "--build-arg", f"BASE={base}", "-t", tag, "-f", f"{folder}/Containerfile", folder]
        done = engine.run(*build, check=False, timeout=1800)
    if done.returncode:
        raise LabError(f"{tag}: {build_failure(done)}")
    return tag, engine


def build_failure(done: subprocess.CompletedProcess[str]) -> str:
    """The reason for which a build failed, and where all of its output is."""
    output = done.stdout + done.stderr
    log = cache() / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(output, encoding="utf-8")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # the engine's own last words repeat the whole command, and not what went wrong in it
    telling = [line for line in lines if not line.startswith(("STEP", "-->", "Error: building at", "error building at"))]
    return f"expected the image to be built, got: {(telling or lines or ['no output'])[-1][-300:]}; all of it is in {log}"


def remove_images(engine: Engine) -> None:
    """Remove the images that were made for labs, as far as no container is made of them."""
    listed = engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    ours = [name for name in listed if re.match(r"localhost/ipyfleet-lab(-base)?:", name)]
    if ours:
        engine.run("rmi", *ours, check=False)
