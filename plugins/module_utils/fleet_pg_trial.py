# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A throw-away PostgreSQL instance that starts with candidate files, and says what it makes of them.

All of it happens as the server's own user, in a folder that nobody else can enter: the server that is
there is neither asked nor touched, and no right is needed that it has not. What was started ends, and the
folder goes, when the process that made them ends, however that happens.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_abandoned import abandoned
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_env import last_line
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import parse
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_scratch import (
    LONGEST_FILE,
    POLL_SECONDS,
    ScratchError,
    copy_configuration,
    private_folder,
)
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_server import includes, setting_lines
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_tree import me

INITDB_SECONDS = 60
START_SECONDS = 30
COMMAND_SECONDS = 20
USUAL_SEGMENT_MB = 16
PORT = 5432
AUTO = "postgresql.auto.conf"
CERTIFICATES = (".crt", ".key", ".pem", ".crl")
# what is asked of the instance
ANSWER = """select json_build_object(
 'files', (select coalesce(json_agg(to_json(f) order by seqno), '[]') from pg_file_settings f),
 'rules', (select coalesce(json_agg(to_json(h)), '[]') from pg_hba_file_rules h),
 'values', (select json_object_agg(name, setting) from pg_settings),
 'loaded', extract(epoch from pg_conf_load_time()))"""
LOADED = "select extract(epoch from pg_conf_load_time())"


class TrialError(Exception):
    """There could be no trial, whatever the candidate is."""


class Candidate(NamedTuple):
    """What a server shall start with.

    :param bin: folder of the server's programs; `version` its major version.
    :param config: folder of the configuration, as it is; `data` that of the data.
    :param drop_in: path of the file that holds `conf`, below `config`.
    :param hba: content of pg_hba.conf.
    :param pem: key and certificate of the server, and `ca`, what clients' certificates are checked with; empty to
        take what is there.
    :param pem_path: where `pem` will be, and `ca_path` `ca`: settings that name another file are tried with that file.
    """

    bin: str
    version: int
    config: str
    data: str
    drop_in: str
    conf: str
    hba: str
    pem: str = ""
    ca: str = ""
    pem_path: str = ""
    ca_path: str = ""


def overrides(candidate: Candidate, folder: str) -> Dict[str, str]:
    """Settings of the instance itself, by which it keeps out of the way of the server that is there."""
    config = os.path.join(folder, "config")
    found = {
        "config_file": os.path.join(config, "postgresql.conf"),
        "hba_file": os.path.join(config, "pg_hba.conf"),
        "ident_file": os.path.join(config, "pg_ident.conf"),
        "data_directory": os.path.join(folder, "data"),
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": folder,
        "unix_socket_group": "",
        "unix_socket_permissions": "0700",
        "external_pid_file": os.path.join(folder, "pid"),
        # archive_mode stays as it is, because it has to fit to wal_level
        "archive_command": "",
        "huge_pages": "off",
        "fsync": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "",
        "log_min_messages": "warning",
        "lc_messages": "C",
    }
    if candidate.version >= 15:
        found["archive_library"] = ""
    else:
        found["stats_temp_directory"] = "pg_stat_tmp"
    for _, name, value in setting_lines(candidate.conf):
        if candidate.pem and name in ("ssl_cert_file", "ssl_key_file") and value == candidate.pem_path:
            found[name] = os.path.join(folder, "server.pem")
        if candidate.ca and name == "ssl_ca_file" and value == candidate.ca_path:
            found[name] = os.path.join(folder, "ca.crt")
    return found


def kinds_of(text: str) -> Dict[str, str]:
    """What each setting wants to be, from `postgres --describe-config`; nothing where that does not say."""
    found = {}
    for line in text.splitlines():
        # name, context, group, type, default, least, most
        words = line.split("\t")
        if len(words) > 6:
            numbers = "a number from %s to %s" % (words[5], words[6])
            found[words[0]] = {"BOOLEAN": "on or off", "INTEGER": numbers, "REAL": numbers}.get(words[3], "")
    return found


def huge_pages() -> int:
    """How many huge pages this host keeps."""
    with contextlib.suppress(OSError), open("/proc/meminfo") as stream:
        match = re.search(r"HugePages_Total:\s+(\d+)", stream.read())
        return int(match.group(1)) if match else 0
    return 0


def refuse_if_abandoned() -> None:
    """Go no further when nobody waits for this process any more.

    :raises TrialError: then.
    """
    if abandoned():
        raise TrialError("nobody waits for the rehearsal any more")


