"""A throw-away fleet on this machine: hosts with systemd and sshd, in containers of podman or docker.

Nothing here but a deployment needs more than Python's standard library.
"""

from __future__ import annotations

from ipyfleet.lab.engine import LabError
from ipyfleet.lab.fleet import Lab, LabStatus

__all__ = ["Lab", "LabError", "LabStatus"]
