"""A fleet for tests of the way there: servers that answer as JupyterLab, a controller and a database do."""

from __future__ import annotations

import json
import shutil
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from conftest import ROOT

from ipyfleet.access import Access, Target, Way

TOKEN = "0123456789abcdef0123456789abcdef"
SERVICES = """# Managed by ipyfleet

[lab]
host=db.example.org
hostaddr=10.0.0.9
port=5432
dbname=lab
user=lab
sslmode=verify-full

[results]
host=db.example.org
hostaddr=10.0.0.9
port=5432
dbname=results
user=lab
sslmode=verify-full
"""


class Notebook(BaseHTTPRequestHandler):
    """Answers as JupyterLab does: what is asked with the token, and nothing else."""

    def do_GET(self) -> None:
        good = self.path == "/api/status" and self.headers["Authorization"] == f"token {TOKEN}"
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Stranger(Notebook):
    """Another program."""

    def do_GET(self) -> None:
        self.send_error(404)


class Controller(socketserver.BaseRequestHandler):
    """Greets as ZeroMQ does."""

    def handle(self) -> None:
        self.request.sendall(b"\xff\0\0\0\0\0\0\0\1\x7f")
        self.request.recv(100)


class Database(socketserver.BaseRequestHandler):
    """Is willing to speak TLS."""

    def handle(self) -> None:
        self.request.recv(8)
        self.request.sendall(b"S")


class Far:
    """Servers on loopback, and what a client would know of them.

    :param folder: where the stand-in of ssh is told what to do.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: dict[str, socketserver.BaseServer] = {}
        shutil.copy(ROOT / "tests" / "unit" / "fake_ssh.py", folder / "ssh")
        (folder / "ssh").chmod(0o755)
        self.mode("")
        self.ports = {"jupyterlab": self.serve("jupyterlab", Notebook, ThreadingHTTPServer)}
        self.ports["registration"] = self.serve("registration", Controller)
        self.ports["postgresql"] = self.serve("postgresql", Database)

    def serve(self, name: str, handler: Any, kind: Callable[..., Any] = socketserver.ThreadingTCPServer, port: int = 0) -> int:
        server = kind(("127.0.0.1", port), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.servers[name] = server
        return int(server.server_address[1])

    def stop(self, *names: str) -> None:
        """Stop servers; all that are left when none is named."""
        for name in names or tuple(self.servers):
            server = self.servers.pop(name)
            server.shutdown()
            server.server_close()

    def mode(self, name: str) -> None:
        """How the stand-in of ssh behaves from now on."""
        (self.folder / "mode").write_text(name)

    def calls(self) -> list[list[str]]:
        """Words of each run of ssh."""
        path = self.folder / "calls"
        return [line.split("\0") for line in path.read_text().splitlines()] if path.exists() else []

    def access(self, *without: str, **reach: str) -> Access:
        """What a client knows of it.

        :param without: what the fleet does not have.
        :param reach: how its host is reached.
        """
        targets = tuple(Target(name, "127.0.0.1", port) for name, port in self.ports.items() if name not in without)
        info = {"location": "head", "interface": "tcp://0.0.0.0", "key": "secret", "registration": self.ports["registration"]}
        files = {
            "client.json": json.dumps(info),
            "pg_service.conf": SERVICES,
            "pgpass": "# Managed\ndb.example.org:5432:*:lab:pass\\:word\n",
            "ca.crt": "CA",
            "token": TOKEN,
        }
        if "jupyterlab" in without:
            files.pop("token")
        return Access(info, "head", dict(reach), "lab", Way("head", dict(reach), targets), (), Path("keys"), files)
