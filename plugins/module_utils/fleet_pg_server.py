# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The PostgreSQL servers of a host: where their files are, who runs, and how to talk to one.

All of it comes from files, and from the server's own psql: Debian's wrappers refuse to work as soon
as one line of a configuration is wrong, while the server itself goes on.
"""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_tree import Owner

DROP_IN = "50-ipyfleet.conf"
SOCKETS = "/var/run/postgresql"
SQL_SECONDS = 20
UNIT_SECONDS = 120
# names of the server's program: it has two in the EL family
PROGRAMS = ("postgres", "postmaster")
FAMILIES = ("debian", "redhat")
_SETTING = re.compile(r"^\s*(?P<name>[A-Za-z_][\w$.]*)(?:\s*=\s*|\s+)(?P<value>'(?:[^']|'')*'|[^\s#'=]+)\s*(?:#.*)?$")
_MARK = re.compile(r"^# Belongs to fleet (\S+)\.$", re.MULTILINE)


class ServerError(Exception):
    """The server, or what supervises it, refused what it was asked; the message is one line."""


class Layout(NamedTuple):
    """Where the files of one cluster are, as its distribution has them.

    :param version: the major version, such as ``15``.
    :param bin: folder of ``postgres`` and ``psql``.
    :param config: folder of ``postgresql.conf``.
    :param data: the data folder.
    :param unit: what systemd calls the server.
    :param user: the account that it runs as.
    """

    version: str
    cluster: str
    bin: str
    config: str
    data: str
    unit: str
    user: str = "postgres"

    @property
    def drop_in(self) -> str:
        """The fleet's settings."""
        return os.path.join(self.config, "conf.d", DROP_IN)

    @property
    def hba(self) -> str:
        """Who may connect."""
        return os.path.join(self.config, "pg_hba.conf")

    @property
    def first_hba(self) -> str:
        """What `hba` was before the fleet."""
        return self.hba + ".before-ipyfleet"

    @property
    def own(self) -> str:
        """Folder of the fleet's certificates."""
        return os.path.join(self.config, "ipyfleet")

    @property
    def pem(self) -> str:
        """The server's key and certificate, in one file, so that one rename changes both."""
        return os.path.join(self.own, "server.pem")

    @property
    def ca(self) -> str:
        """The certificate of the fleet's authority."""
        return os.path.join(self.own, "ca.crt")

    @property
    def name(self) -> str:
        """What people call it, such as ``15/main``."""
        return "%s/%s" % (self.version or "?", self.cluster)


class Postmaster(NamedTuple):
    """A server that runs, as its pid file describes it."""

    pid: int
    port: int
    sockets: str


def family(release: str) -> str:
    """The family of a distribution, by the text of its ``/etc/os-release``: ``debian``, ``redhat``, or its own name."""
    values = {}
    for line in release.splitlines():
        key, _, value = line.partition("=")
        values[key] = value.strip().strip("\"'")
    names = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    if "debian" in names:
        return "debian"
    if {"rhel", "fedora", "centos"} & set(names):
        return "redhat"
    return values.get("PRETTY_NAME") or values.get("ID") or "an unknown system"


def layout(kind: str, version: str, cluster: str, root: str = "/") -> Layout:
    """Where a cluster is, or will be.

    :param kind: ``debian`` or ``redhat``.
    :param version: the major version; may be empty while it is not known.
    """
    if kind == "redhat":
        data = os.path.join(root, "var/lib/pgsql/data")
        return Layout(version, "main", os.path.join(root, "usr/bin"), data, data, "postgresql.service")
    config = os.path.join(root, "etc/postgresql", version, cluster)
    data = settings_of([os.path.join(config, "postgresql.conf")]).get("data_directory", "")
    return Layout(
        version,
        cluster,
        os.path.join(root, "usr/lib/postgresql", version, "bin"),
        config,
        data or os.path.join(root, "var/lib/postgresql", version, cluster),
        "postgresql@%s-%s.service" % (version, cluster),
    )


