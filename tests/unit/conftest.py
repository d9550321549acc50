"""Tests that need no network and take seconds; Ansible's objects in them are the real ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parents[2]
# as a clone's ansible.cfg does, so that FQCN imports find the clone
init_plugin_loader([str(ROOT / "collections")])
FOLDERS = ("src", "roles/ipp_node/files", "roles/postgresql/files", "tools", "tests/testinfra", "tests/unit")
sys.path += [str(ROOT / folder) for folder in FOLDERS]


def interruptible(command: list[str], folder: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    """Start a command that hears Ctrl-C; what runs in the background of a shell ignores it, as would its children."""
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
