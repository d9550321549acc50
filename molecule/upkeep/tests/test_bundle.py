"""A report of a bug: what is in it, and that nothing secret is, though it is in logs."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fleet import INVENTORY, command, play, shell
from test_logs import say


def known() -> set[str]:
    """Every secret of the fleet; of keys in several lines, each line."""
    found: set[str] = set()

    def walk(content: object) -> None:
        if isinstance(content, dict):
            for each in content.values():
                walk(each)
        elif isinstance(content, str) and "BEGIN CERTIFICATE" not in content:
            found.update(line for line in content.splitlines() if len(line) >= 8 and "-----" not in line)

    for path in (INVENTORY / ".ipyfleet" / "lab").glob("*.json"):
        if path.name != "state.json":
            walk(json.loads(path.read_text()))
    return found


def forms(secret: str) -> set[bytes]:
    data = secret.encode()
    return {
        data,
        base64.b64encode(data).rstrip(b"=")[:-1],
        data.hex().encode(),
        quote(secret, safe="").encode(),
        json.dumps(secret)[1:-1].encode(),
    }


def contents(path: Path) -> dict[str, bytes]:
    """What is in an archive, without its top folder."""
    with tarfile.open(path) as archive:
        files = {member.name.split("/", 1)[1]: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read() for name, file in files.items() if file}


def leaks(files: dict[str, bytes]) -> list[str]:
    """Files that have a secret in them."""
    looked = {form for secret in known() for form in forms(secret)}
    return [name for name, data in files.items() if any(form in data or form in name.encode() for form in looked)]


@pytest.fixture(scope="module")
def planted() -> set[str]:
    """All secrets are in logs: of a service on each engine host, and of the database."""
    secrets = known()
    assert len(secrets) >= 8
    for number, secret in enumerate(sorted(secrets)):
        encoded = base64.b64encode(f"x{secret}".encode()).decode()
        for host in ("node1", "node2"):
            say(host, f"planted {number} {base64.b64encode(secret.encode()).decode()} {encoded} {quote(secret, safe='')}")
        shell("head", f"su postgres -c \"psql 'dbname={quote(secret, safe='')}'\"", check=False)
        say("node1", f"plain {number} {secret}")
    return secrets


@pytest.fixture
def away() -> Iterator[str]:
    """A host that does not answer."""
    shell("node2", "systemctl stop ssh.socket ssh.service; pkill sshd; true")
    yield "node2"
    shell("node2", "systemctl start ssh.service")


@pytest.mark.usefixtures("planted")
def test_all_that_helps_is_in_it_and_nothing_secret(tmp_path: Path) -> None:
    dest = tmp_path / "report.tar.gz"
    said = command("bundle", "-i", str(INVENTORY), "-o", str(dest))
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{dest}: look through it" in said.stdout
    assert dest.stat().st_mode & 0o777 == 0o600
    files = contents(dest)
    assert leaks(files) == []
    assert "3 of 3 engine slots registered" in files["status.txt"].decode()
    assert b"ipyparallel" in files["hosts/node1/packages.txt"]
    planted = files["hosts/node2/logs/engine@0.log"].decode()
    assert all(f"planted {number} [removed]" in planted for number in range(len(known()))), planted
    for host, names in {
        "head": ("logs/controller.log", "logs/postgresql.log"),
        "node1": ("logs/engine@1.log", "clock.txt", "disk.txt"),
    }.items():
        for name in names:
            assert files[f"hosts/{host}/{name}"], name
    assert any(name.endswith("/lab.fleet.yml") for name in files)
    assert json.loads(files["versions.json"])["ansible"]
    print(f"{len(files)} files, {dest.stat().st_size // 1024} KiB, {len(known())} secrets looked for")


def test_a_host_that_is_down_is_named_and_left_out(tmp_path: Path, away: str) -> None:
    dest = tmp_path / "report.tar.gz"
    said = play("-e", f"bundle_file={dest}", playbook="playbooks/bundle.yml")
    assert said.returncode == 0, said.stdout[-3000:]
    files = contents(dest)
    assert f"{away}: not in here: " in files["about.txt"].decode()
    assert not [name for name in files if name.startswith(f"hosts/{away}/logs")]
    assert files["hosts/node1/logs/engine@0.log"]
    assert leaks(files) == []