def rehearse(candidate: Candidate) -> Dict[str, Any]:
    """Start an instance with a candidate, as the user of this process.

    :returns: `folder`, where it was; `drop_in`, `whole`, `log`: what the server said of the drop-in alone, of the
        whole configuration, and when it started; `lines`: what the configuration's files set, each with path, line,
        name and value; `named`: files that rules take names from; `huge_pages`: how many this host has; `kinds`: what
        all settings want to be, where some are not; `files`, `rules`, `values`: the server's own view of the
        candidate, if it started; `closed`, `refused`: why nobody got in before the candidate's rules were read, and
        why its own user did not after.
    :raises TrialError: when there could be no trial.
    """
    try:
        with private_folder() as (folder, group):
            return {"folder": folder, **_Trial(candidate, folder, group).run()}
    except ScratchError as error:
        raise TrialError(str(error)) from error


class _Trial:
    def __init__(self, candidate: Candidate, folder: str, group: int) -> None:
        self.candidate = candidate
        self.folder = folder
        self.group = group
        self.config = os.path.join(folder, "config")
        self.data = os.path.join(folder, "data")
        self.settings = overrides(candidate, folder)

    def run(self) -> Dict[str, Any]:
        self.lay_out()
        drop_in = os.path.join(self.config, self.candidate.drop_in)
        found: Dict[str, Any] = {"drop_in": self.check(drop_in), "whole": self.check(self.settings["config_file"]), "log": ""}
        found.update(lines=self.lines(), named=self.named(), huge_pages=huge_pages())
        if found["drop_in"] or found["whole"]:
            found["kinds"] = kinds_of(self.call([self.program("postgres"), "--describe-config"], COMMAND_SECONDS).stdout)
            return found
        self.initialize()
        # the rules come later: a server that refuses them would not say all that is wrong with them
        self.write("config/pg_hba.conf", "local all all peer\n")
        with open(os.path.join(self.folder, "log"), "w+", errors="replace") as log:
            server = self.start(log)
            if self.is_up(server):
                self.write("config/pg_hba.conf", self.candidate.hba)
                found.update(self.ask())
            log.seek(0)
            found["log"] = log.read()
        return found

    def lay_out(self) -> None:
        """The configuration as it would be, in a folder of its own."""
        together = os.path.realpath(self.candidate.config) == os.path.realpath(self.candidate.data)
        folder = os.path.dirname(self.candidate.drop_in)
        copy_configuration(self.candidate.config, self.config, folder if together else "")
        main = os.path.join(self.config, "postgresql.conf")
        try:
            with open(main, errors="surrogateescape") as stream:
                text = stream.read()
        except OSError as error:
            path = os.path.join(self.candidate.config, "postgresql.conf")
            raise TrialError("%s: expected a file that the server can read, got %s" % (path, error.strerror)) from error
        if not includes(text, folder):
            self.write("config/postgresql.conf", "%s\ninclude_dir = '%s'\n" % (text, folder))
        self.write("config/pg_ident.conf", "", keep=True)
        self.write("config/" + self.candidate.drop_in, self.candidate.conf)
        self.write("server.pem", self.candidate.pem)
        self.write("ca.crt", self.candidate.ca)

    def write(self, name: str, text: str, keep: bool = False) -> None:
        """Write a file in the folder, for nobody else to read.

        :param keep: leave one alone that is there.
        """
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if keep and os.path.exists(path):
            return
        if os.path.lexists(path):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", errors="surrogateescape") as stream:
            stream.write(text)

    def program(self, name: str) -> str:
        return os.path.join(self.candidate.bin, name)

    def environment(self) -> Dict[str, str]:
        """Nothing of what would lead a program of PostgreSQL elsewhere."""
        return {"PATH": "%s:/usr/bin:/bin" % self.candidate.bin, "LC_ALL": "C", "HOME": self.folder, "PGHOST": self.folder}

    def spawn(self, command: List[str], output: int, errors: int) -> "subprocess.Popen[bytes]":
        """Start a program in the group that ends with this process."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            cwd=self.folder,
            env=self.environment(),
            preexec_fn=self.enter_group,
        )

    def enter_group(self) -> None:
        os.setpgid(0, self.group)

    def call(self, command: List[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end.

        :raises TrialError: when it takes too long, or nobody waits for this process any more.
        """
        process = self.spawn(command, subprocess.PIPE, subprocess.PIPE)
        deadline = time.monotonic() + seconds
        while True:
            try:
                out, err = process.communicate(timeout=POLL_SECONDS * 5)
            except subprocess.TimeoutExpired:
                refuse_if_abandoned()
                if time.monotonic() > deadline:
                    raise TrialError("expected %s to end within %d s, got no end" % (command[0], seconds)) from None
                continue
            return subprocess.CompletedProcess(command, process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    def options(self, names: Dict[str, str]) -> List[str]:
        return [word for name, value in names.items() for word in ("-c", "%s=%s" % (name, value))]

    def check(self, path: str) -> str:
        """What the server says against a configuration file; nothing when it can be read."""
        own = {name: self.settings[name] for name in ("lc_messages", "log_line_prefix")}
        command = [self.program("postgres"), "-C", "port", "-D", self.folder, "-c", "config_file=%s" % path, *self.options(own)]
        done = self.call(command, COMMAND_SECONDS)
        return (done.stderr or "exit code %d" % done.returncode) if done.returncode else ""

    def lines(self) -> List[Tuple[str, int, str, str]]:
        """What the configuration's files set, about in the order in which they are read."""
        paths = sorted(glob.glob(os.path.join(self.config, "**", "*.conf"), recursive=True))
        order = [self.settings["config_file"], *paths, os.path.join(self.candidate.data, AUTO)]
        found = []
        for path in dict.fromkeys(order):
            name = AUTO if path == order[-1] else os.path.relpath(path, self.config)
            if os.path.basename(path) in ("pg_hba.conf", "pg_ident.conf") or (name == AUTO) != (path == order[-1]):
                continue
            with contextlib.suppress(OSError), open(path, errors="replace") as stream:
                found += [(name, *each) for each in setting_lines(stream.read())]
        return found

    def named(self) -> Dict[str, str]:
        """Files that rules take names from, by path as it is written there."""
        found: Dict[str, str] = {}

        def read(path: str) -> Optional[str]:
            with contextlib.suppress(OSError), open(os.path.join(self.config, path), errors="replace") as stream:
                found[path] = stream.read(LONGEST_FILE)
            return found.get(path)

        parse(self.candidate.hba, read)
        return found

    def initialize(self) -> None:
        """An empty database cluster, with what was set by ALTER SYSTEM in the one that is there."""
        size = self.segment_mb()
        extra = [] if size == USUAL_SEGMENT_MB else ["--wal-segsize=%d" % size]
        command = [
            self.program("initdb"),
            "-D",
            self.data,
            "--auth=peer",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "--no-clean",
            *extra,
        ]
        done = self.call(command, INITDB_SECONDS)
        if done.returncode:
            raise TrialError("expected initdb to make an instance for the rehearsal, got: %s" % last_line(done.stderr))
        with contextlib.suppress(OSError):
            shutil.copyfile(os.path.join(self.candidate.data, AUTO), os.path.join(self.data, AUTO))
        # certificates may be named as they are in the data folder
        for path in glob.glob(os.path.join(glob.escape(self.candidate.data), "*.*")):
            if path.endswith(CERTIFICATES):
                os.symlink(path, os.path.join(self.data, os.path.basename(path)))

    def segment_mb(self) -> int:
        """Size of the WAL segments of the server that is there, which others of its settings have to fit to."""
        done = self.call([self.program("pg_controldata"), "-D", self.candidate.data], COMMAND_SECONDS)
        match = re.search(r"(?m)^Bytes per WAL segment:\s+(\d+)", done.stdout)
        return int(match.group(1)) >> 20 if match else USUAL_SEGMENT_MB

    def start(self, log: Any) -> "subprocess.Popen[bytes]":
        command = [self.program("postgres"), "-D", self.data, *self.options(self.settings)]
        return self.spawn(command, log.fileno(), log.fileno())

    def is_up(self, server: "subprocess.Popen[bytes]") -> bool:
        """Wait until the instance takes connections; false when it ends before.

        :raises TrialError: when it does neither in time.
        """
        path = os.path.join(self.data, "postmaster.pid")
        deadline = time.monotonic() + START_SECONDS
        while server.poll() is None:
            with contextlib.suppress(OSError), open(path) as stream:
                if "ready" in stream.read().split():
                    return True
            refuse_if_abandoned()
            if time.monotonic() > deadline:
                raise TrialError("expected the rehearsal's instance to start within %d s, got no start" % START_SECONDS)
            time.sleep(POLL_SECONDS)
        return False

    def query(self, text: str) -> "subprocess.CompletedProcess[str]":
        user = ["-U", me()]
        command = [self.program("psql"), "-XAtqw", "-h", self.folder, "-p", str(PORT), *user, "-d", "postgres", "-c", text]
        return self.call(command, COMMAND_SECONDS)

    def ask(self) -> Dict[str, Any]:
        """What the instance makes of its files, and whether its own user gets in by the candidate's rules."""
        done = self.query(ANSWER)
        if done.returncode:
            return {"closed": last_line(done.stderr)}
        found: Dict[str, Any] = json.loads(done.stdout)
        before = found.pop("loaded")
        if not found["rules"] or any(each["error"] for each in found["rules"]):
            return found
        with open(os.path.join(self.data, "postmaster.pid")) as stream:
            os.kill(int(stream.readline()), signal.SIGHUP)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            done = self.query(LOADED)
            if done.returncode:
                return {**found, "refused": last_line(done.stderr)}
            if float(done.stdout) > before:
                return found
            time.sleep(POLL_SECONDS)
        raise TrialError("expected the rehearsal's instance to read its files again within %d s, got no sign" % START_SECONDS)
