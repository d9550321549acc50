"""The command `ipyfleet`: a thin shell over `ipyfleet.Cluster`."""

from __future__ import annotations

from ipyfleet.cli.app import main

__all__ = ["main"]
