"""What can go wrong, as one tree of exceptions.

A host that fails is no exception: it is in the result of the call. These are for calls that give
no result, and for `Result.check_ok`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipyfleet.results import Result


class IpyfleetError(Exception):
    """Everything that ipyfleet raises on purpose; the message is for people, and one line a problem."""


class InstallationError(IpyfleetError):
    """Something that ipyfleet itself needs is not there."""


class InputError(IpyfleetError):
    """A fleet file, an inventory, a variable or an argument is wrong; no host was touched.

    :param problems: one line each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class ClientError(IpyfleetError):
    """The fleet cannot be used from this machine."""


class RunError(IpyfleetError):
    """A run did not reach what it was for.

    :param result: all that is known of it.
    """

    def __init__(self, result: Result) -> None:
        super().__init__("\n".join(str(failure) for failure in result.failures) or f"{result.verb}: {result.status}")
        self.result = result


class Cancelled(RunError):
    """A run was cancelled."""


class CallbackError(RunError):
    """`on_progress` raised an exception, which ended the run; it is the cause of this one."""
