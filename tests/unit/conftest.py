"""Tests that need no network and take seconds; Ansible's objects in them are the real ones."""

from __future__ import annotations

import sys
from pathlib import Path

from ansible.plugins.loader import init_plugin_loader

ROOT = Path(__file__).resolve().parents[2]
# as a clone's ansible.cfg does, so that FQCN imports find the clone
init_plugin_loader([str(ROOT / "collections")])
FOLDERS = ("src", "roles/ipp_node/files", "tools", "tests/testinfra", "tests/unit")
sys.path += [str(ROOT / folder) for folder in FOLDERS]