def clusters(kind: str, root: str = "/") -> List[Layout]:
    """The clusters that are there, running or not, oldest version first."""
    if kind == "redhat":
        version = read_text(os.path.join(root, "var/lib/pgsql/data/PG_VERSION")).strip()
        return [layout(kind, version, "main", root)] if version else []
    found = []
    for path in glob.glob(os.path.join(root, "etc/postgresql/*/*/postgresql.conf")):
        version, cluster = path.split("/")[-3:-1]
        if version.replace(".", "").isdigit():
            found.append(layout(kind, version, cluster, root))
    return sorted(found, key=lambda each: (float(each.version), each.cluster))


def majors(kind: str, root: str = "/") -> List[str]:
    """Major versions whose server is installed, oldest first."""
    if kind == "redhat":
        words = run([os.path.join(root, "usr/bin/postgres"), "--version"])[1].split()
        return [words[2].split(".")[0]] if len(words) > 2 else []
    found = glob.glob(os.path.join(root, "usr/lib/postgresql/*/bin/postgres"))
    return sorted((path.split("/")[-3] for path in found), key=float)


def settings_of(paths: List[str]) -> Dict[str, str]:
    """Settings of configuration files, the last of each name; lines that make no sense are left out."""
    return settings_in("\n".join(map(read_text, paths)))


def settings_in(text: str) -> Dict[str, str]:
    """Settings in the text of a configuration file, the last of each name; lines that make no sense are left out."""
    return {name: value for _, name, value in setting_lines(text)}


def setting_lines(text: str) -> List[Tuple[int, str, str]]:
    """Line, name and value of each setting in the text of a configuration file, as far as they are well-formed."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _SETTING.match(line)
        if match and not match.group("name").lower().startswith("include"):
            value = match.group("value")
            quoted = value.startswith("'")
            found.append((number, match.group("name").lower(), value[1:-1].replace("''", "'") if quoted else value))
    return found


def includes(text: str, folder: str) -> bool:
    """Whether a postgresql.conf includes a folder beside it."""
    return re.search(r"(?mi)^\s*include_dir\s*=?\s*'?(?:\./)?%s/?'?\s*(?:#.*)?$" % re.escape(folder), text) is not None


def config_files(where: Layout) -> List[str]:
    """The files that a cluster reads its settings from, in the order in which they count."""
    drop_ins = sorted(glob.glob(os.path.join(where.config, "conf.d", "*.conf")))
    return [os.path.join(where.config, "postgresql.conf"), *drop_ins, os.path.join(where.data, "postgresql.auto.conf")]


def tuned(where: Layout) -> List[str]:
    """Names of settings that an operator has set himself, in files that are not the fleet's."""
    *files, altered = [path for path in config_files(where) if path != where.drop_in]
    found = settings_of(files)
    # what initdb writes into every postgresql.conf
    if found.get("shared_buffers") == "128MB":
        del found["shared_buffers"]
    # what comes from ALTER SYSTEM is somebody's wish, whatever it is
    return sorted({*found, *settings_of([altered])})


def configured_port(where: Layout) -> int:
    """The port that a cluster has, or will have when it starts."""
    value = settings_of(config_files(where)).get("port", "")
    return int(value) if value.isdigit() else 5432


def postmaster(where: Layout) -> Optional[Postmaster]:
    """The process of a cluster; None when it does not run."""
    lines = read_text(os.path.join(where.data, "postmaster.pid")).splitlines()
    try:
        pid, port, sockets = int(lines[0]), int(lines[3]), lines[4].strip()
    except (IndexError, ValueError):
        return None
    # after a crash, the number may be that of any other process
    if read_text("/proc/%d/comm" % pid).strip() not in PROGRAMS:
        return None
    return Postmaster(pid, port, sockets or SOCKETS)


def has_extension(where: Layout, name: str) -> bool:
    """Whether the server's packages have an extension."""
    root = where.bin[: where.bin.rindex("usr/")]
    shares = [os.path.join(root, "usr/share/postgresql", where.version), os.path.join(root, "usr/share/pgsql")]
    return any(os.path.exists(os.path.join(share, "extension", name + ".control")) for share in shares)


