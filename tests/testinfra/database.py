"""What tests of the database have in common."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fleet import ENGINE, INVENTORY, NAME, PYTHON, ROOT, container, play, python_alone, shell

TRY = """
import json, sys
import psycopg2
try:
    connection = psycopg2.connect("", **json.loads(sys.stdin.readline()))
    with connection.cursor() as cursor:
        cursor.execute("select version from pg_stat_ssl where pid = pg_backend_pid()")
        print(cursor.fetchall()[0][0])
except psycopg2.Error as error:
    print(" ".join(str(error).split()))
"""


def passwords(fleet: str = NAME) -> dict[str, str]:
    """The passwords of a fleet's accounts."""
    return dict(json.loads((INVENTORY / ".ipyfleet" / fleet / "passwords.json").read_text()))


def authority(fleet: str = NAME) -> str:
    """The certificate of a fleet's authority."""
    return str(json.loads((INVENTORY / ".ipyfleet" / fleet / "ca.json").read_text())["certificate"])


def sql(host: str, query: str, database: str = "postgres") -> str:
    """What a query says on the database's host, to its superuser."""
    return shell(host, f"su postgres -c \"psql -XAtq -d {database}\" <<'END'\n{query}\nEND")


def connect(name: str, server: str = "db", **change: str) -> str:
    """Connect from a host as somebody who knows all there is to know; returns the protocol, or the refusal."""
    shell(name, f"cat >/tmp/ca.crt <<'END'\n{authority()}\nEND\ngetent hosts {server} | sed 's/ .*/ other/' >>/etc/hosts")
    wanted = {
        "host": server, "dbname": NAME, "user": NAME, "password": passwords()[NAME],
        "sslmode": "verify-full", "sslrootcert": "/tmp/ca.crt", "channel_binding": "require", "connect_timeout": "5",
    } | change  # fmt: skip
    shell(name, f"cat >/tmp/try.py <<'END'\n{TRY}\nEND")
    command = [ENGINE, "exec", "-i", container(name), PYTHON, "/tmp/try.py"]
    return subprocess.run(command, input=json.dumps(wanted) + "\n", capture_output=True, text=True, check=True, timeout=60).stdout


def flat(text: str) -> str:
    """Output without the breaks that Ansible puts into long lines."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Fleet:
    """A fleet with a database.

    :param host: the database's; `major` is its version.
    :param inventory: what Ansible reads it from.
    """

    host: str
    major: str
    inventory: tuple[Path, ...]


FLEETS = {
    "lab": Fleet("db", "15", (INVENTORY,)),
    # on the same hosts, but with another database
    "lab13": Fleet("db13", "17", (INVENTORY / "00_hosts.yml", ROOT / "molecule" / "postgresql" / "inventory" / "lab13.fleet.yml")),
}


def deploy(fleet: str, *arguments: str, playbook: str = "site.yml") -> subprocess.CompletedProcess[str]:
    """Run a playbook on a fleet."""
    keys = ("-e", f"fleet_secrets_dir={INVENTORY}/.ipyfleet/{fleet}")
    return play(*keys, *arguments, playbook=playbook, sources=FLEETS[fleet].inventory)


def served_serial(server: str = "db") -> str:
    """Serial number of the certificate that a server shows to who connects."""
    code = f"""
import json, socket, ssl
plain = socket.create_connection(("{server}", 5432), timeout=10)
plain.sendall((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
assert plain.recv(1) == b"S"
context = ssl.create_default_context(cadata={authority()!r})
with context.wrap_socket(plain, server_hostname="{server}") as secure:
    print(json.dumps(secure.getpeercert()["serialNumber"]))
"""
    return str(python_alone("node1", code))
