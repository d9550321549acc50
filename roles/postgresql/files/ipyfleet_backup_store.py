"""The backups of a fleet's databases as files: which there are, which go, which were proven.

A backup is a folder named after the second it was begun in, UTC. It is made beside, under a hidden
name, and renamed when it is whole. What a drill found out about it is in a file of its own, which is
written by the drill's user, who can write nothing else here.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ipyfleet_backup_files import digest_or_none, read_json, read_note

SCHEMA = 1
MANIFEST = "manifest.json"
PROOFS = "proofs"
FAILED = "failed.json"
NAME = re.compile(r"\d{8}T\d{6}Z")
UNFINISHED = ".new-"
# of a first backup nothing is known but the size of the databases; later ones may have grown by so much
GROWTH = 1.2
# seconds, and the word for so many
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


class Problem(Exception):
    """Something that has to be put right first; one line says what."""


class BusyError(Problem):
    """Somebody else holds a lock."""


class MeanwhileError(Problem):
    """Somebody else was at a table just then; another try may do."""


class DamagedError(Problem):
    """A backup does not hold what was backed up."""


class Settings(NamedTuple):
    """What the program was set up with.

    :param bin_dir: folder of the server's own programs.
    :param socket_dir: folder of the server's socket.
    :param data: the server's data folder.
    :param port: what it shall listen on, once it is restarted.
    :param superuser: the database account to be.
    :param databases: databases that have to be there; every other one is backed up as well.
    :param folder: where backups are kept.
    :param keep: how many of them.
    :param work: where a drill puts its server; of the drill's user alone.
    :param timer: unit that starts a backup.
    """

    bin_dir: str
    socket_dir: str
    data: str
    port: int
    superuser: str
    databases: list[str]
    folder: str
    keep: int
    work: str
    timer: str


class Backup(NamedTuple):
    """A backup that is there.

    :param path: its folder.
    :param manifest: what was backed up; empty when it cannot be read.
    :param proof: what the newest drill said of it; None before one.
    """

    name: str
    path: str
    manifest: dict[str, Any]
    proof: dict[str, Any] | None

    @property
    def proven(self) -> bool:
        """Whether a drill brought back all of it."""
        return bool(self.proof and self.proof["ok"])


def read_settings(path: str) -> Settings:
    """Read the settings.

    :raises Problem: when there are none, or not these.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return Settings(**json.load(stream))
    except (OSError, ValueError, TypeError) as error:
        raise Problem(f"{path}: cannot be read ({error})") from error


def name_of(seconds: float) -> str:
    """The name of a backup that was begun then."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def iso(seconds: float) -> str:
    """A time for people and programs."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def seconds_of(text: str) -> float:
    """The time that `iso` or `name_of` wrote."""
    return float(calendar.timegm(time.strptime(re.sub(r"\D", "", text), "%Y%m%d%H%M%S")))


def backups(folder: str) -> list[Backup]:
    """The backups in a folder, newest first."""
    names = sorted((name for name in listed(folder) if NAME.fullmatch(name)), reverse=True)
    return [read_backup(folder, name) for name in names]


def listed(folder: str) -> list[str]:
    """What is in a folder; nothing, when there is none.

    :raises Problem: when it may not be read.
    """
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Problem(f"{folder}: cannot be read ({error.strerror})") from error


def read_backup(folder: str, name: str) -> Backup:
    """One backup, and what is known of it."""
    path = os.path.join(folder, name)
    manifest = read_json(os.path.join(path, MANIFEST)) or {}
    if manifest.get("schema") != SCHEMA:
        manifest = {}
    proof = read_note(os.path.join(folder, PROOFS, name + ".json"))
    if proof and not (isinstance(proof.get("ok"), bool) and proof.get("manifest") == digest_or_none(os.path.join(path, MANIFEST))):
        proof = None
    return Backup(name, path, manifest, proof)


def find(folder: str, name: str) -> Backup:
    """A backup by its name, or the newest one as ``latest``.

    :raises Problem: when there is none, or its manifest is damaged.
    """
    known = backups(folder)
    if not known:
        raise Problem(f"{folder}: expected a backup, got none; make one first")
    chosen = [each for each in known if name in ("latest", each.name)][:1]
    if not chosen:
        raise Problem(f"expected a backup that is there, or latest, got {name}; there are {', '.join(each.name for each in known)}")
    if not chosen[0].manifest:
        raise Problem(f"{chosen[0].path}: expected a whole {MANIFEST}, got a damaged one")
    return chosen[0]


def check_files(backup: Backup, names: Sequence[str]) -> None:
    """See that files of a backup are what was written.

    :raises DamagedError: naming the first that is not.
    """
    for name in names:
        found = digest_or_none(os.path.join(backup.path, name))
        if found != backup.manifest["files"][name]["sha256"]:
            what = "other content" if found else "none that can be read"
            raise DamagedError(f"{os.path.join(backup.path, name)}: expected the file that was backed up, got {what}")


