"""The engines of a host for as long as somebody who has logged in by ssh holds on to them.

    ipyfleet_engines.py --security DIR --etc DIR --profile DIR --work DIR [COMMAND]

What is asked for comes as a line of JSON, as the command of a login: `n`, the number of engines, and `args`,
options of ipengine. A login's key may be bound to this program; the line is in SSH_ORIGINAL_COMMAND then.
Each engine has a slot of the host, the first that is free. One that ends is started anew. All of them end
with the connection: when it is closed, or when no line came over it for a while, because the other side is
no more. Lines are `signal NUMBER`, for all engines, and `stay`, which says nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ipyfleet_unit

# the other side says something every few seconds
SILENCE_SECONDS = 20.0
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.25
# a deployment that replaces files ends the engines itself; one that was cut off does not
SETTLE_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 60.0
# an engine that ends sooner did not come up
QUICK_SECONDS = 10.0
# of linux/prctl.h
PR_SET_PDEATHSIG = 1
LIBRARY = Path(__file__).resolve().parent


class RequestError(ValueError):
    """What was asked for makes no sense; the message says why."""


def read_request(line: str) -> tuple[int, list[str]]:
    """Number of engines and their options.

    :raises RequestError: when the line asks for something else.
    """
    try:
        content = json.loads(line)
        number, options = content["n"], content.get("args", [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError('expected a request such as {"n": 2, "args": []}, got something else') from error
    if type(number) is not int or number < 1:
        raise RequestError("expected a number of engines from 1 on")
    if not isinstance(options, list) or not all(isinstance(each, str) for each in options):
        raise RequestError("expected options of ipengine as a list of strings")
    return number, options


def die_with_parent() -> None:
    """Have this process end when its parent does, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Slot:
    """One slot of the host, and the engine in it."""

    def __init__(self, file: Path, command: list[str], lock: Any) -> None:
        self.file = file
        self.command = command
        self.lock = lock
        self.process: subprocess.Popen[bytes] | None = None
        self.begun = 0.0
        self.quick = 0

    @property
    def mark(self) -> str:
        """By which all are known that its engine has started, whatever became of their parents."""
        return str(self.file)

    def start(self) -> None:
        """Start its engine, after all that one before has left."""
        ipyfleet_unit.sweep(self.mark, grace=0)
        self.begun = time.monotonic()
        environ = {**os.environ, ipyfleet_unit.MARK: self.mark}
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent, env=environ
        )

    def keep(self) -> None:
        """Start its engine anew if it has ended: soon, and later each time when it does not come up."""
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            self.clear()
            ran = time.monotonic() - self.begun
            delay = min(0.25 * 2.0**self.quick, LONGEST_DELAY_SECONDS)
            if ran < delay:
                return
            self.quick = self.quick + 1 if ran < QUICK_SECONDS + delay else 0
        self.start()

    def send(self, number: int) -> None:
        """Send the engine a signal."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def clear(self) -> None:
        """End what is left of the engine and what it has started."""
        if self.process is not None:
            ipyfleet_unit.sweep(self.mark, grace=0)


def free_slots(folder: Path, number: int, command: list[str]) -> list[Slot]:
    """Slots that no other login has, at most so many."""
    found: list[Slot] = []
    for file in sorted(folder.glob("engine-*.json"), key=lambda path: int(path.stem.partition("-")[2])):
        if len(found) == number:
            break
        lock = file.open()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        # engines do not inherit it: the slot is free when this program ends
        found.append(Slot(file, [command[0], command[1], str(file), *command[2:]], lock))
    return found


def engine_command(args: argparse.Namespace, options: list[str]) -> list[str]:
    """How an engine is started; its own options win over the fleet's."""
    command = [sys.executable, str(LIBRARY / "ipengine.py"), f"--config={args.etc}/ipengine_config.py"]
    command.append(f"--file={args.security}/ipcontroller-engine.json")
    folder = next((each.partition("=")[2] for each in options if each.startswith(("--profile-dir=", "--profile_dir="))), "")
    if folder:
        # an engine does not start without
        for path in (folder, f"{folder}/security", f"{folder}/log"):
            os.makedirs(os.path.expanduser(path), mode=0o700, exist_ok=True)
    else:
        command.append(f"--profile-dir={args.profile}")
    return [*command, *(each.replace("--profile_dir=", "--profile-dir=", 1) for each in options)]


def looks(paths: list[Path]) -> list[tuple[int, int] | None]:
    """What tells that one of these files was replaced."""
    return [(status.st_ino, status.st_mtime_ns) if (status := each.stat() if each.exists() else None) else None for each in paths]


def hold(slots: list[Slot], inputs: list[Path]) -> None:
    """Keep engines up until the connection ends, or what they are started with has been replaced."""
    heard = changed = time.monotonic()
    first = last = looks(inputs)
    while time.monotonic() - heard < SILENCE_SECONDS:
        now = looks(inputs)
        if now != last:
            last, changed = now, time.monotonic()
        if now != first and time.monotonic() - changed > SETTLE_SECONDS:
            print("what engines are started with was changed", file=sys.stderr, flush=True)
            return
        for slot in slots:
            slot.keep()
        if not select.select([0], [], [], POLL_SECONDS)[0]:
            continue
        data = os.read(0, 4096)
        if not data:
            return
        heard = time.monotonic()
        for line in data.decode(errors="replace").splitlines():
            word, _, number = line.partition(" ")
            if word == "signal" and number.isdigit():
                for slot in slots:
                    slot.send(int(number))


def end(slots: list[Slot]) -> None:
    """End all engines: asked first, so that the hub hears of it."""
    for slot in slots:
        slot.send(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for slot in slots:
        if slot.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                slot.process.wait(max(0.0, deadline - time.monotonic()))
        slot.clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("security", "etc", "profile", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("request", nargs="?", default=os.environ.get("SSH_ORIGINAL_COMMAND", ""))
    args = parser.parse_args()
    # as services have it
    os.umask(0o077)
    os.chdir(args.work)
    # whoever hangs up does so by closing the connection
    for ignored in (signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    slots: list[Slot] = []
    try:
        number, options = read_request(args.request)
        slots = free_slots(Path(args.etc), number, engine_command(args, options))
        if len(slots) < number:
            print(f"expected {number} free slots on this host, got {len(slots)}", file=sys.stderr, flush=True)
        if slots:
            stamp = Path(sys.prefix) / "ipyfleet.json"
            fixed = [
                Path(args.etc) / "ipengine_config.py",
                Path(args.security) / "ipcontroller-engine.json",
                LIBRARY / "ipengine.py",
                stamp,
            ]
            hold(slots, [*fixed, *(slot.file for slot in slots)])
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        end(slots)
    return 0 if slots else 1


if __name__ == "__main__":
    sys.exit(main())
