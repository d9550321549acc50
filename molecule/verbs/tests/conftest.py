"""Puts the tests' common code and the package on the path, and tells what hosts say when a test fails first."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests" / "testinfra"), str(ROOT / "src")]

asked = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What fails after a failure is mostly its consequence; what units said is gone with the hosts."""
    report = yield
    if report.failed and asked not in item.session.stash:
        item.session.stash[asked] = True
        import fleet

        report.sections.append(("units of the fleet", "\n".join(fleet.last_words())))
    return report