def fleet_of(text: str) -> str:
    """The fleet that a file of ours names; empty for anybody else's."""
    match = _MARK.search(text)
    return match.group(1) if match else ""


def read_text(path: str) -> str:
    """Text of a file; empty when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def run(command: List[str], account: Optional[Owner] = None, seconds: int = SQL_SECONDS) -> Tuple[int, str, str]:
    """Run a program, in the name of an account; returns its exit code, and what it printed to both streams.

    :param seconds: after so long it is killed, and its exit code is 124.
    """
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "PGCONNECT_TIMEOUT": "5"}
    environ.update({"PGCLIENTENCODING": "UTF8", "PGOPTIONS": "-c lc_messages=C -c statement_timeout=%ds" % seconds})
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=seconds,
            cwd="/",
            env=environ,
            preexec_fn=account.become if account else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", "no answer in %d s" % seconds
    except OSError as error:
        return 127, "", "%s: %s" % (command[0], error.strerror or error)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def first_line(text: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


class Database:
    """The server of a cluster, asked over its socket in the name of its own account."""

    def __init__(self, where: Layout) -> None:
        self.where = where

    def rows(self, sql: str, database: str = "postgres") -> List[Dict[str, Any]]:
        """Rows of a query.

        :raises ServerError: when the server does not answer, or refuses.
        """
        process = postmaster(self.where)
        if process is None:
            raise ServerError("the server of cluster %s does not run" % self.where.name)
        command = [os.path.join(self.where.bin, "psql"), "-XAtqw", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", process.sockets, "-p", str(process.port), "-U", self.where.user, "-d", database]
        # queries are this program's own text, with nothing of anybody else's in it
        command += ["-c", "SELECT coalesce(json_agg(r), '[]') FROM (%s) AS r" % sql]  # noqa: S608
        code, out, err = run(command, Owner(self.where.user))
        if code:
            raise ServerError("psql on cluster %s: %s" % (self.where.name, first_line(err) or "exit code %d" % code))
        return list(json.loads(out))

    def answers(self) -> bool:
        """Whether the server answers."""
        try:
            return bool(self.rows("SELECT 1 AS one"))
        except ServerError:
            return False


class Unit:
    """The server's unit: always the instance, whose state is the server's own."""

    def __init__(self, where: Layout) -> None:
        self.where = where

    def systemctl(self, verb: str, seconds: int = UNIT_SECONDS) -> str:
        """Call systemctl with a verb; returns why it failed, nothing when it did not."""
        code, _, err = run(["systemctl", verb, self.where.unit], seconds=seconds)
        return (first_line(err) or "exit code %d" % code) if code else ""

    def log_mark(self) -> "LogMark":
        """Where the server's log ends now."""
        return LogMark(self.where)


class LogMark:
    """What a server says from some moment on, in its log file where the distribution has one, and in the journal."""

    WORDS = re.compile(r"\b(?:FATAL|PANIC|ERROR|WARNING|LOG|HINT|DETAIL):\s+(.*)")

    def __init__(self, where: Layout) -> None:
        self.unit = where.unit
        self.path = "/var/log/postgresql/postgresql-%s-%s.log" % (where.version, where.cluster)
        self.at = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        self.since = run(["date", "+%Y-%m-%d %H:%M:%S"])[1].strip()

    def text(self) -> str:
        """All that was said since."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.at)
                said = stream.read().decode("utf-8", "replace")
        except OSError:
            said = ""
        return said + run(["journalctl", "-q", "--no-pager", "-o", "cat", "-u", self.unit, "--since", self.since])[1]

    def reason(self) -> str:
        """The line that says best why something went wrong; empty when none does."""
        lines = self.text().splitlines()
        for level in ("FATAL:", "PANIC:", "ERROR:", "could not ", "WARNING:"):
            for line in (each for each in lines if level in each):
                match = self.WORDS.search(line)
                return match.group(1) if match else line.strip()
        return ""
