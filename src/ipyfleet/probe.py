"""Whether something answers behind a port: not that it takes connections, which a tunnel always does."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import urllib.error
import urllib.request
from typing import Any

SECONDS = 3.0
# asks a PostgreSQL server whether it speaks TLS, which any answers
TLS_REQUEST = struct.pack("!ii", 8, 80877103)


def controller_answers(port: int, address: str = "127.0.0.1") -> bool:
    """Whether ZeroMQ is there; it speaks first."""
    return bool(_hear(address, port, b""))


def database_answers(port: int, address: str = "127.0.0.1") -> bool:
    """Whether PostgreSQL is there."""
    return _hear(address, port, TLS_REQUEST) in (b"S", b"N")


def _hear(address: str, port: int, question: bytes) -> bytes:
    with contextlib.suppress(OSError), socket.create_connection((address, port), SECONDS) as connection:
        if question:
            connection.sendall(question)
        return connection.recv(1)
    return b""


def notebook_status(url: str, token: str) -> int | None:
    """The HTTP status with which JupyterLab answers a request that has its token; None when nobody answers.

    :param url: of the server, as ``http://127.0.0.1:12391``.
    """
    # not by a proxy: it is on loopback
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    request = urllib.request.Request(f"{url}/api/status", headers={"Authorization": f"token {token}"})  # noqa: S310  (http, of ours)
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return int(error.code)
    except (OSError, http.client.HTTPException):
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An answer that leads elsewhere is one of another program."""

    def redirect_request(self, *_: Any) -> None:
        """Stay."""
        return
