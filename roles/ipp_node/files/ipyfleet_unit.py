"""What a supervisor does not do by itself for a fleet's processes.

    ipyfleet_unit.py begin NAME --run DIR [--input FILE ...]
    ipyfleet_unit.py watch NAME --run DIR [--input FILE ...] [--leave COMMAND] -- COMMAND ...

`begin` delays a start after several quick ones (back-off), and notes a digest of the files that
the process is about to be started with; a deployment restarts the processes whose note differs
from the files, and no others. systemd units call it before each start.

`watch` is for supervisord, which knows nothing of what a dead process leaves behind: it begins,
runs COMMAND, and when that ends, or before it starts it anew, ends every process that COMMAND had
started, so that no orphan keeps a port or a core. They are known by IPYFLEET_UNIT in their
environment, which supervisord sets.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil

QUICK_SECONDS = 10.0
FREE_STARTS = 5
LONGEST_DELAY_SECONDS = 60.0
GRACE_SECONDS = 5.0
# bytes; a note has a few words
LONGEST_NOTE = 4096
MARK = "IPYFLEET_UNIT"
# a controller has several connections with each engine, and logins often begin with 1024
MOST_FILES = 65536


def digest_of(files: Sequence[str]) -> str:
    """One digest over the names and contents of files; a missing one counts as such."""
    total = hashlib.sha256()
    for name in sorted(set(files)):
        total.update(name.encode() + b"\0")
        with contextlib.suppress(OSError):
            total.update(hashlib.sha256(Path(name).read_bytes()).digest())
    return total.hexdigest()


def delay_after(quick: int) -> float:
    """Seconds to wait before a start, after so many quick ends in a row.

    The first few are free; from then on the delay doubles, up to a minute.
    """
    if quick < FREE_STARTS:
        return 0.0
    return min(2.0 ** min(quick - FREE_STARTS, 16), LONGEST_DELAY_SECONDS)


def begin(name: str, run: Path, inputs: Sequence[str]) -> None:
    """Wait if the last starts were quick ones, then note when and with what this one happens."""
    note = run / f"{name}.json"
    boot = boot_id()
    inputs_digest = digest_of(inputs)
    quick = 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        # what runs in the unit can put a pipe or a link in its place
        with open(os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            before = json.loads(stream.read(LONGEST_NOTE))
        # the clock counts from boot: a note of an earlier boot says nothing; other files are a new chance
        same = (before["boot"], before["inputs"]) == (boot, inputs_digest)
        if same and time.monotonic() - before["started"] < QUICK_SECONDS:
            quick = int(before["quick"]) + 1
    if delay := delay_after(quick):
        print(f"{name}: ended quickly {quick} times in a row, waiting {delay:.0f} s", file=sys.stderr, flush=True)
        time.sleep(delay)
        inputs_digest = digest_of(inputs)
    new = run / f".{name}.json.new"
    now = {"boot": boot, "started": time.monotonic(), "quick": quick, "inputs": inputs_digest}
    new.write_text(json.dumps(now))
    os.replace(new, note)


def boot_id() -> str:
    """What tells one boot of the machine from another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(round(time.time() - time.monotonic(), -2))


def marked(mark: str) -> list[psutil.Process]:
    """This user's processes, other than this one, that carry `mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def sweep(mark: str, grace: float) -> None:
    """End every other process of the unit; those that do not end within `grace` seconds are killed."""
    found = marked(mark)
    for process in found if grace else []:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    alive = psutil.wait_procs(found, timeout=grace)[1] if grace else found
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_SECONDS)


def raise_files() -> None:
    """Let the unit have many files open, as far as its user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def watch(args: argparse.Namespace) -> int:
    """Run the command of a unit and leave nothing behind when it ends."""
    mark = os.environ[MARK]
    # left by a supervisor or a watch that was killed; at once, or the dying watch would sweep this one
    sweep(mark, grace=0)
    begin(args.name, args.run, args.input)
    raise_files()
    child = subprocess.Popen(args.command, start_new_session=True)

    def forward(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    code = child.wait()
    sweep(mark, GRACE_SECONDS)
    if args.leave:
        subprocess.run(shlex.split(args.leave), check=False, timeout=30)
    return code if code >= 0 else 128 - code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("begin", "watch"):
        each = verbs.add_parser(verb)
        each.add_argument("name")
        each.add_argument("--run", type=Path, required=True)
        each.add_argument("--input", action="append", default=[])
        if verb == "watch":
            each.add_argument("--leave", default="")
            each.add_argument("command", nargs="+")
    args = parser.parse_args()
    if args.verb == "watch":
        return watch(args)
    begin(args.name, args.run, args.input)
    return 0


if __name__ == "__main__":
    sys.exit(main())
