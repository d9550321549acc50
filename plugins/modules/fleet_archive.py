#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which is all there is to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_archive
short_description: Build the archives of the Python environments that hosts are about to need
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Runs on the control node, once for all hosts, and is of the roles' own use.
  - An archive is built once for hosts of the same Python version, architecture and C library, and
    kept in the user's cache.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
  hosts:
    description: Hosts on which something is to be changed.
    required: true
    type: list
    elements: str
attributes:
  check_mode:
    support: full
    description: Nothing is built.
"""

EXAMPLES = r"""
- name: Build the Python environment
  ipyfleet.cluster.fleet_archive:
    fleet: "{{ prepared.fleet }}"
    hosts: "{{ prepared.changing }}"
  register: archives
  run_once: true
"""

RETURN = r"""
archives:
  description: By host, path and digest of the archive, for those whose environment is to change.
  returned: success
  type: dict
"""
