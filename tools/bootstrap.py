"""Make a virtual environment out of nothing but Python: no pip, no venv package, no uv needed.

    bootstrap.py FOLDER REQUIREMENTS_FILE

uv is fetched from the package index that pip would use, checked against the index's digest, and
does the rest. A second run with the same requirements is a no-op.
"""

from __future__ import annotations

import configparser
import hashlib
import html.parser
import io
import json
import os
import platform
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

UV = "0.13"
STAMP = "bootstrap.json"


class BootstrapError(Exception):
    """What is missing, in one line that says how to get it."""


@dataclass(frozen=True)
class Wheel:
    """A file of a package index."""

    name: str
    url: str
    sha256: str


def index_url() -> str:
    """The package index: what uv's or pip's settings say, else PyPI."""
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if os.environ.get(variable):
            return os.environ[variable].rstrip("/")
    places = [Path("/etc/pip.conf"), Path.home() / ".pip" / "pip.conf", Path.home() / ".config" / "pip" / "pip.conf"]
    config = configparser.RawConfigParser()
    config.read([os.environ.get("PIP_CONFIG_FILE", ""), *map(str, places)])
    return config.get("global", "index-url", fallback="https://pypi.org/simple").rstrip("/")


def fetch(url: str, accept: str = "*/*") -> tuple[bytes, str]:
    """Content and media type of an URL.

    :raises BootstrapError: when it cannot be had.
    """
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
    context = ssl.create_default_context(cafile=bundle)
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "ipyfleet-bootstrap"})
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as answer:
            return answer.read(), answer.headers.get_content_type()
    except urllib.error.URLError as error:
        hint = ""
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            hint = "; install ca-certificates, or name your bundle in SSL_CERT_FILE"
        raise BootstrapError(f"{url}: expected the package index, got: {error.reason}{hint}") from error


class Links(html.parser.HTMLParser):
    """Addresses of a page of an index that speaks HTML only."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address of a link."""
        self.found += [value for key, value in attrs if tag == "a" and key == "href" and value]


def wheels(index: str) -> list[Wheel]:
    """Uv's wheels on an index, in its order."""
    page = f"{index}/uv/"
    content, kind = fetch(page, "application/vnd.pypi.simple.v1+json, text/html;q=0.5")
    if kind.endswith("json"):
        files = json.loads(content)["files"]
        return [Wheel(each["filename"], urllib.parse.urljoin(page, each["url"]), each["hashes"].get("sha256", "")) for each in files]
    links = Links()
    links.feed(content.decode())
    found = []
    for link in links.found:
        url, _, fragment = urllib.parse.urljoin(page, link).partition("#")
        found.append(Wheel(urllib.parse.unquote(url.rsplit("/", 1)[1]), url, fragment.removeprefix("sha256=")))
    return found


def matching(found: list[Wheel]) -> Wheel:
    """The newest wheel of the wanted version for this machine; on Linux the static one."""
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    if sys.platform == "darwin":
        form = rf"uv-({re.escape(UV)}\.\d+)-py3-none-macosx_.*_{platform.machine()}\.whl"
    else:
        form = rf"uv-({re.escape(UV)}\.\d+)-py3-none-(?:manylinux.*\.)?musllinux_1_1_{machine}(?:\..*)?\.whl"
    fitting = [(tuple(map(int, match[1].split("."))), wheel) for wheel in found if (match := re.fullmatch(form, wheel.name))]
    if not fitting:
        raise BootstrapError(f"expected uv {UV} for {sys.platform} {machine} on the package index, got none; install uv {UV} by hand")
    return max(fitting, key=lambda pair: pair[0])[1]


def installed_uv() -> str | None:
    """A uv of the wanted version on PATH."""
    try:
        said = subprocess.run(["uv", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return "uv" if said.startswith(f"uv {UV}.") else None


def get_uv(folder: Path) -> str:
    """Path of a uv of the wanted version; fetched into `folder` when there is none."""
    own = folder / "uv"
    if own.exists():
        return str(own)
    if found := installed_uv():
        return found
    wheel = matching(wheels(index_url()))
    content, _ = fetch(wheel.url)
    if wheel.sha256 and hashlib.sha256(content).hexdigest() != wheel.sha256:
        raise BootstrapError(f"{wheel.url}: expected the digest that the index gives, got another; try again")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".data/scripts/uv"))
        folder.mkdir(parents=True, exist_ok=True)
        own.write_bytes(archive.read(name))
    own.chmod(0o755)
    return str(own)


def wanted(requirements: Path) -> str:
    """What an environment made from a requirements file depends on, as a digest."""
    total = hashlib.sha256(sys.version.encode())
    for path in (requirements, *sorted(requirements.parent.glob("requirements*.txt"))):
        total.update(path.read_bytes())
    return total.hexdigest()


def make(folder: Path, requirements: Path) -> Path:
    """Make the environment in `folder`, or leave it when it is as wanted; returns its folder of programs.

    :raises BootstrapError: when something is missing for it.
    """
    stamp = folder / STAMP
    programs = folder / "venv" / "bin"
    digest = wanted(requirements)
    if stamp.exists() and json.loads(stamp.read_text()) == digest and (programs / "python").exists():
        return programs
    uv = get_uv(folder)
    environ = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_SYSTEM_CERTS": "true", "UV_LINK_MODE": "copy"}
    environ.pop("VIRTUAL_ENV", None)
    if index_url() != "https://pypi.org/simple":
        environ.setdefault("UV_DEFAULT_INDEX", index_url())
    if os.environ.get("PIP_CERT"):
        environ.setdefault("SSL_CERT_FILE", os.environ["PIP_CERT"])
    for command in (
        ["venv", "-q", "--allow-existing", "--no-project", "--python", sys.executable, str(folder / "venv")],
        ["pip", "install", "-q", "--python", str(programs / "python"), "-r", str(requirements)],
    ):
        done = subprocess.run([uv, *command], env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BootstrapError(f"uv {command[0]}: {done.stderr.strip()}")
    stamp.write_text(json.dumps(digest))
    return programs


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]), Path(sys.argv[2]))
    except BootstrapError as problem:
        sys.exit(f"bootstrap: {problem}")
