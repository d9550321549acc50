# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The accounts of a fleet on a host: judged before anything is changed, made without rights, and removed when they are the fleet's."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import signal
import time
from typing import Any, Dict, Iterator, List, Set

from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree

# names of the shells that let nobody in
NO_SHELLS = ("nologin", "false")
GRACE_SECONDS, END_SECONDS = 2.0, 5.0


def problems(accounts: List[Dict[str, Any]]) -> Iterator[str]:
    """What speaks against accounts, in a line each.

    :param accounts: each with its `name`; the variable that it is `set_by`; its `home`; `data`, a folder of
        its that outlives the fleet, if there is one; and `keys`, if it is for people who have nothing but a way through ssh.
    """
    seen: Dict[str, str] = {}
    for account in accounts:
        name, variable = account["name"], account["set_by"]
        if name in seen:
            yield "%s: expected an account of its own, got %s, which %s is as well" % (variable, name, seen[name])
            continue
        seen[name] = variable
        there = tree.Owner(name)
        if there.uid == 0:
            yield "%s: expected an account without root's rights, got %s" % (variable, name)
            continue
        if there.uid is not None and account.get("commands") and pwd.getpwnam(name).pw_dir != account["home"]:
            yield "%s: expected an account with the home folder %s, for logins, got %s, which has %s; name another one" % (
                variable, account["home"], name, pwd.getpwnam(name).pw_dir,
            )  # fmt: skip
            continue
        if there.uid is not None and account.get("keys"):
            yield from _closed_problems(variable, name, account["home"])
        yield from _moved_problems(variable, there, [account["home"], account.get("data", "")])


def _closed_problems(variable: str, name: str, home: str) -> Iterator[str]:
    """An account of somebody else's, which keys would let in."""
    entry = pwd.getpwnam(name)
    if entry.pw_dir != home or os.path.basename(entry.pw_shell) not in NO_SHELLS:
        yield (
            "%s: expected an account without a shell, with the home folder %s, got %s, which has the shell %s and the home folder %s;"
            " name another one" % (variable, home, name, entry.pw_shell or "/bin/sh", entry.pw_dir)
        )


def _moved_problems(variable: str, account: tree.Owner, folders: List[str]) -> Iterator[str]:
    """Files of an account that had the name's place before; those of one that is gone are told where they are met."""
    for folder in folders:
        try:
            before = pwd.getpwuid(os.lstat(folder).st_uid)
        except (OSError, KeyError):
            continue
        if before.pw_uid not in (0, account.uid):
            yield (
                "%s: expected %s, whose files are in %s, got %s; take the fleet down from this host first, and move away what that keeps"
                % (variable, before.pw_name, folder, account.name)
            )
            return


def living_in(homes: List[str]) -> List[str]:
    """Names of the accounts whose home folder is one of these."""
    return sorted({entry.pw_name for entry in pwd.getpwall() if entry.pw_dir in homes})


def create(module: Any, account: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Make an account without a password, if there is none of the name; returns what that changes.

    :param account: `name`, `home` and `comment`; `keys`, whether ssh is to let in who has one of its keys; `commands`,
        whether these may run commands. Without that it has no shell. One that was made before is given one, or left without.
    """
    name, commands = account["name"], account.get("commands", False)
    nologin = module.get_bin_path("nologin", opt_dirs=["/usr/sbin", "/sbin"]) or "/bin/false"
    # to some sshds an account without a password is locked; one that no password fits is not
    options = ["--shell", "/bin/sh" if commands else nologin, *(["--password", "*"] if account.get("keys") or commands else [])]
    if tree.Owner(name).uid is None:
        if not module.check_mode:
            command = [module.get_bin_path("useradd", required=True), "--system", "--user-group", "--no-create-home"]
            _call(module, "useradd", [*command, "--home-dir", account["home"], "--comment", account["comment"], *options, name])
        return [{"path": name, "what": "create system user"}]
    entry = pwd.getpwnam(name)
    has_shell = os.path.basename(entry.pw_shell) not in NO_SHELLS
    # one that lives elsewhere was there before the fleet
    if entry.pw_dir != account["home"] or has_shell == commands:
        return []
    if not module.check_mode:
        _call(module, "usermod", [module.get_bin_path("usermod", required=True), *options, name])
    return [{"path": name, "what": "give a shell" if commands else "take the shell away"}]


def remove(module: Any, name: str) -> List[Dict[str, Any]]:
    """Remove an account, and end what runs as it; returns what that changes."""
    if not module.check_mode:
        end_processes(pwd.getpwnam(name).pw_uid)
        _call(module, "userdel", [module.get_bin_path("userdel", required=True), name])
    return [{"path": name, "what": "remove system user"}]


def close(module: Any, name: str, path: str, keys: str) -> List[Dict[str, Any]]:
    """End what came in by ssh with keys that are about to change: sshd asks for a key but once; returns what that changes.

    :param path: the file of the account's keys, of root's in a folder of root's.
    :param keys: what it will hold.
    """
    uid, before = tree.Owner(name).uid, tree.read_regular(path)
    if uid is None or before == keys or not processes_of(uid):
        return []
    if not module.check_mode:
        if before is not None:
            # nobody comes in until the new keys are there, and a run that is cut off begins here again
            os.chmod(path, 0o600)
        end_processes(uid)
    return [{"path": name, "what": "end tunnels"}]


def _call(module: Any, what: str, command: List[str]) -> None:
    code, _, err = module.run_command(command)
    if code:
        raise tree.TreeError("%s %s: %s" % (what, command[-1], err.strip()))


def end_processes(uid: int) -> None:
    """End every process of an account, such as an open tunnel's, and wait until they are gone."""
    begin = time.monotonic()
    asked: Set[int] = set()
    running = processes_of(uid)
    while running and time.monotonic() - begin < END_SECONDS:
        # asked first: systemd would count a manager of the account's that is killed as a unit that failed
        number = signal.SIGTERM if time.monotonic() - begin < GRACE_SECONDS else signal.SIGKILL
        for pid in running:
            if number == signal.SIGKILL or pid not in asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        asked.update(running)
        time.sleep(0.05)
        running = processes_of(uid)


def processes_of(uid: int) -> List[int]:
    """Ids of the processes that run as an account; those that have ended and wait for their parent do not count."""
    found = []
    # who owns the folder in /proc does not say: of a process that must not be traced, it is root
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            with open(path) as stream:
                values = dict(line.split(":", 1) for line in stream if ":" in line)
        except OSError:
            continue
        if str(uid) in values["Uid"].split()[:2] and not values["State"].strip().startswith("Z"):
            found.append(int(path.split("/")[2]))
    return found
