#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rehearse a configuration of PostgreSQL, and say all that is wrong with it, before the server that runs sees any of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_pg_rehearse
short_description: Rehearse a configuration of PostgreSQL on the host of the server
version_added: 0.2.0
author: ipyfleet contributors
description:
  - Reads the candidate as the server would, starts a throw-away instance with it on a socket of its own, asks that
    for what it made of settings and rules, and judges what PostgreSQL takes without a word - rules that are never
    reached, that lock the server's own user out, that let a superuser in from other hosts, or that are insecure.
  - The server that is there is neither asked nor touched. All happens as its user, in a folder that is removed
    afterwards, however the run ends.
  - Runs as root, or as the server's user.
options:
  bin:
    description: Folder of the server's programs.
    required: true
    type: path
  config:
    description: Folder of the server's configuration.
    required: true
    type: path
  data:
    description: Folder of the server's data.
    required: true
    type: path
  user:
    description: The operating system's user who runs the server, and the superuser of that name.
    type: str
    default: postgres
  drop_in:
    description: Path of the file that O(conf) is for, below O(config).
    type: str
    default: conf.d/50-ipyfleet.conf
  conf:
    description: Settings, as the file will have them.
    required: true
    type: str
  hba:
    description: Content of C(pg_hba.conf).
    required: true
    type: str
  settings:
    description: The variable C(postgresql_settings), to say which setting is meant, and to refuse some.
    type: dict
    default: {}
  listen:
    description: Addresses that the server is to listen on, such as V(*), V(localhost), or addresses of the host.
    type: list
    elements: str
    default: []
  pem:
    description: The server's key and certificates. Those that are on the host are tried when it is empty.
    type: str
    default: ""
  ca:
    description: Certificates by which those of clients are checked. Those that are on the host are tried when it is empty.
    type: str
    default: ""
  pem_path:
    description: Where O(pem) will be on the host. Settings that name another file are tried with that file.
    type: path
    default: ""
  ca_path:
    description: Where O(ca) will be on the host.
    type: path
    default: ""
  databases:
    description: Databases that are there or will be made.
    type: list
    elements: str
    default: []
  roles:
    description: Users and groups that are there or will be made.
    type: list
    elements: str
    default: []
  superusers:
    description: Superusers that are there or will be made, besides O(user).
    type: list
    elements: str
    default: []
  members:
    description: Members of groups, direct or not, by the group's name.
    type: dict
    default: {}
  allow:
    description: Kinds of insecure rules that are asked for.
    type: list
    elements: str
    choices: [trust, md5, password, ident, world, plaintext]
    default: []
  collect:
    description: Whether to succeed with RV(problems), for somebody who judges several hosts.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Does the same.}
  diff_mode: {support: none, description: Nothing is changed.}
"""

EXAMPLES = r"""
- name: Rehearse the configuration
  ipyfleet.cluster.fleet_pg_rehearse:
    bin: /usr/lib/postgresql/17/bin
    config: /etc/postgresql/17/main
    data: /var/lib/postgresql/17/main
    conf: "{{ lookup('ansible.builtin.template', 'postgresql.conf.j2') }}"
    hba: "{{ lookup('ansible.builtin.template', 'pg_hba.conf.j2') }}"
    listen: ['*']
    databases: [lab]
    roles: [lab]
"""

RETURN = r"""
problems:
  description: One line for each thing that is wrong.
  returned: always
  type: list
  elements: str
notices:
  description: One line for each thing that is odd, but does no harm.
  returned: success
  type: list
  elements: str
version:
  description: The server's major version.
  returned: success
  type: int
seconds:
  description: How long the rehearsal took.
  returned: success
  type: float
