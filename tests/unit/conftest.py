"""Tests that need no network and take seconds; Ansible's objects in them are the real ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[2]
# as a clone's ansible.cfg does, so that FQCN imports find the clone
init_plugin_loader([str(ROOT / "collections")])
FOLDERS = (
    "src",
    "roles/ipp_node/files",
    "roles/ipp_controller/files",
    "roles/jupyterlab/files",
    "roles/postgresql/files",
    "tools",
    "tests/testinfra",
    "tests/unit",
)
sys.path += [str(ROOT / folder) for folder in FOLDERS]

from stand_in import own_folders, stand_in  # noqa: E402, F401  (fixtures)


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


def rendered(template: str, **variables: Any) -> str:
    """What a template, `ROLE/NAME.j2`, makes of these variables."""
    known = {"ansible_managed": "Managed", **variables}
    templar = Templar(DataLoader()).copy_with_new_env(searchpath=[str(ROOT / "templates")], available_variables=known)
    text = (ROOT / "templates" / template).read_text()
    return str(templar.template(trust_as_template(text), escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": False}))
