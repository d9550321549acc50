# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Engines that get no new work, until they have nothing to do."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, List, Optional, Tuple

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_abandoned import abandoned

# engines are open again after so many seconds by themselves, should whoever closed them be no more
LEASE_SECONDS = 15.0
# and after so many, once they have nothing to do: whoever closed them stops them meanwhile
KEPT_SECONDS = 300.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.2
# looks in a row that find nothing: the controller hears of a task a little later than its engine
LOOKS = 3
# what an engine is asked that should have nothing to do
QUESTION = "1"


def request(client: Any, what: str, content: Dict[str, Any]) -> Dict[str, Any]:
    """The controller's answer to a request; nothing when there is none in time, or it refuses.

    :param client: an ipyparallel client; its own requests would wait for ever for a controller that is restarted.
    """
    with contextlib.suppress(Exception):
        reply = client._send(client._query_stream, what, content).result(ANSWER_SECONDS)
        if reply["content"].get("status") == "ok":
            return dict(reply["content"])
    return {}


def close(client: Any, engines: List[int], seconds: float) -> List[int]:
    """Have engines get no load-balanced task for some seconds, 0 to open them; returns those that the controller can close."""
    said = request(client, "fleet_close_request", {"engines": {str(number): seconds for number in engines}})
    return [int(number) for number in said.get("closed", [])]


def loads(client: Any) -> Optional[Dict[int, Dict[str, int]]]:
    """By engine id, how many messages and tasks the controller knows to be there; None when it does not answer."""
    said = request(client, "queue_request", {"targets": None, "verbose": False})
    return {int(number): load for number, load in said.items() if number.isdigit()} if said else None


class Draining:
    """Waits until engines have nothing to do.

    :param ids: of engines that are to be drained.
    """

    def __init__(self, client: Any, ids: List[int]) -> None:
        self.client = client
        self.ids = ids
        self.closed: List[int] = []
        # by engine, questions that it has not answered, the last one with what was queued before it, and when it was asked
        self.asked: Dict[int, List[Any]] = {number: [] for number in ids}
        self.last: Dict[int, Tuple[Any, int]] = {}
        self.asked_at: Dict[int, float] = {}
        self.loads: Dict[int, Dict[str, int]] = {}
        self.renewed = 0.0

    def wait(self, seconds: float) -> List[Dict[str, Any]]:
        """Close the engines and wait; they are open again when that takes longer than `seconds`.

        :return: each engine with its `id` and `state`: `idle`, `gone` when it is not registered, `busy`, or `silent`
            when nothing is known that it does, and it does not answer; with `queue` and `tasks`.
        """
        deadline = time.monotonic() + seconds
        looks = 0
        while looks < LOOKS:
            self.renew()
            found = self.look()
            looks = looks + 1 if all(each["state"] in ("idle", "gone") for each in found) else 0
            if looks < LOOKS and (time.monotonic() > deadline or abandoned()):
                close(self.client, self.ids, 0)
                break
            time.sleep(POLL_SECONDS)
        else:
            close(self.client, self.ids, KEPT_SECONDS)
        return found

    def renew(self) -> None:
        """Keep the engines closed."""
        if time.monotonic() - self.renewed > LEASE_SECONDS / 3:
            self.closed = close(self.client, self.ids, LEASE_SECONDS) or self.closed
            self.renewed = time.monotonic()

    def look(self) -> List[Dict[str, Any]]:
        """How the engines do; those that have no tasks are asked something."""
        known = loads(self.client)
        listed = set(self.client.ids)
        found = []
        for number in self.ids:
            if known is not None:
                self.loads[number] = known.get(number, {"queue": 0, "tasks": 0})
            load = self.loads.get(number, {"queue": 0, "tasks": 0})
            each = {"id": number, "queue": load["queue"], "tasks": load["tasks"]}
            if known is None:
                found.append({**each, "state": "busy"})
            elif number not in listed:
                # the controller still counts what it had to do
                found.append({**each, "queue": 0, "tasks": 0, "state": "gone"})
            else:
                found.append(self.judge(each))
        return found

    def judge(self, each: Dict[str, Any]) -> Dict[str, Any]:
        """An engine with its state.

        Messages of direct views are dealt with in their order, so an answer says that all before it are done. What the controller
        still counts then is lost, if it is as much as before the question; else it came later, and there is another question.
        """
        number = each["id"]
        self.asked[number] = [asked for asked in self.asked[number] if not asked.ready()]
        # questions of ours are no work
        queued = each["queue"] = max(0, each["queue"] - len(self.asked[number]))
        if each["tasks"]:
            self.last.pop(number, None)
            return {**each, "state": "busy"}
        asked, before = self.last.get(number, (None, 0))
        if asked is not None and asked.ready():
            if before == queued and self.said(asked):
                return {**each, "queue": 0, "state": "idle"}
            asked = None
        # again, as a message can be lost with a controller that is killed; ever more seldom
        lost = not queued and time.monotonic() - self.asked_at.get(number, 0.0) > ANSWER_SECONDS * len(self.asked[number])
        if asked is None or lost:
            self.last.pop(number, None)
            # it may be gone by now
            with contextlib.suppress(Exception):
                asked = self.client[number].apply_async(eval, QUESTION)
                self.last[number] = (asked, queued)
                self.asked[number].append(asked)
                self.asked_at[number] = time.monotonic()
        return {**each, "state": "busy" if queued else "silent"}

    def said(self, asked: Any) -> bool:
        """Whether an engine answered, rather than died."""
        with contextlib.suppress(Exception):
            return bool(asked.get(timeout=1) == 1)
        return False


def doing(each: Dict[str, Any]) -> str:
    """What an engine has to do, in words."""
    if each["state"] == "silent":
        return "nothing is queued there, but it does not answer: it works on what was sent to all engines at once, or hangs"
    if not each["tasks"] + each["queue"]:
        return "the controller did not say what it has to do"
    parts = []
    if each["tasks"]:
        parts.append("%d load-balanced task%s" % (each["tasks"], "" if each["tasks"] == 1 else "s"))
    if each["queue"]:
        parts.append("%d message%s of direct views" % (each["queue"], "" if each["queue"] == 1 else "s"))
    return " and ".join(parts)
