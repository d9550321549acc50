# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The notes that a fleet's processes leave when they start: with which files they did.

A process whose note differs from the files of today has to be restarted, whatever happened in
between: a run that was cut off between writing a file and restarting, or an edit by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from typing import Any, Dict, List

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_reading import regular_bytes

# bytes; a note has a few words
LONGEST_NOTE = 4096


def digest_of(files: List[str], contents: Dict[str, str]) -> str:
    """One digest over names and contents of files, as a unit's note has it.

    :param contents: what files will hold, for those that are about to be written.
    """
    total = hashlib.sha256()
    for name in sorted(set(files)):
        total.update(name.encode() + b"\0")
        if name in contents:
            total.update(hashlib.sha256(contents[name].encode()).digest())
            continue
        with contextlib.suppress(OSError):
            total.update(hashlib.sha256(regular_bytes(name)).digest())
    return total.hexdigest()


def started_with(run: str, name: str) -> str:
    """The digest in the note of a unit; empty when there is none."""
    return str(read_note(run, name).get("inputs", ""))


def read_note(run: str, name: str) -> Dict[str, Any]:
    """The note of a unit; empty when there is none. The unit's user writes it, and may write anything."""
    try:
        note = json.loads(regular_bytes(os.path.join(run, name + ".json"), LONGEST_NOTE))
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def healed(run: str, name: str) -> str:
    """How often the watchdog has had a unit started anew since the host's boot, when and why last; empty when it never has."""
    note = read_note(run, "healed-" + name)
    try:
        with open("/proc/sys/kernel/random/boot_id") as stream:
            if note.get("boot") != stream.read().strip():
                return ""
        last = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(note["last"])))
        times, why = int(note["times"]), "".join(each for each in str(note["why"]) if each.isprintable())
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""
    return "%d %s, last at %s: %s" % (times, "time" if times == 1 else "times", last, why[:200])
