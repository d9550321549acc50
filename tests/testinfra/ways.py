"""What tests of hosts behind a jump host have in common."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from fleet import EPHEMERAL, INVENTORY, ROOT, environ, shell

# where sshd of those behind the jump host listens
PORTS = {"head": 22, "node1": 2222, "node2": 22, "far": 22}
PASSWORD = "sesame"  # as in the scenario's host_vars


def addresses(name: str) -> dict[str, str]:
    """A host's addresses by network."""
    return dict(json.loads((INVENTORY / "00_hosts.yml").read_text())["all"]["hosts"][name]["lab_addresses"])


def is_open_here(address: str, port: int) -> bool:
    """Whether this machine connects straight to a port."""
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def is_open_from(name: str, address: str, port: int) -> bool:
    """Whether a host connects to a port."""
    return shell(name, f"timeout 2 bash -c ': </dev/tcp/{address}/{port}' 2>/dev/null && echo open || echo closed") == "open"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """What somebody gets who types `ipyfleet` and these words."""
    more = environ(PYTHONPATH=str(ROOT / "src"))
    return subprocess.run([sys.executable, "-m", "ipyfleet", *words], capture_output=True, text=True, check=False, env=more, timeout=180)


def copy_of_inventory(folder: Path) -> Path:
    """The inventory as somebody has it who does not keep sudo's password."""
    found = folder / "inventory"
    found.mkdir()
    for name in ("00_hosts.yml", "lab.fleet.yml", "spare.yml", ".ipyfleet"):
        (found / name).symlink_to((INVENTORY / name).resolve())
    (folder / "ssh_config").symlink_to(EPHEMERAL / "ssh_config")
    return found
