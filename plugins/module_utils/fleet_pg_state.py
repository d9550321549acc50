# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a PostgreSQL server really is, by its own word and by its sockets, beside what its files say."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import socket
import ssl
import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_facts import cannot_bind, resolve
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_secrets import shown
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_pg_server import (
    Database,
    Layout,
    read_text,
    settings_in,
)
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_tree import Owner, in_child

TLS_SECONDS = 5.0
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
WILDCARDS = {"0.0.0.0", "::"}
LISTENS = "0A"
ANYWHERE = ("*", "0.0.0.0", "::", "localhost")

RESTART_WORDS = "cannot be changed without restarting"
LOADED = "SELECT extract(epoch FROM pg_conf_load_time()) AS at"
FILES = (
    "SELECT f.name, f.sourcefile, f.sourceline, f.applied, f.error, f.setting, coalesce(s.pending_restart, false) AS pending"
    " FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name) ORDER BY f.seqno"
)
RULES = "SELECT line_number AS line, error FROM pg_hba_file_rules"
PENDING = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY name"
RESTART_ONLY = "SELECT name FROM pg_settings WHERE context = 'postmaster'"
OTHERS = (
    "SELECT coalesce((SELECT json_agg(datname ORDER BY datname) FROM pg_database"
    " WHERE datname NOT IN ('postgres', 'template0', 'template1')), '[]') AS databases,"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS clients"
)


class Disturbed(NamedTuple):
    """Who a restart would disturb."""

    databases: List[str]
    clients: int

    def __str__(self) -> str:
        names = "clients of the databases %s" % ", ".join(self.databases) if self.databases else "clients"
        return "%s (%d connected now)" % (names, self.clients)


def loaded_at(database: Database) -> float:
    """When the server last read its files, in seconds since the epoch."""
    return float(database.rows(LOADED)[0]["at"])


def touched_at(paths: Sequence[str]) -> float:
    """When one of the files was last changed, by content or attributes."""
    return max((os.stat(path).st_ctime for path in paths if os.path.exists(path)), default=0.0)


def disturbed(database: Database) -> Disturbed:
    """Databases beside the distribution's own, and connections beside this one."""
    row = database.rows(OTHERS)[0]
    return Disturbed(list(row["databases"]), int(row["clients"]))


def file_faults(rows: Sequence[Dict[str, Any]], drop_in: str) -> Iterator[str]:
    """What the server does not take of its files, and which settings of the drop-in others overrule.

    :param rows: the view pg_file_settings, in order.
    """
    for row in rows:
        # a setting that is in no file any more has a row without a file, until a restart
        gone = row["sourcefile"] is None and RESTART_WORDS in str(row["error"])
        if row["error"] and not row["pending"] and not gone:
            yield "%s line %s: %s: %s" % (row["sourcefile"], row["sourceline"], row["name"], row["error"])
        if row["sourcefile"] == drop_in and not row["applied"] and not row["error"]:
            last = [each for each in rows if each["name"] == row["name"]][-1]
            how = "; ALTER SYSTEM RESET %s takes it back" % row["name"] if last["sourcefile"].endswith("auto.conf") else ""
            yield "%s: expected %s, got %s from %s line %s%s" % (
                row["name"],
                shown(row["name"], row["setting"]),
                shown(row["name"], last["setting"]),
                last["sourcefile"],
                last["sourceline"],
                how,
            )


def rule_faults(rows: Sequence[Dict[str, Any]]) -> Iterator[str]:
    """What the server does not take of its pg_hba.conf."""
    if not rows:
        yield "pg_hba.conf: expected rules, got none"
    for row in rows:
        if row["error"]:
            yield "pg_hba.conf line %s: %s" % (row["line"], row["error"])


# -- sockets


def decoded(words: str) -> str:
    """An address as /proc/net/tcp and tcp6 have it: groups of four bytes, each in the machine's order."""
    raw = bytes.fromhex(words)
    groups = (struct.unpack("=I", raw[at : at + 4])[0] for at in range(0, len(raw), 4))
    network = b"".join(struct.pack("!I", group) for group in groups)
    return socket.inet_ntop(socket.AF_INET if len(network) == 4 else socket.AF_INET6, network)


