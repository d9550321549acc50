"""The database server of a fleet that has one machine to itself, under supervisord, without root.

    ipyfleet_postgresql.py serve CONFIG PASSWORDS --state DIR --run DIR
    ipyfleet_postgresql.py check --state DIR --run DIR < CONFIG

`serve` makes the data folder when there is none, brings settings, accounts and databases to what
CONFIG and PASSWORDS say, by a server that nobody else can reach, and then becomes the server. It
listens on loopback alone, where nothing is encrypted. Everybody needs a password, but the account
that it runs as, which may be superuser on the socket.

`check` prints what speaks against CONFIG, a line for each problem, by a server of its own that it
throws away; what runs and what is kept is not touched.

PostgreSQL does not run as root: for root, everything is done as the account postgres, or nobody,
and kept in /var/lib, because the folders of root are closed to both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipyfleet_accounts as accounts
import ipyfleet_binaries as binaries
import ipyfleet_settings as settings
import psutil
from ipyfleet_accounts import SUPERUSER
from ipyfleet_binaries import Binaries, Problem

ADDRESS = "127.0.0.1"
START_SECONDS = 600
# as long as the supervisor gives it
STOP_SECONDS = 50
# tried in this order: the first that this PostgreSQL and this system know
LOCALES = (
    ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
    ["--locale=C.UTF-8"],
    ["--locale=C", "--locale-provider=icu", "--icu-locale=und"],
    ["--locale=C"],
)


@dataclass(frozen=True)
class Places:
    """Where a server's files are.

    :param data: its data folder.
    :param socket: folder of its socket.
    :param programs: PostgreSQL's programs.
    """

    data: Path
    socket: Path
    programs: Binaries


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("serve", "check"):
        each = verbs.add_parser(verb)
        if verb == "serve":
            each.add_argument("config", type=Path)
            each.add_argument("passwords", type=Path)
        each.add_argument("--state", type=Path, required=True)
        each.add_argument("--run", type=Path, required=True)
    args = parser.parse_args()
    try:
        if args.verb == "check":
            for problem in check(json.load(sys.stdin), args.state, args.run):
                print(problem)
        else:
            serve(json.loads(args.config.read_text()), json.loads(args.passwords.read_text()), args.state, args.run)
    except Problem as problem:
        # a trial starts with what everybody's does but the settings
        blamed = args.verb == "check" and str(problem).startswith(settings.NOT_STARTED)
        print(f"postgresql_settings: {problem}" if blamed else problem, flush=True)
        return 0 if args.verb == "check" else 1
    return 0


def serve(config: Mapping[str, Any], passwords: Mapping[str, str], state: Path, run: Path) -> None:
    """Bring the server to what is wanted, and become it; see the module's description."""
    places = settle(config, state, run)
    if not places.data.exists():
        initialize(places.programs, places.data)
    configure(places.data, config)
    port = int(config["port"])
    stop_orphan(places)
    for lock in (places.data / "postmaster.pid", places.socket / f".s.PGSQL.{port}.lock"):
        remove_stale(lock)
    with running(places, port):
        bring_about(places, config, passwords)
    print(
        f"PostgreSQL {places.programs.major} of {places.programs.folder} on {ADDRESS}, port {port}:"
        " connections are not encrypted, and accepted from this machine only",
        flush=True,
    )
    command = [places.programs.program("postgres"), "-D", str(places.data), *options(places.socket, port, ADDRESS)]
    os.execve(command[0], command, environment())


def check(config: Mapping[str, Any], state: Path, run: Path) -> Iterator[str]:
    """What speaks against a configuration; nothing where it was never deployed, because its programs may be yet to come.

    :raises Problem: when there is one that keeps the others from being found.
    """
    home, _ = home_of(config, state, run)
    if not (home / "data").exists():
        return
    places = settle(config, state, run)
    with tempfile.TemporaryDirectory(prefix="ipyfleet-") as folder:
        trial = Places(Path(folder) / "data", Path(folder), places.programs)
        initialize(trial.programs, trial.data, sync=False)
        configure(trial.data, config)
        with running(trial, int(config["port"])):
            known = query(trial, int(config["port"]), "select json_agg(name) from pg_available_extensions")
        for database in config["databases"]:
            for name in database["extensions"]:
                if name not in known:
                    yield f"postgresql_databases.{database['name']}.extensions: expected one that this PostgreSQL has, got {name}"


