"""Files that another user may have written: they are read as what they should be, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from typing import Any, BinaryIO

CHUNK = 1 << 20
# bytes; a manifest has a few hundred for each table
MANIFEST_BYTES = 1 << 28
NOTE_BYTES = 1 << 16


def read_note(path: str) -> dict[str, Any] | None:
    """What came of a drill or a backup, with `when` and `reason` in one line each; None when there is no such file.

    A drill's user could write anything there, and what is read is shown to operators.
    """
    found = read_json(path, NOTE_BYTES)
    if not found or not all(isinstance(found.get(key), str) for key in ("when", "reason")):
        return None
    return {**found, "when": printable(found["when"]), "reason": printable(found["reason"])}


def printable(text: str) -> str:
    """A text without what a terminal would take for a command."""
    return "".join(each if each.isprintable() else "?" for each in text)


def read_json(path: str, limit: int = MANIFEST_BYTES) -> dict[str, Any] | None:
    """A mapping from a file; None when there is none.

    :param limit: bytes beyond which a file is taken for damaged.
    """
    try:
        with opened(path) as stream:
            content = stream.read(limit + 1)
        found = json.loads(content) if len(content) <= limit else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def opened(path: str) -> BinaryIO:
    """Open a file to be read, which another user may have put there: no link is followed, no pipe waited for.

    :raises OSError: when that cannot be, or it is no file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no file", path)
    return os.fdopen(handle, "rb")


def digest_or_none(path: str) -> str | None:
    """SHA-256 of a file; None when it cannot be read."""
    found = hashlib.sha256()
    try:
        with opened(path) as stream:
            for chunk in iter(lambda: stream.read(CHUNK), b""):
                found.update(chunk)
    except OSError:
        return None
    return found.hexdigest()
