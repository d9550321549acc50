#!/usr/bin/python
# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run a shell command that ends when its run is cancelled."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_exec
short_description: Run a shell command that ends when its run is cancelled
version_added: 0.1.0
author: ipyfleet contributors
description:
  - Like C(ansible.builtin.shell), but what it started is ended when nobody waits for it any more.
options:
  command:
    description: What the shell is to run.
    required: true
    type: str
attributes:
  check_mode:
    support: none
    description: Nothing is run in check mode.
  diff_mode:
    support: none
    description: What a command changes is not known.
"""

EXAMPLES = r"""
- name: See how long hosts are up
  ipyfleet.cluster.fleet_exec:
    command: uptime
"""

RETURN = r"""
rc:
  description: The command's exit code.
  returned: when it was run
  type: int
stdout:
  description: What it printed.
  returned: when it was run
  type: str
stderr:
  description: What it printed to standard error.
  returned: when it was run
  type: str
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_abandoned import abandoned

POLL_SECONDS = 0.05
GRACE_SECONDS = 3.0


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that is in its group."""
    os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    # unless all of it has ended
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    module = AnsibleModule(argument_spec={"command": {"type": "str", "required": True}}, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(skipped=True, msg="not run in check mode")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = ["/bin/sh", "-c", module.params["command"]]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        while process.poll() is None:
            if abandoned():
                end(process)
                return
            time.sleep(POLL_SECONDS)
        printed = {}
        for name, stream in (("stdout", out), ("stderr", err)):
            stream.seek(0)
            printed[name] = stream.read().decode("utf-8", "replace").rstrip("\n")
    result = {"changed": True, "rc": process.returncode, **printed}
    if process.returncode:
        module.fail_json(msg="exit code %d" % process.returncode, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
