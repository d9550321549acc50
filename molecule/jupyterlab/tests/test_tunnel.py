"""The account for people who have nothing but a way to JupyterLab."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import NAME, eventually, play, shell
from notebook import answer, connected, get, port, token

ACCOUNT = f"ipytunnel-{NAME}"
SSH = f"ssh -o BatchMode=yes -o ExitOnForwardFailure=yes -o UserKnownHostsFile=/root/known -i /root/ann {ACCOUNT}@head"


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Somebody's key, which the fleet lets in, on the desk and here; in the end it does no more."""
    key = tmp_path_factory.mktemp("ann") / "ann"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ann", "-f", key], check=True)
    shell("desk", f"umask 077; cat >/root/ann <<'END'\n{key.read_text()}END")
    shell("desk", "ssh-keyscan -t ed25519 head >/root/known 2>/dev/null")
    said = play("-e", json.dumps({"jupyterlab_tunnel_keys": [key.with_suffix(".pub").read_text()]}))
    assert said.returncode == 0, said.stdout[-3000:]
    yield key
    assert play().returncode == 0
    assert "Permission denied" in shell("desk", f"{SSH} -N 2>&1 || true")
    assert shell("head", f"getent passwd {ACCOUNT} || echo nobody") == "nobody"


@pytest.mark.usefixtures("ann")
def test_the_key_opens_a_way_to_jupyterlab() -> None:
    shell("desk", f"{SSH} -f -N -L 127.0.0.1:8890:127.0.0.1:{port()}")
    try:
        eventually(lambda: answer("desk", "/api/contents", token=token(), at=8890) == 200, 20)
        assert answer("desk", "/api/contents", at=8890) == 403
    finally:
        shell("desk", "pkill -f [8]890:127.0.0.1")


@pytest.mark.usefixtures("ann")
@pytest.mark.parametrize("command", ["", "true", "sh", "-s sftp"])
def test_there_is_no_shell_and_no_command(command: str) -> None:
    said = shell("desk", f"timeout 10 {SSH} {command} </dev/null; echo $?; {SSH} 'touch /tmp/was-here' </dev/null; true")
    assert said.splitlines()[-1] != "0" or "This account is currently not available" in said
    assert shell("head", "test -e /tmp/was-here && echo yes || echo no") == "no"


@pytest.fixture
def internal_sftp() -> Iterator[None]:
    """An sshd that serves files by itself, where the shell of an account does not matter."""
    shell("head", "cp -p /etc/ssh/sshd_config /root/; sed -i 's/^Subsystem.*/Subsystem sftp internal-sftp/' /etc/ssh/sshd_config")
    shell("head", "grep -q internal-sftp /etc/ssh/sshd_config && systemctl restart ssh")
    yield
    shell("head", "mv /root/sshd_config /etc/ssh/ && systemctl restart ssh")


@pytest.mark.usefixtures("ann", "internal_sftp")
def test_there_are_no_files_even_where_sshd_serves_them_itself() -> None:
    said = shell("desk", f"echo 'get /etc/hostname /root/got' | timeout 10 {SSH.replace('ssh', 'sftp', 1)} 2>&1; echo $?")
    assert said.splitlines()[-1] not in ("0", "124"), said
    assert shell("desk", "test -e /root/got && echo yes || echo no") == "no"


@pytest.mark.usefixtures("ann")
def test_there_is_no_way_to_anything_else() -> None:
    said = shell("desk", f"timeout 10 {SSH} -W 127.0.0.1:22 2>&1 </dev/null || true")
    assert "administratively prohibited" in said
    said = shell("desk", f"timeout 10 {SSH} -N -R 127.0.0.1:9999:127.0.0.1:22 2>&1 || true")
    assert "remote port forwarding failed" in said
    assert shell("head", "ss -Hltn 'sport = :9999'") == ""


def test_the_whole_command_goes_through_it(ann: Path) -> None:
    with connected("--user", ACCOUNT, "--identity", str(ann)) as way:
        assert way["notes"] == []
        assert get(way["url"], "/api/contents")[0] == 200
