#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Give engines no new work, and wait until they have nothing to do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_drain
short_description: Give engine slots no new work, and wait until they have nothing to do
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Asks the controller to send these engines no more load-balanced tasks, and waits until those and the messages of direct
    views that they have are done. Other engines are not disturbed.
  - When that takes too long, the engines get work again, and O(timeout) is named with what each of them still does.
  - Engines that are idle stay closed for five minutes, in which they are to be stopped.
  - Runs on the controller's host by the fleet's own Python, which its action plugin of the same name knows to find; that
    plugin takes these options, and gives the module its own.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    type: dict
    required: true
  timeout:
    description: Seconds to wait.
    type: float
    required: true
  state:
    description: V(drained) closes the engines and waits. V(open) gives them work again.
    type: str
    choices: [drained, open]
    default: drained
  surplus:
    description:
      - Whether the slots are meant that hosts had when they were last deployed and shall have no more, instead of those of O(fleet).
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Says what would be waited for.}
  diff_mode: {support: none, description: There is nothing to show.}
"""

EXAMPLES = r"""
- name: Wait until the engines of this run's hosts have nothing to do
  ipyfleet.cluster.fleet_drain:
    fleet: "{{ prepared.fleet }}"
    timeout: 300
"""

RETURN = r"""
slots:
  description: The slots, each with C(state), C(queue) and C(tasks), and C(reason) when it is still busy.
  returned: always
  type: list
  elements: dict
services:
  description: Their units by host, as C(ipyfleet.cluster.fleet_host) takes them.
  returned: always
  type: dict
short:
  description: Number of slots that are still busy.
  returned: always
  type: int
"""

import contextlib
import io
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_closing import Draining, close

CONNECT_SECONDS = 10


def drain(params: Dict[str, Any], dry: bool) -> Dict[str, Any]:
    """Connect, and carry out what is asked for."""
    import ipyparallel as ipp

    try:
        # it prints while it waits, and a module's output is its result
        with contextlib.redirect_stdout(io.StringIO()):
            client = ipp.Client(params["connection_file"], timeout=CONNECT_SECONDS)
    except Exception as error:
        return {"problem": "%s: %s" % (type(error).__name__, str(error).split("\n")[0])}
    try:
        if params["state"] == "open":
            close(client, params["ids"], 0)
            return {"engines": []}
        draining = Draining(client, params["ids"])
        engines = draining.look() if dry else draining.wait(params["timeout"])
        return {"engines": engines, "closed": draining.closed}
    finally:
        client.close()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connection_file": {"type": "path", "required": True},
            "user": {"type": "str", "default": ""},
            "ids": {"type": "list", "elements": "int", "required": True},
            "timeout": {"type": "float", "required": True},
            "state": {"type": "str", "choices": ["drained", "open"], "default": "drained"},
        },
        supports_check_mode=True,
    )
    params = module.params
    owner = tree.Owner(params["user"])
    if params["user"] and owner.uid is None:
        module.fail_json(msg="there is no user %s" % params["user"])
    try:
        apart = params["user"] and not owner.is_me
        dry = module.check_mode
        result = tree.in_child(owner, lambda: drain(params, dry)) if apart else drain(params, dry)
    except tree.TreeError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
