#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""See which PostgreSQL servers a host has, and what speaks against having a fleet's database there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_pg_look
short_description: Look at the PostgreSQL servers of a host
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Finds clusters, versions, ports, accounts and databases, and lists what speaks against having a
    fleet's database there. Changes nothing, and does not fail because of what it finds.
options:
  fleet:
    description: Name of the fleet.
    required: true
    type: str
  version:
    description: Major version that the cluster shall have. Empty stands for that of the cluster that is there, or the distribution's.
    type: str
    default: ""
  cluster:
    description: Name of the cluster.
    type: str
    default: main
  port:
    description: Port that the cluster shall have.
    type: int
    default: 5432
  listen:
    description: Addresses that it shall listen on.
    type: list
    elements: str
    default: []
  extensions:
    description: Extensions that its databases shall have.
    type: list
    elements: str
    default: []
  hba:
    description: The pg_hba.conf that it shall get.
    type: str
    default: ""
  replace_hba:
    description: Whether rules of a pg_hba.conf that was made by hand may get lost.
    type: bool
    default: false
attributes:
  check_mode: {support: full, description: Never changes anything.}
  diff_mode: {support: none, description: Never changes anything.}
"""

EXAMPLES = r"""
- name: Look at the servers
  ipyfleet.cluster.fleet_pg_look:
    fleet: lab
  register: look
"""

RETURN = r"""
facts:
  description:
    - What was seen. C(version), C(bin), C(config), C(data), C(drop_in), C(pem), C(ca), C(unit), C(user),
      C(socket) and C(port) are of the cluster that is meant, there or not; C(exists) and C(running) say whether it is,
      C(complete) whether all packages are;
      C(roles), C(superusers), C(databases) and their C(owners) are of the server, if it runs, as is C(md5), the roles that
      have an md5 hash for a password; C(memory_mb) is what it may
      reckon with, C(extensions) those that it cannot have, C(tuned) the settings
      that others have made.
  returned: always
  type: dict
problems:
  description: One line for each thing that speaks against it.
  returned: always
  type: list
  elements: str
"""

import os
import re
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_facts
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_pg_server as server
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_findings import problems
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_state import absent

# what a container may reckon with that has no limit of its own: the machine's memory is not its alone
CONTAINER_MB = 1024
ACCOUNTS = "SELECT rolname AS name, rolsuper AS super FROM pg_roles WHERE rolname !~ '^pg_'"
MEMBERS = (
    "WITH RECURSIVE inside (parent, child) AS (SELECT roleid, member FROM pg_auth_members"
    " UNION SELECT i.parent, m.member FROM inside i JOIN pg_auth_members m ON m.roleid = i.child)"
    " SELECT p.rolname AS name, json_agg(c.rolname) AS members FROM inside i"
    " JOIN pg_roles p ON p.oid = i.parent JOIN pg_roles c ON c.oid = i.child GROUP BY p.rolname"
)
MD5 = "SELECT rolname AS name FROM pg_authid WHERE rolcanlogin AND rolpassword LIKE 'md5%' ORDER BY rolname"
DATABASES = "SELECT datname AS name, pg_get_userbyid(datdba) AS owner FROM pg_database WHERE datallowconn"


def offered(kind: str, pinned: str) -> List[str]:
    """Major versions that apt would install, the distribution's own first; nothing where that cannot be said."""
    if kind != "debian":
        return []
    names = ["postgresql", *(["postgresql-" + pinned] if pinned else [])]
    text = server.run(["apt-cache", "policy", *names])[1]
    found = [each.split(".")[0] for each in re.findall(r"^  Candidate: (\d+(?:\.\d+)?)", text, re.MULTILINE)]
    return list(dict.fromkeys(found))


def chosen(there: List[server.Layout], wanted: Dict[str, Any], majors: List[str], offers: List[str]) -> str:
    """The major version that the cluster has or will have; empty while that is not known."""
    mine = [each for each in there if each.cluster == wanted["cluster"]]
    own = [each.version for each in mine if server.fleet_of(server.read_text(each.drop_in)) == wanted["fleet"]]
    if wanted["version"]:
        return str(wanted["version"])
    if own or len(mine) == 1:
        return own[-1] if own else mine[0].version
    if mine:
        return ""
    return offers[0] if offers else (majors[-1] if majors else "")


