"""A private folder with the files of one connection, as they hold on this machine, and gone with it."""

from __future__ import annotations

import configparser
import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import psutil

from ipyfleet.access import CONNECTION, TOKEN
from ipyfleet.errors import ClientError
from ipyfleet.tunnel import end_group

OWNER = "owner.json"
SERVICE, PASSWORDS, REDIRECT = "pg_service.conf", "pgpass", "open.html"
# files that a service of libpq's names, by its key
NAMED = {"passfile": PASSWORDS, "sslrootcert": "ca.crt", "sslcert": "postgresql.crt", "sslkey": "postgresql.key"}

# by how much the start of a process may seem to move, where it is told by the clock
CLOCK_SECONDS = 5.0


def base_folder() -> Path:
    """Where the folders are: in memory where the system has such a place for the user, else in the user's cache."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime) and os.access(runtime, os.W_OK):
        return Path(runtime) / "ipyfleet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipyfleet" / "connect"


class ClientFolder:
    """The folder of one connection.

    :param name: the fleet's.
    :raises ClientError: when it cannot be made.
    """

    def __init__(self, name: str) -> None:
        base = base_folder()
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_stale(base)
            self.path = new_folder(base, f"{name}-{os.getpid()}")
        except OSError as error:
            raise ClientError(f"{error.filename or base}: expected a folder for the client's files, got: {error.strerror}") from error
        self.remember(0)

    def write(self, name: str, text: str) -> Path:
        """Write a file that nobody else can read."""
        path = self.path / name
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        return path

    def remember(self, ssh: int) -> None:
        """Keep whose folder it is, for whoever finds it when this process was killed.

        :param ssh: process id of the ssh that belongs to it; 0 for none.
        """
        if self.path.exists():
            self.write(OWNER, json.dumps({"owner": mark_of(os.getpid()), "ssh": mark_of(ssh) if ssh else None}))

    def write_files(self, files: Mapping[str, str], info: Mapping[str, Any], database: tuple[str, int] | None) -> None:
        """Write a client's files.

        :param files: as they were made for a machine that reaches the fleet straight.
        :param info: the connection file as it holds here.
        :param database: address and port of the database, as they are here.
        """
        self.write(CONNECTION, json.dumps(dict(info), indent=2) + "\n")
        for name, text in files.items():
            if name == SERVICE and database:
                self.write(name, service_text(text, *database, self.path, files))
            elif name == PASSWORDS and database:
                self.write(name, passwords_text(text, database[1]))
            elif name not in (CONNECTION, TOKEN, SERVICE, PASSWORDS):
                self.write(name, text)

    def remove(self) -> None:
        """Remove it, and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def new_folder(base: Path, name: str) -> Path:
    """Make a folder that is not there yet: by this name, or with a number after it."""
    for number in range(1, 1000):
        path = base / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return path
    raise FileExistsError(17, "there are too many already", str(base))


def mark_of(pid: int) -> dict[str, Any] | None:
    """What tells a process from a later one of the same id; None when there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # on Linux, in ticks since it booted: the clock may be set meanwhile
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {"pid": pid, "boot": boot, "ticks": int(status.rpartition(")")[2].split()[19])}
    with contextlib.suppress(psutil.Error):
        return {"pid": pid, "created": psutil.Process(pid).create_time()}
    return None


def still_runs(mark: Mapping[str, Any]) -> bool:
    """Whether the process that has this mark is there."""
    now = mark_of(int(mark["pid"]))
    if now and "created" in now and "created" in mark:
        return abs(float(now["created"]) - float(mark["created"])) <= CLOCK_SECONDS
    return now == mark


def remove_stale(base: Path) -> None:
    """Remove folders of processes that were killed, and end the ssh that they left."""
    for path in base.glob(f"*/{OWNER}"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            owner, ssh = content["owner"], content["ssh"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if owner and still_runs(owner):
            continue
        if ssh and still_runs(ssh):
            end_group(int(ssh["pid"]), signal.SIGTERM)
        shutil.rmtree(path.parent, ignore_errors=True)


def services_of(text: str) -> configparser.RawConfigParser:
    """Services of libpq's, in the order of their file."""
    parser = configparser.RawConfigParser(delimiters=("=",))
    parser.read_string(text)
    return parser


def service_text(text: str, address: str, port: int, folder: Path, files: Mapping[str, str]) -> str:
    """Services of libpq's that lead to the database from here, and name the files that prove who one is.

    :param text: the services as they are for a machine that reaches the database straight. Over TLS, the name
        that is verified stays.
    """
    parser = services_of(text)
    lines = []
    for name in parser.sections():
        service = dict(parser[name]) | {"port": str(port)}
        service.pop("hostaddr", None)
        if service.get("sslmode") == "disable":
            service["host"] = address
        elif is_address(address):
            service["hostaddr"] = address
        service |= {key: str(folder / file) for key, file in NAMED.items() if file in files}
        lines += [f"[{name}]", *(f"{key}={value}" for key, value in service.items()), ""]
    return "\n".join(lines)


def passwords_text(text: str, port: int) -> str:
    """A password file whose lines are for the port that the database has here."""
    return re.sub(r"(?m)^((?:[^#:\\\n]|\\.)(?:[^:\\\n]|\\.)*):\d+:", rf"\g<1>:{port}:", text)


def dsn_of(text: str) -> str:
    """The first of the services in one line, as libpq takes it: `psycopg2.connect(dsn)`, `psql "dsn"`."""
    parser = services_of(text)
    return " ".join(f"{key}={quoted(value)}" for key, value in parser[parser.sections()[0]].items())


def quoted(value: str) -> str:
    """A value of a line for libpq."""
    if value and not re.search(r"[\s'\\]", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def is_address(text: str) -> bool:
    """Whether it is an address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def redirect_text(url: str) -> str:
    """A page that leads to an address, so that the address is in no list of processes."""
    there = escape(url)
    return (
        '<!DOCTYPE html>\n<html><head><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0; url={there}"><title>JupyterLab</title></head>\n'
        f'<body><p><a href="{there}">JupyterLab</a></p></body></html>\n'
    )
