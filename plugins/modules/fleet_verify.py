#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run code on every engine slot and say which ones are short."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_verify
short_description: Compare the wanted engine slots with those that answer
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Connects to a controller as a client does, and runs a function on every wanted slot.
  - Runs on a host that has the client's connection file, by the fleet's own Python, which its action
    plugin of the same name knows to find; that plugin takes these options, and gives the module its own.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    type: dict
    required: true
  timeout:
    description: Seconds to wait until all slots have answered.
    type: float
    required: true
  probe:
    description: Whether to run code on the engines. Otherwise only the controller's list is read.
    type: bool
    required: true
attributes:
  check_mode: {support: full, description: Changes nothing in either mode.}
  diff_mode: {support: none, description: There is nothing to show.}
"""

EXAMPLES = r"""
- name: Run code on every engine
  ipyfleet.cluster.fleet_verify:
    fleet: "{{ prepared.fleet }}"
    timeout: 60
    probe: true
"""

RETURN = r"""
slots:
  description: The wanted slots, each with C(state) and, if it answered, what it said.
  returned: always
  type: list
  elements: dict
short:
  description: Number of slots that are not C(ok).
  returned: always
  type: int
ask:
  description: Hosts of slots that are missing or silent.
  returned: always
  type: list
  elements: str
guests:
  description:
    - Engines that no slot asks for, each with C(id) and C(state), which is C(idle), C(busy) or C(silent).
    - What is idle is asked for its C(hostname), C(pid) and C(python), and has five seconds to answer.
  returned: always
  type: list
  elements: dict
hello:
  description: What C(client[:].apply_sync) of a greeting gave.
  returned: when all slots are C(ok)
  type: list
  elements: str
