"""Make the links by which a clone is the collection too.

    links.py            add what is missing to collections/, remove what leads nowhere

Ansible finds a collection's content only in a folder that is named like the collection, and the wheel
takes it from there. A link to the clone's top folder would be a loop, which build tools follow, so each
file has a link of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHADOW = ROOT / "collections" / "ansible_collections" / "ipyfleet" / "cluster"
FOLDERS = ("docs", "environment", "meta", "playbooks", "plugins", "roles", "templates")
FILES = ("LICENSE", "README.md", "changelogs/changelog.yaml", "galaxy.yml", "requirements.txt")


def wanted() -> dict[Path, str]:
    """Each link, and what it is to say."""
    names = [path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    kept = [name for name in names if not any(part == "__pycache__" or part.startswith(".") for part in name.parts)]
    return {SHADOW / name: os.path.relpath(ROOT / name, (SHADOW / name).parent) for name in [*kept, *map(Path, FILES)]}


def present() -> dict[Path, str]:
    """Each link that is there, and what it says."""
    return {path: os.readlink(path) for path in SHADOW.rglob("*") if path.is_symlink()}


def main() -> None:
    there, links = present(), wanted()
    for path in sorted(there.keys() - links.keys()):
        path.unlink()
    for path, target in sorted(links.items()):
        if there.get(path) != target:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)


if __name__ == "__main__":
    main()