# -- where things are, and as whom


def home_of(config: Mapping[str, Any], state: Path, run: Path) -> tuple[Path, Path]:
    """Folders of the data and of the socket: the fleet's own; for root, those of another account."""
    if os.geteuid():
        return state / "postgresql", run
    home = Path(f"/var/lib/ipyfleet-{config['name']}-postgresql/state")
    return home, home


def settle(config: Mapping[str, Any], state: Path, run: Path) -> Places:
    """Find the programs, make the folders, and be root no longer.

    :raises Problem: when there are no programs that fit.
    """
    home, socket = home_of(config, state, run)
    data = home / "data"
    found = binaries.find(config["binaries"])
    programs = binaries.choose(found, data, binaries.made_by(data), config["version"])
    if os.geteuid():
        home.mkdir(mode=0o700, exist_ok=True)
        return Places(data, socket, programs)
    home.parent.mkdir(mode=0o755, exist_ok=True)
    home.parent.chmod(0o755)
    if programs.shipped:
        programs = binaries.copied(programs, home.parent / "programs")
    account = unprivileged(home)
    if not home.exists():
        home.mkdir(mode=0o700)
        os.chown(home, account.pw_uid, account.pw_gid)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.chdir("/")
    return Places(data, socket, programs)


def unprivileged(home: Path) -> pwd.struct_passwd:
    """The account that stands in for root: the one that has the folder, else postgres, else nobody.

    :raises Problem: when there is none.
    """
    with contextlib.suppress(OSError, KeyError):
        if home.stat().st_uid:
            return pwd.getpwuid(home.stat().st_uid)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Problem("expected an account postgres or nobody, because PostgreSQL does not run as root, got neither")


