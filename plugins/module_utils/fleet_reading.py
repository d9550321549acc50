# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reading files in folders that belong to somebody else, who can put anything in their place."""

from __future__ import annotations

import errno
import os
import stat

# far beyond anything that a fleet writes
LONGEST = 16 << 20


def regular_bytes(path: str, longest: int = LONGEST) -> bytes:
    """Content of a regular file. A link is not followed, a pipe is not waited for.

    :param longest: bytes; what is longer is not read to its end.
    :raises OSError: when it cannot be read, is too long, or is anything else.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind = os.fstat(handle).st_mode
        if not stat.S_ISREG(kind):
            number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            raise OSError(number, os.strerror(number), path)
        found = b""
        while len(found) <= longest:
            more = os.read(handle, longest + 1 - len(found))
            if not more:
                return found
            found += more
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    finally:
        os.close(handle)
