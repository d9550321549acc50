"""Back up the databases of a fleet, prove the backups, and bring databases back.

    ipyfleet_backup.py --settings FILE backup
    ipyfleet_backup.py --settings FILE drill [BACKUP]
    ipyfleet_backup.py --settings FILE restore DATABASE [--backup BACKUP] [--overwrite DATABASE] [--drop-old] [--trust] [--check]
    ipyfleet_backup.py --settings FILE list

`backup` and `restore` are for the server's own user; `drill` is for a user who can do nothing else.
Each prints JSON. What has to be put right first is one line on standard error, and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import ipyfleet_backup_store as store
from ipyfleet_backup_drill import drill
from ipyfleet_backup_restore import Request, restore
from ipyfleet_backup_server import Server, live_port
from ipyfleet_backup_store import Problem
from ipyfleet_backup_take import backup


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="ipyfleet_backup.py", allow_abbrev=False)
    top.add_argument("--settings", required=True, metavar="FILE")
    verbs = top.add_subparsers(dest="verb", metavar="backup|drill|restore|list")
    verbs.required = True
    verbs.add_parser("backup", help="back up every database")
    verbs.add_parser("list", help="say what backups there are")
    verb = verbs.add_parser("drill", help="restore a backup into a server that is thrown away, and compare")
    verb.add_argument("backup", nargs="?", default="latest")
    verb = verbs.add_parser("restore", help="bring a database back", allow_abbrev=False)
    verb.add_argument("database")
    verb.add_argument("--backup", default="latest")
    verb.add_argument("--overwrite", default="", metavar="DATABASE", help="its name once more, to replace one that is there")
    verb.add_argument("--drop-old", action="store_true", help="drop the one that was there, which else is kept")
    verb.add_argument("--trust", action="store_true", help="run what users wrote into the database, such as checks, as a superuser")
    verb.add_argument("--check", action="store_true", help="only say what would be done")
    return top


def carry_out(words: argparse.Namespace) -> dict[str, Any]:
    """Do what a command line says.

    :raises Problem: when that cannot be.
    """
    settings = store.read_settings(words.settings)
    server = Server(settings.bin_dir, settings.socket_dir, live_port(settings.data, settings.port), settings.superuser)
    if words.verb == "backup":
        return backup(settings, server)
    if words.verb == "drill":
        return drill(settings, words.backup)
    if words.verb == "restore":
        return restore(settings, server, Request(words.database, words.backup, words.overwrite, words.drop_old, words.trust, words.check))
    return store.overview(settings, time.time(), state_of(settings.timer))


def state_of(unit: str) -> str:
    """How a unit does, in systemd's word; empty without a unit."""
    if not unit:
        return ""
    done = subprocess.run(["systemctl", "is-active", unit], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip()


def main(argv: list[str] | None = None) -> int:
    words = parser().parse_args(argv)
    # what is half done is undone when it is ended from outside, too
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    # files are for this user, and for the group of the folder: that of the drill's user
    os.umask(0o027)
    try:
        result = carry_out(words)
    except Problem as problem:
        print(f"ipyfleet_backup: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(result, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
