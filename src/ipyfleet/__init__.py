"""ipyfleet: a list of Linux hosts becomes a running, verified ipyparallel cluster."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipyfleet.cluster import Cluster
    from ipyfleet.connect import Connection
    from ipyfleet.errors import CallbackError, Cancelled, ClientError, InputError, InstallationError, IpyfleetError, RunError
    from ipyfleet.events import Progress
    from ipyfleet.results import Result

__all__ = [
    "CallbackError",
    "Cancelled",
    "ClientError",
    "Cluster",
    "Connection",
    "InputError",
    "InstallationError",
    "IpyfleetError",
    "Progress",
    "Result",
    "RunError",
    "__version__",
]

__version__: str

# each is loaded when it is first used, so that the import itself costs nothing
_PLACES = {"Cluster": "cluster", "Connection": "connect", "Progress": "events", "Result": "results"}


def __getattr__(name: str) -> object:
    """What is loaded when it is first used."""
    if name == "__version__":
        from ipyfleet.content import version

        return version()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"ipyfleet.{_PLACES.get(name, 'errors')}"), name)