def sockets_of(pid: int, user: str) -> Optional[Set[str]]:
    """Inodes of the sockets that a process has open; None when that cannot be seen.

    :param user: whose process it is: even root may not look into those of others everywhere.
    """
    owner = Owner(user)

    def work() -> List[str]:
        found = []
        for link in glob.glob("/proc/%d/fd/*" % pid):
            # files come and go
            with contextlib.suppress(OSError):
                found.append(os.readlink(link))
        return found

    links = work() if owner.is_me else in_child(owner, work)
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")} or None


def listening(port: int, inodes: Optional[Set[str]], tables: Sequence[str] = ("/proc/net/tcp", "/proc/net/tcp6")) -> Set[str]:
    """Addresses on which a server listens on a port; others may have the same port on other addresses.

    :param inodes: the server's sockets; None to take those of all programs.
    """
    found = set()
    for table in tables:
        for line in read_text(table).splitlines()[1:]:
            words = line.split()
            address, number = words[1].rsplit(":", 1)
            if words[3] == LISTENS and int(number, 16) == port and (inodes is None or words[9] in inodes):
                found.add(decoded(address))
    return found


def unheard(wanted: Sequence[str], there: Set[str]) -> List[str]:
    """Those of the wanted addresses on which nothing listens.

    :param there: what `listening` found.
    """
    missing = []
    for address in wanted:
        if address == "*":
            heard = bool(there & WILDCARDS)
        elif address == "localhost":
            heard = bool(there & (WILDCARDS | {"127.0.0.1", "::1"}))
        else:
            heard = bool(there & (WILDCARDS | numbers(address)))
        if not heard:
            missing.append(address)
    return missing


def numbers(name: str) -> Set[str]:
    """Addresses of a name; none when it does not resolve."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, 0, socket.SOCK_STREAM)}
    except OSError:
        return set()


def absent(addresses: Sequence[str]) -> List[str]:
    """Addresses to listen on that this host has not, one line for each."""
    found = []
    for address in addresses:
        there = [] if address in ANYWHERE else resolve(address)["addresses"]
        missing = [each for each in there if cannot_bind(each, 0)]
        if missing or not (there or address in ANYWHERE):
            got = address if address in missing or not there else "%s, which is %s" % (address, ", ".join(missing))
            found.append("postgresql_listen_addresses: expected addresses of this host, got %s" % got)
    return found


# -- the certificate


def first_certificate(pem: str) -> bytes:
    """The first certificate of a PEM text, as DER; nothing when there is none."""
    match = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    return ssl.PEM_cert_to_DER_cert(match.group(0) + "\n") if match else b""


def served_certificate(address: str, port: int) -> bytes:
    """The certificate that a server shows to clients, as DER; nothing when it offers no TLS.

    It is compared with a file, and so not verified.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((address, port), TLS_SECONDS) as plain:
            plain.sendall(SSL_REQUEST)
            if plain.recv(1) != b"S":
                return b""
            with context.wrap_socket(plain) as secured:
                return secured.getpeercert(True) or b""
    except OSError:
        return b""


def reachable(there: Set[str]) -> str:
    """One of the addresses that a server listens on, to connect to from its own host; empty when there is none."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    order = sorted(there, key=lambda each: (each not in ("0.0.0.0", "127.0.0.1"), ":" in each, each))
    return local.get(order[0], order[0]) if order else ""


def our_files(where: Layout) -> List[str]:
    """The files that a server has to have read."""
    return [where.drop_in, where.hba, where.pem, where.ca]


def changed_settings(before: str, after: str) -> Set[str]:
    """Names of settings that two texts of a drop-in have differently."""
    old, new = settings_in(before), settings_in(after)
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}


def theirs(rows: Sequence[Dict[str, Any]], ours: Set[str]) -> Set[str]:
    """Settings of the operator's own files: they wait for a restart of his.

    :param rows: the view pg_file_settings.
    :param ours: names that the drop-in has, or had when the server last started with it.
    """
    return {row["name"] for row in rows if row["name"]} - ours
