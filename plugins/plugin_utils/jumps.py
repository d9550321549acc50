# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a host behind a jump host was not reached.

ssh throws away what its jump host says when it keeps its connections for later, as Ansible has it do;
without that, it tells.
"""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ssh_forward import running

# how ssh calls a host that it reaches through another one
BEHIND = "UNKNOWN port 65535"
FIRST = {"ControlMaster": "no", "ControlPath": "none", "ControlPersist": "no", "BatchMode": "yes"}
ALLOWANCE_SECONDS = 5


def reason(connection: Any, message: str) -> str:
    """What ssh says of a host that was not reached, and of its jump host where that is why.

    :param connection: Ansible's connection to it.
    :param message: what Ansible says; the answer where there is no more to say.
    """
    # a jump host that never answers would do so again
    if getattr(connection, "transport", "") != "ssh" or BEHIND not in message or "timed out" in message:
        return message
    seconds = int(connection.get_option("timeout"))
    try:
        with running(command(connection, seconds)) as (process, said):
            process.wait(seconds + ALLOWANCE_SECONDS)
            said.seek(0)
            told = said.read()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return message
    return told if BEHIND in told else message


def command(connection: Any, seconds: int) -> list[str]:
    """The ssh command of a connection, but for connections that are kept."""
    settings = FIRST | {"ConnectTimeout": str(seconds)}
    words = [
        str(connection.get_option("ssh_executable")),
        *(word for name, value in settings.items() for word in ("-o", f"{name}={value}")),
    ]
    for name in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
        words += shlex.split(str(connection.get_option(name) or ""))
    for option, name in (("-p", "port"), ("-l", "remote_user"), ("-i", "private_key_file")):
        value = connection.get_option(name)
        words += [option, str(value)] if value else []
    return [*words, str(connection.get_option("host")), "true"]
