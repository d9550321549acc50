"""Figures that tests of a scenario come to; its conftest.py prints them."""

from __future__ import annotations

# what happened, and the seconds until all was well again
FIGURES: list[tuple[str, float]] = []
