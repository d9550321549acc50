# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes into the archive of a bug report, by the name of its file there; secrets are taken out of it afterwards."""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ansible.release import __version__ as ansible_version
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import report
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.plain import plain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.redaction import Redactor
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import STATE

LARGEST = 1024 * 1024
# of an inventory's folder
SUFFIXES = ("", ".yml", ".yaml", ".ini", ".json", ".cfg", ".toml")
BESIDE = ("group_vars", "host_vars")
PACKAGES = ("ipyfleet", "ansible-core", "ansible-runner", "ipyparallel", "ipykernel", "jinja2", "cryptography", "pyzmq", "typer")


class BundleLeakError(Exception):
    """A secret would be in the archive; nothing was written."""


def versions(collection: str) -> str:
    """What is installed on this machine.

    :param collection: version of this collection.
    """
    found = {"collection": collection, "ansible": ansible_version, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed beside Ansible"
    return as_json(found)


def sources(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Inventory files as they are, and variables beside them."""
    seen: set[Path] = set()
    for number, each in enumerate(given):
        path = Path(each)
        folders = [path] if path.is_dir() else [path.parent / name for name in BESIDE]
        files = [path] if path.is_file() else []
        files += sorted(found for folder in folders if folder.is_dir() for found in folder.rglob("*") if found.suffix in SUFFIXES)
        top = path if path.is_dir() else path.parent
        for file in files:
            hidden = any(part.startswith(".") for part in file.relative_to(top).parts)
            if not hidden and file.is_file() and file not in seen:
                seen.add(file)
                yield f"inventory/{number}/{file.relative_to(top)}", read(file)


def kept(folder: Path) -> Iterator[tuple[str, str]]:
    """What is beside the fleet's keys and not secret: its state, and the locks."""
    for path in [folder / STATE, *sorted((folder / "locks").glob("*.txt"))]:
        if path.is_file():
            yield f"fleet/{path.relative_to(folder)}", read(path)


def read(path: Path) -> str:
    """The beginning of a file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(LARGEST)
    except OSError as error:
        return f"cannot be read: {error.strerror}\n"


def of_host(host: str, known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is known of a host.

    :param known: what its tasks returned, by their kind: ``look``, ``collect`` and ``database``.
    """
    top = f"hosts/{host}"
    look, collected = known.get("look") or {}, known.get("collect") or {}
    if look:
        yield f"{top}/look.json", as_json({key: look[key] for key in ("problem", "msg", "facts", "changes", "unreachable") if key in look})
    if collected.get("units"):
        yield f"{top}/units.json", as_json(collected["units"])
    for unit, lines in collected.get("logs", {}).items():
        yield f"{top}/logs/{unit}.log", "".join(f"{line}\n" for line in lines)
    texts = collected.get("collected", {})
    for name, text in texts.get("machine", {}).items():
        yield f"{top}/{name}.txt", text
    for name in ("units", "listing", "packages"):
        if texts.get(name):
            yield f"{top}/{name}.txt", texts[name]
    for path, text in texts.get("files", {}).items():
        yield f"{top}/files/{path.lstrip('/')}", text
    if database := known.get("database"):
        yield f"{top}/logs/postgresql.log", f"{database.get('stdout', '')}\n{database.get('stderr', '')}\n"


def reasons(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Why nothing is known of a host, of those of which that is so."""
    found = {}
    for host, known in hosts.items():
        answers = [each for each in known.values() if each]
        if not any("collected" in each or "stdout" in each for each in answers):
            found[host] = next((str(each["msg"]).splitlines()[0] for each in answers if each.get("msg")), "nothing was heard of it")
    return found


def status(fleet: Mapping[str, Any], verified: Mapping[str, Any], hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """What `status` would say, as far as hosts answered."""
    slots = report.slots_of(fleet)
    problem = str(verified.get("msg") or "the controller could not be asked")
    listed = verified if "slots" in verified else report.nothing_answered(slots, problem)
    units = {host: known["collect"]["units"] for host, known in hosts.items() if (known.get("collect") or {}).get("units")}
    return report.status_text({**report.fleet_of(fleet), **report.slots_report(listed, fleet, units)}) + "\n"


def as_json(content: object) -> str:
    """Data as text for people."""
    return json.dumps(plain(content), indent=2, default=str) + "\n"


def cleaned(files: Mapping[str, str], redactor: Redactor) -> dict[str, str]:
    """Files without secrets, in names and contents.

    :raises BundleLeakError: when one is left.
    """
    found = {redactor.clean(name): redactor.clean(text) for name, text in files.items()}
    left = [name for name, text in found.items() if redactor.leaks(text) or redactor.leaks(name)]
    if left:
        raise BundleLeakError(f"expected no secret in a bundle, got one in {', '.join(left)}; nothing was written")
    return found


def write(dest: Path, top: str, files: Mapping[str, str]) -> None:
    """Write an archive, whole or not at all, for nobody else to read.

    :param top: the folder that all is in.
    :raises OSError: when it cannot be written.
    """
    handle, new = tempfile.mkstemp(dir=dest.parent, prefix=f".{dest.name}-")
    try:
        with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name in sorted(files):
                data = files[name].encode("utf-8", "replace")
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(datetime.now(UTC).timestamp())
                archive.addfile(entry, io.BytesIO(data))
        os.replace(new, dest)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