def environment() -> dict[str, str]:
    """This process's environment without what PostgreSQL's programs would take for options."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"}


# -- a data folder


def initialize(programs: Binaries, data: Path, sync: bool = True) -> None:
    """Make a data folder, whole or not at all; its superuser has no password, and so comes by the socket alone.

    :param sync: whether it has to survive a loss of power.
    :raises Problem: when that fails.
    """
    new = data.with_name("data.new")
    said = ""
    for locale in LOCALES:
        shutil.rmtree(new, ignore_errors=True)
        command = [programs.program("initdb"), "-D", str(new), "-U", SUPERUSER, "--auth-local=peer", "--auth-host=reject"]
        command += ["--encoding=UTF8", "--data-checksums", *locale, *([] if sync else ["--no-sync"])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        if done.returncode == 0:
            new.rename(data)
            return
        said = done.stderr
    shutil.rmtree(new, ignore_errors=True)
    raise Problem(f"initdb in {data}: {settings.first_error(said)}")


def configure(data: Path, config: Mapping[str, Any]) -> None:
    """Put settings and rules of access in a data folder."""
    account = pwd.getpwuid(os.geteuid()).pw_name
    write(data / "ipyfleet.conf", settings.conf_text(config["settings"]))
    write(data / "pg_hba.conf", settings.HBA)
    write(data / "pg_ident.conf", settings.ident_text(account))
    main_file = data / "postgresql.conf"
    text = main_file.read_text()
    if settings.INCLUDE not in text:
        write(main_file, f"{text}\n{settings.INCLUDE}\n")


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    os.replace(new, path)


def remove_stale(lock: Path) -> None:
    """Remove a lock file whose process is no PostgreSQL, but another one that has its number since the last boot."""
    with contextlib.suppress(FileNotFoundError, psutil.AccessDenied):
        if server_of(lock) is None:
            lock.unlink()


def server_of(lock: Path) -> psutil.Process | None:
    """The running PostgreSQL that a lock file names; None when there is none.

    :raises FileNotFoundError: when there is no such file.
    :raises psutil.AccessDenied: when nothing can be told of the process.
    """
    try:
        # the number of a server without postmaster has a minus
        process = psutil.Process(abs(int(lock.read_text().splitlines()[0])))
        return process if process.name() in ("postgres", "postmaster") else None
    except (psutil.NoSuchProcess, ValueError, IndexError):
        return None


def is_served(data: Path) -> bool:
    """Whether a server of this very data folder runs: its process is in the folder, one that has its number by chance is not."""
    with contextlib.suppress(FileNotFoundError, psutil.AccessDenied, psutil.NoSuchProcess):
        process = server_of(data / "postmaster.pid")
        return process is not None and os.path.samefile(process.cwd(), data)
    return False


def stop_orphan(places: Places) -> None:
    """Stop a server that has outlived the process which started it: beside it, none could start.

    :raises Problem: when it goes on.
    """
    said = ""
    for mode in ("fast", "immediate"):
        if not is_served(places.data):
            return
        print(f"a server of {places.data} is left from before: stopping it ({mode})", flush=True)
        command = [places.programs.program("pg_ctl"), "-D", str(places.data), "-s", "-w", "-t", str(STOP_SECONDS), "-m", mode, "stop"]
        said = subprocess.run(command, capture_output=True, text=True, check=False, env=environment()).stderr
    if is_served(places.data):
        raise Problem(f"expected the server of {places.data} that is left from before to stop, but: {settings.first_error(said)}")


# -- a server


def options(socket: Path, port: int, addresses: str) -> list[str]:
    """What a server is told on its command line, where nothing else can undo it."""
    told = {
        "listen_addresses": addresses,
        "port": port,
        "unix_socket_directories": accounts.ident(str(socket)),
        "logging_collector": "off",
    }
    return [word for key, value in told.items() for word in ("-c", f"{key}={value}")]


@contextmanager
def running(places: Places, port: int) -> Iterator[None]:
    """A server while the block lasts, reachable by nobody but the account's own processes.

    :raises Problem: when it does not start.
    """
    log = places.data.with_name("start.log")
    log.unlink(missing_ok=True)
    control = [places.programs.program("pg_ctl"), "-D", str(places.data), "-s", "-w", "-t", str(START_SECONDS)]
    start = [*control, "-l", str(log), "-o", shlex.join(options(places.socket, port, "")), "start"]
    done = subprocess.run(start, capture_output=True, text=True, check=False, env=environment())
    said = log.read_text(errors="replace") if log.exists() else ""
    log.unlink(missing_ok=True)
    if done.returncode:
        raise Problem(settings.refusal(said or done.stderr))
    try:
        yield
    finally:
        subprocess.run([*control, "-m", "fast", "stop"], capture_output=True, check=False, env=environment())


def query(places: Places, port: int, sql: str, database: str = "postgres") -> Any:
    """Run SQL as superuser over the socket, and return what it gives, which is JSON or nothing.

    :raises Problem: with the server's message.
    """
    command = [places.programs.program("psql"), "-XAtqw", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=terse"]
    command += ["-h", str(places.socket), "-p", str(port), "-U", SUPERUSER, "-d", database]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False, env=environment())
    if done.returncode:
        raise Problem(f"database {database}: {settings.first_error(done.stderr)}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def bring_about(places: Places, config: Mapping[str, Any], passwords: Mapping[str, str]) -> None:
    """Bring accounts and databases to what is wanted; what else there is stays as it is.

    :raises Problem: with the server's message.
    """
    port = int(config["port"])
    there = query(places, port, accounts.THERE)
    statements = list(accounts.role_statements(config["users"], passwords, there["roles"]))
    statements += accounts.database_statements(config["databases"], there["databases"])
    if statements:
        query(places, port, ";\n".join(statements) + ";\n")
    for database in config["databases"]:
        if contents := list(accounts.content_statements(database)):
            query(places, port, "set client_min_messages = error;\n" + ";\n".join(contents) + ";\n", database["name"])


if __name__ == "__main__":
    sys.exit(main())
