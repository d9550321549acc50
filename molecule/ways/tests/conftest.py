"""Puts the tests' common code and the package on the path."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests" / "testinfra"), str(ROOT / "src")]
