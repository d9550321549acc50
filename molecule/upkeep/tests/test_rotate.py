"""New keys, certificates and passwords of a fleet in use; the old ones are refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

from database import authority, connect, passwords, sql
from fleet import CLIENT_FILE, INVENTORY, PYTHON, ROOT, USER, answer, command, environ, eventually, main_pids, python_alone, secrets, shell

IDS = [0, 1, 2]
STARTED = "select pg_postmaster_start_time()"
PENDING = INVENTORY / ".ipyfleet" / "lab" / "rotating.json"
# an old client's file opens nothing: neither its key nor its CURVE key is taken
TRY = """
import ipyparallel as ipp, json
try:
    rc = ipp.Client("/tmp/old.json", timeout=4)
    rc[:].apply_async(int).get(timeout=4)
    print(json.dumps("let in"))
except Exception as error:
    print(json.dumps(type(error).__name__))
"""
REACH = """
import psycopg2
with psycopg2.connect("") as connection, connection.cursor() as cursor:
    cursor.execute("select 1")
    print(cursor.fetchone()[0])
"""


def rotate(*what: str) -> float:
    """Make new ones, by the command; returns the seconds that it took."""
    words = [word for each in what for word in ("--what", each)]
    begin = time.monotonic()
    said = command("rotate", "-i", str(INVENTORY), *words, "--yes", "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    assert json.loads(said.stdout)["ok"]
    assert not PENDING.exists()
    return time.monotonic() - begin


def reached(host: str) -> str:
    """Connect to the database as engines do on a host: by what is there for them."""
    shell(host, f"cat >/tmp/reach.py <<'END'\n{REACH}\nEND\nchmod 644 /tmp/reach.py")
    unit = "engine@0" if host != "head" else "controller"
    environment = shell(host, f"tr '\\0' '\\n' </proc/$(systemctl show -P MainPID ipyfleet-lab-{unit})/environ | grep ^PG || true")
    given = " ".join(environment.split())
    return shell(host, f"runuser -u {USER} -- env {given} {PYTHON} /tmp/reach.py 2>&1", check=False).splitlines()[-1]


def test_a_new_hub_key_shuts_old_clients_out() -> None:
    shell("head", f"cp {CLIENT_FILE} /tmp/old.json")
    assert python_alone("head", TRY) == "let in"
    before, started = secrets(), sql("head", STARTED)
    took = rotate("hub-key")
    back = eventually(lambda: answer(IDS), 60)
    print(f"a new hub key in {took:.1f} s; engines answered {back:.1f} s later at most")
    assert not set(secrets().values()) & set(before.values())
    assert python_alone("head", TRY) != "let in"
    # nobody else was disturbed
    assert sql("head", STARTED) == started


def test_new_passwords_disturb_no_engine() -> None:
    before, units, started = passwords(), main_pids(), sql("head", STARTED)
    assert reached("node1") == "1"
    took = rotate("passwords")
    print(f"new passwords in {took:.1f} s")
    assert not set(passwords().values()) & set(before.values())
    assert "password authentication failed" in connect("node1", "head", password=before["lab"])
    assert connect("node1", "head").startswith("TLS")
    assert reached("node1") == "1"
    assert (main_pids(), sql("head", STARTED)) == (units, started)


def test_new_certificates_disturb_no_engine() -> None:
    before, units, started = authority(), main_pids(), sql("head", STARTED)
    shell("node1", f"cat >/tmp/old.crt <<'END'\n{before}\nEND")
    took = rotate("certificates")
    print(f"new certificates in {took:.1f} s")
    assert authority() != before
    assert connect("node1", "head").startswith("TLS")
    assert "certificate verify failed" in connect("node1", "head", sslrootcert="/tmp/old.crt")
    assert reached("node2") == "1"
    assert (main_pids(), sql("head", STARTED)) == (units, started)


def test_cut_short_it_is_gone_on_with() -> None:
    before = secrets()
    words = [sys.executable, "-m", "ipyfleet", "rotate", "-i", str(INVENTORY), "--what", "hub-key", "--yes"]
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        env=environ(PYTHONPATH=str(ROOT / "src")),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    eventually(lambda: secrets() != before, 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    made = secrets()
    assert json.loads(PENDING.read_text())["secrets.json"]["key"] == before["key"]
    rotate("hub-key")
    assert secrets() == made
    eventually(lambda: answer(IDS), 60)
