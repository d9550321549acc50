#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which is all there is to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_bundle
short_description: Write an archive for a bug report, without secrets
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Runs on the control node, once for all hosts, and is of the playbook bundle's own use.
  - Takes out what is known to be secret, in each form that programs give it, and what only looks so; an archive in which
    something secret would be left is not written.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
  dest:
    description: The archive, for nobody else to read. The default is named after the fleet and the time, in the current folder.
    type: path
  verified:
    description: What C(ipyfleet.cluster.fleet_verify) returned, or how it failed.
    type: dict
  checked:
    description: What the stage C(checked) of C(ipyfleet.cluster.fleet_prepare) returned, or how it failed.
    type: dict
attributes:
  check_mode: {support: full, description: Nothing is written.}
"""

EXAMPLES = r"""
- name: Write the archive
  ipyfleet.cluster.fleet_bundle:
    fleet: "{{ prepared.fleet }}"
    dest: report.tar.gz
  run_once: true
"""

RETURN = r"""
path:
  description: The archive.
  returned: success
  type: str
files:
  description: Names of the files in it.
  returned: success
  type: list
  elements: str
"""
