"""People's own code: what is taken of a folder, and how a host gets it."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_code
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_env import unpack_plain
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.code import CodeProblem, files_of, pack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of code, and what is about code."""
    top = tmp_path / "mycode"
    for name in ("analysis.py", "lib/__init__.py", "lib/tool.py", "data.csv", ".git/config", "lib/__pycache__/tool.pyc", ".venv/x.py"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(f"NAME = {name!r}\n")
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    return top


def test_what_is_no_code_is_left_out(folder: Path) -> None:
    assert [name for name, _ in files_of(folder)] == ["analysis.py", "data.csv", "run.sh", "lib/__init__.py", "lib/tool.py"]
    assert [name for name, _ in files_of(folder, ["*.csv", "lib/tool.py"])] == ["analysis.py", "run.sh", "lib/__init__.py"]
    assert [name for name, _ in files_of(folder, ["lib/"])] == ["analysis.py", "data.csv", "run.sh"]


def test_a_digest_is_that_of_what_is_in_it(folder: Path) -> None:
    first = pack(folder)
    (folder / "analysis.py").touch()
    (folder / ".git" / "config").write_text("other")
    assert pack(folder) == first
    (folder / "run.sh").chmod(0o644)
    assert pack(folder)[0] != first[0]
    (folder / "run.sh").chmod(0o755)
    (folder / "analysis.py").rename(folder / "analyses.py")
    assert pack(folder)[0] != first[0]


@pytest.mark.parametrize(
    ("target", "expected"),
    [("/etc/passwd", "got a link to /etc/passwd"), ("none.py", "got a link to none.py"), ("lib", "got a link to lib")],
)
def test_a_link_that_leads_elsewhere_is_told(folder: Path, target: str, expected: str) -> None:
    (folder / "link").symlink_to(target)
    with pytest.raises(CodeProblem, match=expected):
        pack(folder)
    assert pack(folder, ["link"])


def test_a_link_to_a_file_of_the_folder_is_that_file(folder: Path) -> None:
    (folder / "other.py").symlink_to("analysis.py")
    assert "other.py" in dict(files_of(folder))


def test_what_is_no_folder_of_code_is_told(tmp_path: Path) -> None:
    with pytest.raises(CodeProblem, match="expected a folder, got nothing there"):
        pack(tmp_path / "none")
    with pytest.raises(CodeProblem, match="expected code in it, got nothing that is not left out"):
        pack(tmp_path)


def brought(root: Path, folder: Path) -> None:
    """Do what the module does."""
    digest, data = pack(folder)
    archive = root / "code.tar"
    archive.write_bytes(data)
    if fleet_code.current(str(root)) != digest:
        fleet_code.install(str(root), digest, lambda there: unpack_plain(str(archive), there))
    fleet_code.tie(str(root), str(root / "env"))
    archive.unlink()
    assert fleet_code.current(str(root)) == digest
    assert fleet_code.ties(str(root), str(root / "env")) == []


def said(root: Path, code: str) -> str:
    done = subprocess.run([str(root / "env" / "bin" / "python"), "-c", code], capture_output=True, text=True, check=False, cwd=root)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_a_host_s_python_imports_it_and_what_is_gone_goes(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    venv.create(root / "env", symlinks=True)
    assert "No module named" in said(root, "import analysis")
    brought(root, folder)
    assert said(root, "import lib.tool, analysis; print(analysis.NAME)") == "analysis.py"
    assert said(root, "import os, sys; print(os.access(sys.path[-1] + '/run.sh', os.X_OK))") == "True"
    # it hides nothing that is Python's own
    (folder / "json.py").write_text("raise SystemExit('hidden')\n")
    (folder / "analysis.py").unlink()
    brought(root, folder)
    assert said(root, "import json; print(json.dumps(1))") == "1"
    assert "No module named 'analysis'" in said(root, "import analysis")
    assert len(list((root / "codes").iterdir())) == 1


def test_a_new_environment_finds_it_too(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "env/lib/python3.11/site-packages").mkdir(parents=True)
    fleet_code.tie(str(root), str(root / "env"))
    assert not list(root.rglob("*.pth"))
    brought(root, folder)
    (root / "new/lib/python3.12/site-packages").mkdir(parents=True)
    fleet_code.tie(str(root), str(root / "new"))
    assert (root / "new/lib/python3.12/site-packages/ipyfleet_code.pth").read_text() == f"{root}/code\n"


def test_one_that_does_not_arrive_leaves_what_was(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    venv.create(root / "env", symlinks=True)
    brought(root, folder)
    before = fleet_code.current(str(root))

    def fails(there: str) -> None:
        (Path(there) / "half.py").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fleet_code.install(str(root), "f" * 64, fails)
    assert fleet_code.current(str(root)) == before
    assert [path.name for path in (root / "codes").iterdir()] == [before]