def memory_mb() -> int:
    """Memory that a server may reckon with."""
    measured = fleet_facts.memory_mb()
    total = (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) >> 20
    container = any(os.path.exists(path) for path in ("/run/systemd/container", "/run/.containerenv", "/.dockerenv"))
    return CONTAINER_MB if container and measured == total else measured


def holder(port: int, mine: server.Layout) -> str:
    """The program that listens on a port, unless it is the cluster itself; empty when the port is free."""
    process = server.postmaster(mine)
    if fleet_facts.cannot_bind("*", port) is None:
        return ""
    pid = fleet_facts.listeners().get(port)
    if process and (pid == process.pid or process.port == port):
        return ""
    return "%s (pid %d)" % (fleet_facts.command_of(pid), pid) if pid else "by another program"


def look(wanted: Dict[str, Any]) -> Dict[str, Any]:
    """What is there."""
    kind = server.family(server.read_text("/etc/os-release"))
    machine = fleet_facts.machine()
    facts: Dict[str, Any] = {"family": kind, "root": machine["root"], "systemd": machine["systemd"]}
    if kind not in server.FAMILIES:
        return facts
    there, majors = server.clusters(kind), server.majors(kind)
    offers = offered(kind, wanted["version"])
    mine = server.layout(kind, chosen(there, wanted, majors, offers), wanted["cluster"])
    exists = any(each.config == mine.config for each in there)
    facts.update(mine._asdict(), name=mine.name, majors=majors, offered=offers, exists=exists, installed=mine.version in majors)
    # what the modules that bring databases about need on the host
    facts["complete"] = exists and server.run(["/usr/bin/python3", "-c", "import psycopg2"])[0] == 0
    facts["clusters"] = [
        {
            "name": each.name,
            "version": each.version,
            "cluster": each.cluster,
            "port": server.configured_port(each),
            "running": server.postmaster(each) is not None,
        }
        for each in there
    ]
    facts["fleet"] = server.fleet_of(server.read_text(mine.drop_in)) or server.fleet_of(server.read_text(mine.hba))
    facts.update({name: getattr(mine, name) for name in ("drop_in", "pem", "ca")})
    facts["hba_path"], facts["hba"] = mine.hba, server.read_text(mine.hba) if exists else ""
    process = server.postmaster(mine)
    facts["socket"] = process.sockets if process else server.SOCKETS
    facts["port"] = process.port if process else 0
    facts["extensions"] = [name for name in wanted["extensions"] if facts["installed"] and not server.has_extension(mine, name)]
    facts["holder"] = holder(wanted["port"], mine)
    facts["not_here"] = absent(wanted["listen"])
    facts["memory_mb"] = memory_mb()
    facts["tuned"] = server.tuned(mine)
    facts["free_mb"] = fleet_facts.free_mb(mine.data)
    facts["running"] = process is not None
    if facts["running"] and machine["root"]:
        database = server.Database(mine)
        accounts = database.rows(ACCOUNTS)
        facts["roles"] = [each["name"] for each in accounts]
        facts["superusers"] = [each["name"] for each in accounts if each["super"]]
        facts["md5"] = [each["name"] for each in database.rows(MD5)]
        facts["members"] = {each["name"]: each["members"] for each in database.rows(MEMBERS)}
        facts["owners"] = {each["name"]: each["owner"] for each in database.rows(DATABASES)}
        facts["databases"] = list(facts["owners"])
    return facts


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fleet": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "cluster": {"type": "str", "default": "main"},
            "port": {"type": "int", "default": 5432},
            "listen": {"type": "list", "elements": "str", "default": []},
            "extensions": {"type": "list", "elements": "str", "default": []},
            # it may have a password for another server in it
            "hba": {"type": "str", "default": "", "no_log": True},
            "replace_hba": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        facts = look(module.params)
        found = problems(module.params, facts, module.check_mode)
    except server.ServerError as error:
        module.exit_json(changed=False, facts={}, problems=["expected a server that answers, got: %s" % error])
    # as may the one that is there
    facts.pop("hba", None)
    module.exit_json(changed=False, facts=facts, problems=found)


if __name__ == "__main__":
    main()