"""

import concurrent.futures
import os
import re
import time
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_tree as tree
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_facts import resolve
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_hba import parse
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_lint import Server
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_rehearsal import judge, refused
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_state import absent
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_trial import Candidate, TrialError, rehearse

PARALLEL_NAMES = 8


def major_version(module: AnsibleModule, folder: str) -> int:
    """Major version of the programs in a folder."""
    _, out, _ = module.run_command([os.path.join(folder, "postgres"), "--version"])
    match = re.search(r"\(PostgreSQL\) (\d+)", out)
    if not match:
        module.fail_json(msg="%s: expected the programs of a PostgreSQL server, got none" % folder, problems=[])
    return int(match.group(1)) if match else 0


def addresses_of(names: List[str]) -> Dict[str, List[str]]:
    """Addresses of host names."""
    with concurrent.futures.ThreadPoolExecutor(PARALLEL_NAMES) as pool:
        found = {name: pool.submit(resolve, name) for name in names}
    return {name: list(each.result()["addresses"]) for name, each in found.items()}


def problems_of(params: Dict[str, Any], version: int) -> Dict[str, Any]:
    """Rehearse, and judge what was seen.

    :raises TrialError: when there could be no rehearsal.
    """
    allowed = frozenset(params["allow"])
    settings, addresses = refused(params["settings"], allowed), absent(params["listen"])
    if settings:
        # what the server would say of these leads astray
        return {"problems": [*settings, *addresses], "notices": []}
    owner = tree.Owner(params["user"])
    if owner.uid is None:
        raise TrialError("there is no user %s" % params["user"])
    if os.geteuid() not in (0, owner.uid):
        raise TrialError("expected to be root or %s, got %s; set ansible_become" % (params["user"], tree.me()))
    candidate = Candidate(version=version, **{each: params[each] for each in Candidate._fields if each != "version"})
    seen = rehearse_as(owner, candidate)
    server = Server(
        version=version,
        user=params["user"],
        databases=frozenset(params["databases"]),
        roles=frozenset([*params["roles"], *params["superusers"], params["user"]]),
        superusers=frozenset([*params["superusers"], params["user"]]),
        members={name: frozenset(members) for name, members in params["members"].items()},
        allowed=allowed,
    )
    rules = parse(candidate.hba, seen["named"].get).rules
    known = addresses_of(sorted({rule.host_name for rule in rules} - {""}))
    findings = judge(candidate, params["settings"], seen, server, lambda name: known[name])
    return {"problems": [*addresses, *findings.problems], "notices": findings.notices}


def rehearse_as(owner: tree.Owner, candidate: Candidate) -> Dict[str, Any]:
    """Rehearse in the name of a user."""

    def work() -> Dict[str, Any]:
        try:
            return rehearse(candidate)
        except TrialError as error:
            raise tree.TreeError(str(error)) from error

    return work() if owner.is_me else dict(tree.in_child(owner, work))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "bin": {"type": "path", "required": True},
            "config": {"type": "path", "required": True},
            "data": {"type": "path", "required": True},
            "user": {"type": "str", "default": "postgres"},
            "drop_in": {"type": "str", "default": "conf.d/50-ipyfleet.conf"},
            # either may have a password for another server in it
            "conf": {"type": "str", "required": True, "no_log": True},
            "hba": {"type": "str", "required": True, "no_log": True},
            "settings": {"type": "dict", "default": {}},
            "listen": {"type": "list", "elements": "str", "default": []},
            "pem": {"type": "str", "default": "", "no_log": True},
            "pem_path": {"type": "path", "default": ""},
            "ca_path": {"type": "path", "default": ""},
            "ca": {"type": "str", "default": ""},
            "databases": {"type": "list", "elements": "str", "default": []},
            "roles": {"type": "list", "elements": "str", "default": []},
            "superusers": {"type": "list", "elements": "str", "default": []},
            "members": {"type": "dict", "default": {}},
            "allow": {
                "type": "list",
                "elements": "str",
                "default": [],
                "choices": ["trust", "md5", "password", "ident", "world", "plaintext"],
            },
            "collect": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    begin = time.monotonic()
    version = major_version(module, module.params["bin"])
    try:
        found = problems_of(module.params, version)
    except (TrialError, tree.TreeError) as error:
        module.fail_json(msg=str(error), problems=[])
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or "rehearsal", error.strerror or error), problems=[])
    if found["problems"] and not module.params["collect"]:
        module.fail_json(msg="\n".join(found["problems"]), problems=found["problems"])
    module.exit_json(changed=False, version=version, seconds=round(time.monotonic() - begin, 2), **found)


if __name__ == "__main__":
    main()
