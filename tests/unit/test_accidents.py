"""Cases of the scenarios are well-formed, and the documentation says what to do about each."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest
import yaml
from accidents import Case, all_cases
from conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
CASES = all_cases()
# what is said is about the run, or that all went well
TOLD = [case for _, case in CASES if case.exits > 0 and case.exits != 99]
SAID = [case.says for case in TOLD] + [case.meanwhile.again for _, case in CASES if case.meanwhile and case.meanwhile.again]
EDITS = [edit["says"] for edit in yaml.safe_load((ROOT / "molecule" / "postgresql" / "cases" / "edits.yml").read_text())]
# what tests look for that are about the database, JupyterLab, scope user, ways around and live inventories
OTHERS = [
    *ROOT.glob("molecule/postgresql/tests/test_*.py"),
    *ROOT.glob("molecule/user/tests/test_*.py"),
    *(
        ROOT / "tests" / "unit" / f"test_{name}.py"
        for name in ("accounts", "boot", "cell", "cli", "data_dir", "engines_inventory", "findings", "jumps", "needed", "pg_server")
    ),
]
WORDS = [node.value for path in OTHERS for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]


def explains(row: str, says: str) -> bool:
    return re.search(re.escape(row).replace(re.escape("..."), ".*"), says) is not None


def test_there_are_many_and_each_has_a_name() -> None:
    assert len(CASES) >= 60
    assert [name for name, count in Counter((group, case.id) for group, case in CASES).items() if count > 1] == []


@pytest.mark.parametrize("case", TOLD, ids=[case.id for case in TOLD])
def test_what_is_said_is_explained(case: Case) -> None:
    assert [row for row in ROWS if explains(row, case.says)], case.says


@pytest.mark.parametrize("says", EDITS)
def test_what_is_said_of_an_edit_is_explained(says: str) -> None:
    assert [row for row in ROWS if explains(row, says)], says


def test_what_is_shown_of_a_refused_edit_is_what_is_said() -> None:
    shown = re.findall(r"^db: .*", (ROOT / "docs" / "database.md").read_text(), re.MULTILINE)
    known = [says.replace("@fleet@", "lab").replace("@major@", "15") for says in EDITS]
    assert len(shown) == 3
    assert [line for line in shown if not any(says in line for says in known)] == []


@pytest.mark.parametrize("row", ROWS)
def test_what_is_explained_is_provoked(row: str) -> None:
    assert [says for says in (*SAID, *EDITS, *map(str, WORDS)) if explains(row, says)], row


def test_every_row_of_the_page_is_read() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| you see")]
    assert len(lines) == len(ROWS)
