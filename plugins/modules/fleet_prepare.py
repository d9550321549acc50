#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which is all there is to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_prepare
short_description: Read all that a fleet's inventory says, judge what was seen, keep the fleet's keys
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Runs on the control node, once for all hosts, and is of the roles' own use.
  - Everything that speaks against a deployment is reported together, one line each, before anything
    is changed on any host.
options:
  stage:
    description:
      - C(wanted) reads the inventory's variables and returns what is wanted of each host.
      - C(checked) judges what C(ipyfleet.cluster.fleet_host) saw on all hosts.
      - C(located) returns the fleet as its hosts were judged in this run, else with what is remembered of them.
      - C(claim) has the fleet changed by this run alone, until C(release) or the end of the run.
      - C(keep) claims the fleet, makes keys if there are none, and remembers which engine id belongs to which slot.
      - C(forget) removes the keys and what is remembered.
      - C(rotate) makes new keys instead of those that are there, after C(checked), which has judged all hosts. One that was cut
        short is gone on with. C(rotated) forgets the old ones, if the run has reached every host.
    required: true
    type: str
    choices: [wanted, checked, located, claim, keep, release, forget, rotate, rotated]
  fleet:
    description: What the stage before returned as C(fleet). All stages but C(wanted) need it.
    type: dict
  services:
    description:
      - What the run is about, where that is not all of the fleet's services. For C(wanted), which keeps it in C(fleet).
      - Each is C(controller), C(jupyterlab), an engine's slot such as C(node1/0), or its id.
    type: list
    elements: str
  what:
    description: What C(rotate) makes anew, of V(hub-key), V(certificates), V(passwords) and V(all); several with commas, or as a list.
    type: raw
attributes:
  check_mode:
    support: full
    description: Nothing is kept or removed.
"""

EXAMPLES = r"""
- name: Read the whole inventory
  ipyfleet.cluster.fleet_prepare:
    stage: wanted
  register: prepared
  run_once: true
"""

RETURN = r"""
fleet:
  description: What is wanted, for the stages that follow. Returned by C(wanted), C(checked) and C(located).
  returned: success
  type: dict
changing:
  description: Hosts on which something is to be changed. Returned by C(checked).
  returned: success
  type: list
  elements: str
"""
