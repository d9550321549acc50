"""What an installed ipyfleet has: launchers that ipyparallel finds, and modules that are programs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def register(folder: Path) -> None:
    """Write what an installation says of launchers into a folder that is, or will be, on the path."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = folder / "ipyfleet-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ipyfleet\nVersion: 0\n")
    sections = (f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in found.items()) for group, found in points.items())
    (info / "entry_points.txt").write_text("".join(sections))


def typed(*words: str) -> subprocess.CompletedProcess[str]:
    """What somebody gets who types the name of a module, and these words."""
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False, timeout=300)
