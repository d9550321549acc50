#!/usr/bin/env python3
"""Stands in for ssh in tests: forwards ports of loopback as its options say, or fails as a file tells it to.

The folder that FAKE_SSH names has `mode` (empty, or how to fail); each run adds its words to `calls`.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path

FAILURES = {
    "refused": "ops@head: Permission denied (publickey).",
    "unknown": "Host key verification failed.",
    "changed": "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
    "away": "ssh: connect to host head port 22: No route to host",
    "nowhere": "ssh: Could not resolve hostname head: Name or service not known",
    "closed": "kex_exchange_identification: Connection closed by remote host",
    "taken": "bind [127.0.0.1]:4711: Address already in use\nchannel_setup_fwd_listener_tcpip: cannot listen to port: 4711",
    "strange": "command-line: line 0: Bad configuration option: nonsense",
}


def pump(one: socket.socket, two: socket.socket) -> None:
    """Carry bytes both ways until one side ends."""
    with one, two:
        while True:
            for ready in select.select([one, two], [], [])[0]:
                try:
                    data = ready.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                (two if ready is one else one).sendall(data)


def serve(listener: socket.socket, target: tuple[str, int], prohibited: bool) -> None:
    """Forward each connection."""
    while True:
        connection, _ = listener.accept()
        try:
            if prohibited:
                raise OSError
            there = socket.create_connection(target, 2)
        except OSError:
            why = "administratively prohibited: open failed" if prohibited else "connect failed: Connection refused"
            print(f"channel 2: open failed: {why}", file=sys.stderr, flush=True)
            connection.close()
            continue
        threading.Thread(target=pump, args=(connection, there), daemon=True).start()


def main() -> None:
    folder = Path(os.environ["FAKE_SSH"])
    with (folder / "calls").open("a") as stream:
        stream.write("\0".join(sys.argv[1:]) + "\n")
    mode = (folder / "mode").read_text()
    if mode in FAILURES:
        print(FAILURES[mode], file=sys.stderr)
        raise SystemExit(255)
    if mode == "late":
        time.sleep(1)
    words = sys.argv[1:]
    for before, word in itertools.pairwise(words):
        if before == "-L":
            _, here, address, port = word.split(":")
            try:
                listener = socket.create_server(("127.0.0.1", int(here)))
            except OSError:
                print(f"channel_setup_fwd_listener_tcpip: cannot listen to port: {here}", file=sys.stderr)
                raise SystemExit(255) from None
            threading.Thread(target=serve, args=(listener, (address, int(port)), mode == "prohibited"), daemon=True).start()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
