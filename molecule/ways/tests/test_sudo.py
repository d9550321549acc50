"""A host on which sudo asks for a password, and every way to give it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pexpect
import psutil
import pytest
from fleet import INVENTORY, ROOT, environ, shell
from ways import PASSWORD, command, copy_of_inventory

from ipyfleet import Cluster

# with it, every engine answers; without it, nobody becomes root there
ROOTLESS = "node2: expected sudo without a password, got asked for one; give one with --ask-become-pass, or allow NOPASSWD"


@pytest.fixture
def without(tmp_path: Path) -> Path:
    """The inventory, without the password."""
    return copy_of_inventory(tmp_path)


def test_without_it_nothing_is_changed_and_the_host_is_named(without: Path) -> None:
    said = command("validate", "-i", str(without))
    assert said.returncode == 1
    assert ROOTLESS in " ".join(said.stdout.split())
    wrong = Cluster(without, become_password="no").validate()
    assert [str(failure) for failure in wrong.failures if "expected sudo's password, got another one" in str(failure)] != []


def test_from_python(without: Path) -> None:
    result = Cluster(without, become_password=PASSWORD).up()
    assert result.ok, result.failures
    assert not result.changed


def test_typed_at_the_prompt_it_is_on_no_command_line_and_not_shown(without: Path) -> None:
    more = environ(PYTHONPATH=str(ROOT / "src"))
    words = ["-m", "ipyfleet", "exec", "-K", "-b", "-i", str(without), "-l", "node2", "-vvv", "--", "id -un"]
    process = pexpect.spawn(sys.executable, words, env=more, encoding="utf-8", timeout=120, dimensions=(50, 200))
    process.expect("sudo password: ")
    process.sendline(PASSWORD)
    seen = set()
    while process.isalive():
        seen |= {word for each in psutil.process_iter(["cmdline"]) for word in each.info["cmdline"] or () if PASSWORD in word}
        if process.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=0.1) == 0:
            break
    process.close()
    said = process.before or ""
    assert process.exitstatus == 0, said
    assert "node2: root" in said
    assert PASSWORD not in said
    assert seen == set()


def test_in_a_vault(without: Path, tmp_path: Path) -> None:
    (tmp_path / "vault").write_text("open\n")
    (without / "host_vars").mkdir()
    kept = without / "host_vars" / "node2.yml"
    kept.write_text((INVENTORY / "host_vars" / "node2.yml").read_text())
    subprocess.run(
        ["ansible-vault", "encrypt", "--vault-password-file", tmp_path / "vault", kept], check=True, capture_output=True, env=environ()
    )
    assert PASSWORD not in kept.read_text()
    result = Cluster(without, vault_password="open").up(check=True)
    assert result.ok, result.failures


def test_the_host_has_logged_nothing_of_it() -> None:
    assert shell("node2", f"journalctl --no-pager -q | grep -c {PASSWORD}", check=False) == "0"
