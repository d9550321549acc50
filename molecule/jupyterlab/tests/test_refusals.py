"""Who does not get in, and what who is in cannot do."""

from __future__ import annotations

import pytest
from fleet import shell
from notebook import LAB, LAB_USER, SECURITY, UNIT, answer, cell, port, token

WRITES = {
    "write": f"open('{SECURITY}/mine', 'w')",
    "remove": f"os.remove('{SECURITY}/ipcontroller-client.json')",
    "replace": f"os.replace('{LAB}/home', '{SECURITY}')",
    "put aside": f"os.rename('{SECURITY}', '{SECURITY}.old')",
    "put the profile aside": f"os.rename('{LAB}/ipython/profile_lab', '{LAB}/ipython/profile_old')",
    "open": f"os.chmod('{SECURITY}', 0o777)",
    "the token": f"open('{LAB}/token', 'w')",
    "the engines' key": "open('/var/lib/ipyfleet/lab/ipython/profile_lab/security/ipcontroller-engine.json')",
    "the environment": "open('/opt/ipyfleet/lab/env/bin/python', 'ab')",
}


def test_with_the_token_one_gets_in() -> None:
    assert answer("head", "/api/contents", token=token()) == 200


@pytest.mark.parametrize("path", ["/api/contents", "/api/kernels", "/api/status", "/lab"])
def test_without_a_token_one_does_not(path: str) -> None:
    assert answer("head", path) in (403, 302)
    assert answer("head", path, token="0" * 64) in (403, 302)


def test_a_page_under_another_name_is_refused() -> None:
    assert answer("head", "/api/contents", token=token(), Host="evil.example") == 403


def test_other_hosts_have_no_way_to_the_port() -> None:
    assert answer("desk", "/api", address="head") == 0
    listening = shell("head", f"ss -Hltn 'sport = :{port()}'")
    assert [line.split()[3] for line in listening.splitlines()] == [f"127.0.0.1:{port()}"]


def test_kernels_take_orders_from_a_folder_of_their_user_alone() -> None:
    code = """
import json, os
from ipykernel import get_connection_info
said = json.loads(get_connection_info())
print(said["transport"], oct(os.stat(os.path.dirname(said["ip"])).st_mode & 0o777))
"""
    assert cell(code) == "ipc 0o700"


@pytest.mark.parametrize("code", WRITES.values(), ids=WRITES)
def test_a_cell_cannot_change_what_is_the_fleet_s(code: str) -> None:
    assert cell(f"import os\n{code}").startswith(("PermissionError:", "OSError:"))


def test_a_cell_reads_the_client_s_connection_file_and_is_an_ordinary_user() -> None:
    assert (
        cell(f"import getpass; print(getpass.getuser(), len(open('{SECURITY}/ipcontroller-client.json').read()) > 100)")
        == f"{LAB_USER} True"
    )
    assert cell("import subprocess; print(subprocess.run(['sudo', '-n', 'true']).returncode != 0)") == "True"


def test_a_cell_cannot_start_a_rival_cluster() -> None:
    code = """
import ipyparallel as ipp
try:
    ipp.Cluster(profile="lab", n=1).start_cluster_sync()
except Exception as error:
    print(error)
print(ipp.Client(profile="lab").ids)
"""
    refused, ids = cell(code).splitlines()
    assert "fleet lab is managed by ipyfleet" in refused
    assert ids == "[0, 1]"


def test_the_tab_for_clusters_is_off() -> None:
    assert answer("head", "/ipyparallel/clusters", token=token()) == 404


def test_the_service_is_in_a_sandbox() -> None:
    pid = shell("head", f"systemctl show -p MainPID --value {UNIT}")
    status = dict(line.split(":\t", 1) for line in shell("head", f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", 0)
    assert int(shell("head", f"stat -c %u /proc/{pid}")) != 0


def test_the_token_is_for_nobody_else_to_read() -> None:
    assert shell("head", f"stat -c '%U %G %a' {LAB}/token") == f"root {LAB_USER} 640"
    everything = shell(
        "head", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; journalctl -q --no-pager; cat /run/ipyfleet/*/*.json 2>/dev/null | grep -v token"
    )
    assert token() not in everything
