# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The collection that the database needs on the control node, and only the database."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

COLLECTION = "community.postgresql"
OLDEST, TOO_NEW = (4, 1), (5, 0)
HOW = "ansible-galaxy collection install -r requirements.yml, or pip install 'ipyfleet[postgresql]'"


def problem() -> str:
    """Why databases cannot be brought about from this machine; empty when they can."""
    wanted = f"expected the collection {COLLECTION} {OLDEST[0]}.{OLDEST[1]} or newer, below {TOO_NEW[0]}, on this machine"
    folder = installed()
    if folder is None:
        return f"{wanted}, got none; {HOW}"
    version = version_of(folder)
    # a copy of its sources says nothing of its version
    if version and not OLDEST <= tuple(map(int, version.split(".")[:2])) < TOO_NEW:
        return f"{wanted}, got {version} in {folder}; {HOW}"
    return ""


def installed() -> Path | None:
    """Where Ansible finds the collection; None when it does not."""
    try:
        spec = importlib.util.find_spec(f"ansible_collections.{COLLECTION}")
    except ImportError:
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def version_of(folder: Path) -> str:
    """The version of an installed collection; empty when it does not say."""
    try:
        version = str(json.loads((folder / "MANIFEST.json").read_text())["collection_info"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return version if re.match(r"\d+\.\d+", version) else ""
