#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which is all there is to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Say how a fleet does, to people as text and to programs as data
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Runs on the control node, and is the last word of a playbook. It never fails; what to make of a
    short slot is up to the task after it.
options:
  kind:
    description:
      - V(inventory) is about what was understood, V(client) also about the way in from outside, V(verify)
        and V(status) about engine slots, V(doctor) about causes, V(logs) about what services said, V(backups) and V(restored)
        about the database.
    required: true
    type: str
    choices: [inventory, client, verify, status, doctor, logs, backups, restored]
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
  result:
    description:
      - What C(ipyfleet.cluster.fleet_verify) returned; V(verify), V(status) and V(doctor) need it.
      - Of V(backups) and V(restored), what the program on the database's host printed.
    type: dict
  cell:
    description: What C(ipyfleet.cluster.fleet_cell) returned; V(verify), V(status) and V(doctor) take it, of a fleet with JupyterLab.
    type: dict
  before:
    description: Findings of an earlier V(doctor); those that are no more are told as fixed.
    type: list
    elements: dict
attributes:
  check_mode: {support: full, description: Changes nothing in either mode.}
"""

EXAMPLES = r"""
- name: Compare what is wanted with what is there
  ipyfleet.cluster.fleet_report:
    kind: verify
    fleet: "{{ prepared.fleet }}"
    result: "{{ verified }}"
  register: said
"""

RETURN = r"""
msg:
  description: The report as text.
  returned: always
  type: str
report:
  description: The report as data - the fleet, and by kind its C(hosts), C(way), C(slots), C(findings), C(logs), C(backups) or C(restored).
  returned: always
  type: dict
"""
