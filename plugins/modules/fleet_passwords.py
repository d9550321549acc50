#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which is all there is to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_passwords
short_description: Have a password for each account of the fleet's database
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Runs on the control node, and writes to the folder of the fleet's keys alone. A password that
    nobody has set is made once, and stays.
  - The result is never shown, whatever the task says of C(no_log). A task with O(given) says
    C(no_log=true) all the same, because Ansible can be set to show what tasks are given.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
  given:
    description: Passwords that are set already, by account. They win, and are not kept.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Nothing is kept. Passwords that would be made are thrown away.
"""

EXAMPLES = r"""
- name: Have a password for each account
  ipyfleet.cluster.fleet_passwords:
    fleet: "{{ prepared.fleet }}"
    given: "{{ passwords }}"
  no_log: true
  register: accounts
"""

RETURN = r"""
passwords:
  description: Passwords by account, of all that C(fleet) names. Secret.
  returned: success
  type: dict
"""
