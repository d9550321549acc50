#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin of the same name, which is all there is to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_certificate
short_description: Have a certificate of the fleet's own authority
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Runs on the control node, and writes to the folder of the fleet's keys alone. Authority and
    certificates are made when there are none, and renewed when a run finds them due.
  - The result has a private key in it and is never shown, whatever the task says of C(no_log);
    the message of a failure is.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
  name:
    description: Under which the certificate is kept, such as V(server db).
    required: true
    type: str
  kind:
    description: What the certificate is good for.
    type: str
    choices: [server, client]
    default: server
  dns:
    description:
      - Names of the server. IP addresses among them are taken as such.
      - The first one is the subject's name too, if O(common_name) is empty.
    type: list
    elements: str
    default: []
  ips:
    description: IP addresses of the server.
    type: list
    elements: str
    default: []
  common_name:
    description: The subject's name; of a client certificate, the account that it is for.
    type: str
    default: ""
  days:
    description: How long a new certificate is good for, in days, at most 1825. A change waits for the next renewal.
    type: int
    default: 398
  renew_before_days:
    description: How long before its end a certificate is replaced, in days.
    type: int
    default: 60
attributes:
  check_mode:
    support: full
    description: Nothing is kept. What would be issued is made and thrown away.
"""

EXAMPLES = r"""
- name: Have a certificate for the database
  ipyfleet.cluster.fleet_certificate:
    fleet: "{{ prepared.fleet }}"
    name: server db
    dns: [db, db.example.org]
    ips: [10.0.0.7]
  register: server
"""

RETURN = r"""
certificate:
  description: The certificate as PEM, followed by what is between it and the authority's root.
  returned: success
  type: str
key:
  description: The certificate's private key as PEM. Secret.
  returned: success
  type: str
ca:
  description: The authority's root certificate as PEM, with which clients verify.
  returned: success
  type: str
serial:
  description: The certificate's serial number in hexadecimal, as openssl shows it.
  returned: success
  type: str
fingerprint:
  description: SHA-256 of the certificate in DER, in hexadecimal.
  returned: success
  type: str
not_after:
  description: When the certificate ends, in ISO 8601.
  returned: success
  type: str
not_after_before:
  description: When the one ends that was kept before this task, in ISO 8601; empty when there was none.
  returned: success
  type: str
reason:
  description: Why the certificate was issued anew; empty when it was not.
  returned: success
  type: str
"""
