# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A folder of people's own code as one archive: what is in it, whether it differs, and what is left out."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# what is made from code, or is about it
LEFT_OUT = (
    ".git", ".hg", ".svn", "__pycache__", "*.pyc", "*.pyo", ".ipynb_checkpoints", ".venv", "venv", ".tox", ".nox", ".eggs", "*.egg-info",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".coverage", ".DS_Store", ".idea", ".vscode", ".ipyfleet",
)  # fmt: skip


class CodeProblem(Exception):
    """The folder cannot be taken; the message says what is wrong with it."""


def files_of(folder: Path, left_out: Sequence[str] = ()) -> Iterator[tuple[str, Path]]:
    """Names below the folder and paths of its files, in a fixed order.

    :param left_out: patterns beside `LEFT_OUT`, of names or of paths below the folder.
    :raises CodeProblem: when there is no such folder, or something in it is none of it.
    """
    if not folder.is_dir():
        raise CodeProblem(f"sync_folder: {folder}: expected a folder, got {'a file' if folder.exists() else 'nothing there'}")
    top = folder.resolve()
    patterns = (*LEFT_OUT, *left_out)
    for here, folders, names in os.walk(folder):
        below = Path(here).relative_to(folder)
        folders[:] = sorted(name for name in folders if not is_left_out(below / name, patterns))
        for name in sorted(folders + names):
            path = Path(here) / name
            if is_left_out(below / name, patterns):
                continue
            if path.is_symlink() and (not path.exists() or top not in path.resolve().parents or path.is_dir()):
                raise CodeProblem(f"sync_folder: {path}: expected a file of the folder, got a link to {os.readlink(path)}; leave it out")
            if path.is_file():
                yield str(below / name), path
            elif not path.is_dir():
                raise CodeProblem(f"sync_folder: {path}: expected a file, got something else; leave it out")


def is_left_out(path: Path, patterns: Sequence[str]) -> bool:
    """Whether a pattern fits a path's name, or the path."""
    return any(fnmatch.fnmatch(path.name, each.rstrip("/")) or fnmatch.fnmatch(str(path), each.rstrip("/")) for each in patterns)


def pack(folder: Path, left_out: Sequence[str] = ()) -> tuple[str, bytes]:
    """Digest and archive of a folder; both are the same as long as what is in it is.

    :raises CodeProblem: as `files_of`, and when there is nothing in it.
    """
    digest, stream = hashlib.sha256(), io.BytesIO()
    # without compression: equal bytes for equal content, whatever the library
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        count = 0
        for name, path in files_of(folder, left_out):
            try:
                data = path.read_bytes()
            except OSError as error:
                raise CodeProblem(f"sync_folder: {path}: cannot be read: {error.strerror}") from error
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if os.access(path, os.X_OK) else 0o644
            archive.addfile(entry, io.BytesIO(data))
            digest.update(f"{name}\0{entry.mode}\0{len(data)}\0".encode() + data)
            count += 1
    if not count:
        raise CodeProblem(f"sync_folder: {folder}: expected code in it, got nothing that is not left out")
    return digest.hexdigest(), stream.getvalue()