def expired(known: Sequence[Backup], keep: int) -> list[Backup]:
    """Backups beyond the newest `keep`; never the newest proven one, nor one that cannot be read.

    :param known: newest first.
    """
    proven = next((each.name for each in known if each.proven), "")
    whole = [each for each in known if each.manifest]
    return [each for each in whole[keep:] if each.name != proven]


def needed_bytes(size: int, before: Backup | None) -> int:
    """Space that a backup may take.

    :param size: of the databases, in bytes.
    :param before: the newest backup.
    """
    known = before.manifest if before else {}
    then = sum(each["bytes"] for each in known.get("databases", {}).values())
    if not then:
        return size
    dumped = sum(each["bytes"] for each in known["files"].values())
    return int(dumped * GROWTH * max(1.0, size / then))


def check_space(folder: str, needed: int, purpose: str) -> None:
    """See that there is room.

    :param purpose: what it is for, as in `for a backup`.
    :raises Problem: when there is not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Problem(f"{folder}: expected {shown_bytes(needed)} free {purpose}, got {shown_bytes(free)}")


def shown_bytes(count: float) -> str:
    """A size for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def shown_age(seconds: float) -> str:
    """A time span for people."""
    return next((f"{int(seconds // length)} {unit}" for length, unit in UNITS if seconds >= length), f"{int(seconds)} s")


def write_json(path: str, data: dict[str, Any], mode: int = 0o640) -> None:
    """Write a file, whole or not at all, power cuts included."""
    new = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as stream:
        json.dump(data, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)
    sync(os.path.dirname(path))


def sync(path: str) -> None:
    """Have a file or a folder on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: str, what: str, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file, which is made, or on a folder, which is there.

    :param what: what holds it elsewhere, as in `another backup`.
    :raises BusyError: when somebody else does.
    """
    flags = os.O_RDONLY if os.path.isdir(path) else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BusyError(f"expected to be alone at it, got {what} under way; run again when it has ended") from error
    finally:
        os.close(handle)


def forget(folder: str, going: Sequence[Backup]) -> list[str]:
    """Remove backups, but those that are being read; returns the names of what went."""
    gone = []
    for backup in going:
        with contextlib.suppress(BusyError), locked(backup.path, "a reader"):
            # hidden first, so that what is half removed is no backup any more
            hidden = os.path.join(folder, UNFINISHED + backup.name)
            os.rename(backup.path, hidden)
            shutil.rmtree(hidden)
            gone.append(backup.name)
    kept = {name for name in listed(folder) if NAME.fullmatch(name)}
    # the drill's user can close its folder, which is no reason for a backup to fail
    with contextlib.suppress(Problem):
        for name in listed(os.path.join(folder, PROOFS)):
            if name.partition(".")[0] not in kept:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, PROOFS, name))
    return gone


def sweep(folder: str) -> None:
    """Remove what interrupted runs left."""
    for name in listed(folder):
        if name.startswith(UNFINISHED):
            shutil.rmtree(os.path.join(folder, name))


def overview(settings: Settings, now: float, timer: str) -> dict[str, Any]:
    """What there is, for `status`.

    :param timer: state of the timer, in systemd's word; empty when there should be none.
    """
    known = backups(settings.folder)
    shown = [told(each, now) for each in known]
    failed = read_note(os.path.join(settings.folder, FAILED))
    problems: list[str] = []
    if failed:
        problems.append(f"the backup of {failed['when']} failed: {failed['reason']}")
    if not known and timer != "active":
        problems.append("there is no backup yet")
    problems += [f"backup {each.name} is damaged" for each in known if not each.manifest]
    if known and known[0].proof and not known[0].proof["ok"]:
        problems.append(f"the drill of backup {known[0].name} failed: {known[0].proof['reason']}")
    if timer and timer != "active":
        problems.append(f"{settings.timer} is {timer}: no backup is made by itself")
    proven = next((each for each in shown if each["proven"]), None)
    text = f"{proven['age_text']} old" if proven else "none"
    return {"backups": shown, "newest": shown[0] if shown else None, "newest_proven": proven, "proven_text": text, "problems": problems}


def told(backup: Backup, now: float) -> dict[str, Any]:
    """What is told of a backup."""
    known, proof = backup.manifest, backup.proof or {}
    databases = known.get("databases", {})
    age = int(now - seconds_of(backup.name))
    size = sum(each["bytes"] for each in known.get("files", {}).values())
    return {
        "name": backup.name,
        "age": age,
        "age_text": shown_age(age),
        "whole": bool(known),
        "bytes": size,
        "size_text": shown_bytes(size),
        "databases": sorted(databases),
        "rows": sum(table["rows"] for each in databases.values() for table in each["contents"]["tables"].values()),
        "proven": proof["when"] if backup.proven else None,
        "reason": proof.get("reason", ""),
    }


def missing(wanted: Sequence[str], found: set[str]) -> list[str]:
    """Databases that should be there and are not."""
    return sorted(set(wanted) - found)
