# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What engines do and who they are, asked so that none is disturbed that works and nobody waits for one."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterable, List

# text: code of one version of Python is of no use to another
QUESTION = """{
    "hostname": __import__("socket").gethostname(),
    "pid": __import__("os").getpid(),
    "python": __import__("platform").python_version(),
}"""
POLL_SECONDS = 0.01


def loads(client: Any) -> Dict[int, Dict[str, int]]:
    """By engine id, how many messages and tasks the controller knows to be waiting or running there, and to be done.

    :param client: an ipyparallel client.
    """
    return {number: dict(load) for number, load in client.queue_status().items() if isinstance(number, int)}


def is_busy(load: Dict[str, int], asked: int = 0) -> bool:
    """Whether an engine has something to do.

    :param asked: how many questions of ours that it has are no work.
    """
    return load["queue"] + load["tasks"] > asked


def introductions(client: Any, ids: Iterable[int], seconds: float) -> Dict[int, Dict[str, Any]]:
    """What engines say of themselves: `hostname`, `pid` and `python`, of those that answer in time.

    :param seconds: to wait, in all.
    """
    deadline = time.monotonic() + seconds
    found: Dict[int, Dict[str, Any]] = {}
    asked: Dict[int, Any] = {}
    for number in ids:
        # it may be gone by now
        with contextlib.suppress(Exception):
            asked[number] = client[number].apply_async(eval, QUESTION)
    while asked:
        for number in [number for number, answer in asked.items() if answer.ready()]:
            with contextlib.suppress(Exception):
                found[number] = dict(asked[number].get())
            del asked[number]
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return found


def watch(client: Any, ids: Iterable[int], seconds: float) -> List[Dict[str, Any]]:
    """Engines, each with `id`, `state` and its load, and with what it says of itself.

    The state is `idle`, `busy`, or `silent`: of one that did not answer, though the controller knows of nothing
    that it does. Code that was sent to all engines at once by a broadcast view is not known there.

    :param seconds: that idle ones have to answer; a busy one is not asked.
    """
    before = {number: load for number, load in loads(client).items() if number in set(ids)}
    said = introductions(client, [number for number, load in before.items() if not is_busy(load)], seconds)
    quiet = [number for number, load in before.items() if number not in said and not is_busy(load)]
    # meanwhile, others may have sent something there, or it may be gone
    after = loads(client) if quiet else {}
    found = []
    for number, load in sorted(before.items()):
        if number in quiet:
            if number not in after:
                continue
            state = "busy" if is_busy(after[number], asked=1) else "silent"
        else:
            state = "idle" if number in said else "busy"
        found.append({"id": number, "state": state, **load, **said.get(number, {})})
    return found