"""

import contextlib
import io
import time
from typing import Any, Callable, Collection, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_abandoned import abandoned
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_engines import watch
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_looks import see_database

POLL_SECONDS = 0.1
ANSWER_SECONDS = 5.0
DATABASE_SECONDS = 15.0


# engines have no such module to import it from: it goes there as it is
see_database.__module__ = "__main__"


def who_am_i() -> Dict[str, Any]:
    """Runs on an engine."""
    import json
    import os
    import platform
    import socket
    import sys

    try:
        with open(os.path.join(sys.prefix, "ipyfleet.json")) as stream:
            lock = json.load(stream)["lock"]
    except (OSError, ValueError, KeyError):
        lock = ""
    return {"hostname": socket.gethostname(), "pid": os.getpid(), "python": platform.python_version(), "lock": lock}


def ask(
    client: Any, wanted: List[int], awaited: List[int], question: Callable[..., Any], deadline: float, *arguments: object
) -> Dict[int, Any]:
    """Answers by engine id, of those that gave one before the deadline, or before all that are awaited had.

    An engine that died stays listed until the hub notices, and what was sent to it is lost: so
    each gets the question anew when it does not answer, or is replaced.
    """
    answers: Dict[int, Any] = {}
    asked: Dict[int, Any] = {}
    while not set(awaited) <= set(answers):
        for number in wanted:
            if number in answers or number not in client.ids:
                asked.pop(number, None)
                continue
            sent, result = asked.get(number, (0.0, None))
            if result is not None and result.ready():
                with contextlib.suppress(Exception):
                    answers[number] = result.get()
                asked.pop(number)
            elif time.monotonic() - sent > ANSWER_SECONDS:
                asked[number] = (time.monotonic(), client[number].apply_async(question, *arguments))
        if time.monotonic() > deadline or abandoned():
            break
        time.sleep(0.01 if asked else POLL_SECONDS)
    return answers


def ask_database(client: Any, engines: List[int], database: Dict[str, Any], deadline: float) -> Dict[int, Any]:
    """What engines say of the database; a server that has just been started is asked again.

    :param database: `tls` and `services`, as `see_database` takes them.
    """
    seen: Dict[int, Any] = {}
    asked = engines
    while asked:
        seen.update(ask(client, asked, asked, see_database, deadline, database["tls"], database["services"]))
        asked = [number for number, said in seen.items() if said.pop("again", False)]
        if time.monotonic() > deadline or abandoned():
            break
        time.sleep(POLL_SECONDS if asked else 0)
    return seen


def milliseconds(client: Any, numbers: List[int]) -> Dict[int, float]:
    """Round-trip times of a second, empty task, by engine id."""
    found = {}
    for number in numbers:
        begin = time.perf_counter()
        with contextlib.suppress(Exception):
            client[number].apply_async(int).get(timeout=ANSWER_SECONDS)
            found[number] = round((time.perf_counter() - begin) * 1000, 1)
    return found


def judge(slot: Dict[str, Any], listed: List[int], answer: Any, probed: bool) -> Dict[str, Any]:
    """A wanted slot with its state."""
    if slot["id"] not in listed:
        return {**slot, "state": "missing"}
    if not probed:
        return {**slot, "state": "listed"}
    if answer is None:
        return {**slot, "state": "silent"}
    state = "ok" if answer["lock"] == slot["lock"] else "drifted"
    return {**slot, **answer, "wanted_lock": slot["lock"], "state": state}


def watch_guests(client: Any, ids: Collection[int]) -> List[Dict[str, Any]]:
    """Engines that no slot asks for: whoever has started them may be working with them."""
    named = ("id", "state", "hostname", "pid", "python")
    return [{key: each.get(key) for key in named} for each in (watch(client, ids, ANSWER_SECONDS) if ids else [])]


def hosts_to_ask(slots: List[Dict[str, Any]]) -> List[str]:
    """Hosts of slots that did not answer."""
    return sorted({slot["host"] for slot in slots if slot["state"] in ("missing", "silent")})


def verify(params: Dict[str, Any]) -> Dict[str, Any]:
    """Connect, ask every wanted slot, and judge."""
    import ipyparallel as ipp

    slots: List[Dict[str, Any]] = params["slots"]
    wanted = [slot["id"] for slot in slots]
    deadline = time.monotonic() + params["timeout"]
    client = None
    while client is None:
        try:
            # it prints while it waits, and a module's output is its result
            with contextlib.redirect_stdout(io.StringIO()):
                client = ipp.Client(params["connection_file"], timeout=5)
        except Exception as error:
            if time.monotonic() > deadline or abandoned():
                problem = "%s: %s" % (type(error).__name__, str(error).split("\n")[0])
                found = [{**slot, "state": "missing"} for slot in slots]
                return {"slots": found, "short": len(found), "ask": hosts_to_ask(found), "guests": [], "problem": problem}
            time.sleep(POLL_SECONDS)
    awaited = [slot["id"] for slot in slots if not slot.get("away")]
    answers = ask(client, wanted, awaited, who_am_i, deadline) if params["probe"] else {}
    times = milliseconds(client, sorted(answers))
    seen: Dict[int, Any] = {}
    if params["database"]:
        reachable = sorted(answers)
        until = max(deadline, time.monotonic() + DATABASE_SECONDS)
        seen = ask_database(client, reachable, params["database"], until)
    listed = list(client.ids)
    found = [judge(slot, listed, answers.get(slot["id"]), params["probe"]) for slot in slots]
    for slot in found:
        if slot["id"] in times:
            slot["ms"] = times[slot["id"]]
        if slot["id"] in answers and params["database"]:
            slot["database"] = seen.get(slot["id"], {"error": "no answer in time"})
    short = sum(slot["state"] not in ("ok", "listed") for slot in found)
    guests = watch_guests(client, set(listed) - set(params["slot_ids"]))
    result: Dict[str, Any] = {"slots": found, "short": short, "ask": hosts_to_ask(found), "guests": guests}
    if params["probe"] and wanted and not short:
        result["hello"] = client[wanted].apply_sync(lambda: "Hello, World")
    client.close()
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connection_file": {"type": "path", "required": True},
            "user": {"type": "str", "default": ""},
            "slots": {"type": "list", "elements": "dict", "required": True},
            "slot_ids": {"type": "list", "elements": "int", "required": True},
            "timeout": {"type": "float", "default": 60},
            "probe": {"type": "bool", "default": True},
            "database": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    params = module.params
    owner = tree.Owner(params["user"])
    if params["user"] and owner.uid is None:
        module.fail_json(msg="there is no user %s" % params["user"])
    try:
        apart = params["user"] and not owner.is_me
        result = tree.in_child(owner, lambda: verify(params)) if apart else verify(params)
    except tree.TreeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
