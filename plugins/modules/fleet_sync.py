#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Put people's own code where a fleet's Python finds it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_sync
short_description: Put people's own code where a fleet's Python finds it
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Brings a folder of the control node to a host, as one archive and only where it differs, and in place in one moment.
    What is not in the folder any more goes.
  - Nothing is restarted. Its action plugin of the same name takes these options, and gives the module its own.
options:
  fleet:
    description: What C(ipyfleet.cluster.fleet_prepare) returned as C(fleet).
    required: true
    type: dict
  src:
    description: The folder. What is in it can be imported, without the folder's own name.
    required: true
    type: path
  exclude:
    description: Patterns of names, or of paths below the folder, of what is left out beside what is no code.
    type: list
    elements: str
    default: []
attributes:
  check_mode: {support: full, description: Says what it would change.}
  diff_mode: {support: none, description: Code is not shown.}
"""

EXAMPLES = r"""
- name: Bring code to engines
  ipyfleet.cluster.fleet_sync:
    fleet: "{{ prepared.fleet }}"
    src: ./mycode
"""

RETURN = r"""
changes:
  description: What was changed, or would be - each with C(path) and C(what).
  returned: always
  type: list
  elements: dict
digest:
  description: SHA-256 of what is in the folder.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_code as code
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_env import EnvironmentFailure, unpack_plain
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_lock import BusyError, held


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},  # the fleet's on this host
            "digest": {"type": "str", "required": True},
            "archive": {"type": "path"},  # on this host; without it, the module only says whether it needs one
            "fleet": {"type": "str", "required": True},
            "scope": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    root, digest = module.params["root"], module.params["digest"]
    env = os.path.realpath(os.path.join(root, "env"))
    if not os.path.isdir(env):
        module.fail_json(msg="expected the fleet's Python in %s, got none; deploy it first" % root, changes=[])
    needed = code.current(root) != digest
    changes = [{"path": os.path.join(root, code.LINK), "what": "bring code"}] if needed else []
    changes += [{"path": path, "what": "lead Python to the code"} for path in code.ties(root, env)]
    if not changes or module.check_mode or (needed and not module.params["archive"]):
        module.exit_json(changed=bool(changes), changes=changes, needed=needed, digest=digest)
    folder = "/run" if module.params["scope"] == "system" else os.path.expanduser("~")
    try:
        with held(os.path.join(folder, ".ipyfleet-%s.lock" % module.params["fleet"])):
            if needed:
                code.install(root, digest, lambda folder: unpack_plain(module.params["archive"], folder))
            code.tie(root, env)
    except (BusyError, EnvironmentFailure) as error:
        module.fail_json(msg=str(error), changes=[])
    except OSError as error:
        module.fail_json(msg="%s: %s" % (error.filename or root, error.strerror or error), changes=[])
    module.exit_json(changed=True, changes=changes, needed=False, digest=digest)


if __name__ == "__main__":
    main()
