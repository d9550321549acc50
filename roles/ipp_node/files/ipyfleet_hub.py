"""Talk to a fleet's hub: is it ready, and goodbye on behalf of a slot.

    ipyfleet_hub.py ready CONNECTION_FILE [--also CONNECTION_FILE] [--timeout SECONDS]
    ipyfleet_hub.py leave CONNECTION_FILE SLOT_FILE [--timeout SECONDS]

`ready` ends with 0 once every port of the connection files takes connections and the hub has
answered a signed request: that proves ports, key and CURVE at once, which the presence of a
file or an open port does not. `leave` tells the hub that the engine of a slot is gone, so that
it need not find out by missed heartbeats.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session

ANY_ADDRESS = ("*", "0.0.0.0", "::", "[::]")
POLL_SECONDS = 0.1


class NoAnswerError(Exception):
    """The hub did not answer in time."""


def host_of(info: dict[str, Any]) -> str:
    """The name or address by which the controller of a connection file is reached."""
    bound = str(info["interface"]).split("://", 1)[1]
    return str(info["location"]) if bound in ANY_ADDRESS else bound


def ports_of(info: dict[str, Any]) -> list[int]:
    """Every port that a connection file names."""
    found = []
    for value in info.values():
        found += [each for each in (value if isinstance(value, list) else [value]) if type(each) is int]
    return sorted(set(found))


class Hub:
    """A request socket to the hub of a connection file."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.session = Session(
            key=info["key"].encode(),
            signature_scheme=info["signature_scheme"],
            packer=info["pack"],
            unpacker=info["unpack"],
        )
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        if info.get("curve_serverkey"):
            public, secret = zmq.curve_keypair()
            self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
            self.socket.curve_serverkey = info["curve_serverkey"].encode()
        self.socket.connect(f"tcp://{host_of(info)}:{info['registration']}")

    def engines(self, timeout: float) -> dict[int, str]:
        """Ids and identities of the engines that the hub lists.

        :param timeout: seconds to wait for the answer.
        :raises NoAnswerError: when there is none.
        """
        self.session.send(self.socket, "connection_request")
        if not self.socket.poll(int(timeout * 1000)):
            raise NoAnswerError
        _, frames = self.session.feed_identities(self.socket.recv_multipart())
        content = self.session.deserialize(frames)["content"]
        return {int(number): uuid for number, uuid in content["engines"].items()}

    def leave(self, engine: int, timeout: float) -> None:
        """Unregister an engine and wait until the hub has done so."""
        self.session.send(self.socket, "unregistration_request", content={"id": engine})
        # requests of one socket are handled in order: this answer comes after the farewell's handling
        self.engines(timeout)

    def close(self) -> None:
        """Drop the connection, and what could not be sent over it."""
        self.context.destroy(linger=0)


def refused(info: dict[str, Any]) -> list[int]:
    """Ports of a connection file that take no connection now."""
    bad = []
    for port in ports_of(info):
        try:
            socket.create_connection((host_of(info), port), timeout=2).close()
        except OSError:
            bad.append(port)
    return bad


def wait_ready(infos: list[dict[str, Any]], timeout: float) -> str:
    """Wait for the hub; returns what is still missing when the time is up, else nothing."""
    deadline = time.monotonic() + timeout
    while True:
        bad = sorted({port for info in infos for port in refused(info)})
        missing = f"no connection to port {', '.join(map(str, bad))}" if bad else ""
        if not bad:
            hub = Hub(infos[0])
            try:
                hub.engines(timeout=2)
                return ""
            except NoAnswerError:
                missing = "ports are open, but the hub answers no signed request"
            finally:
                hub.close()
        if time.monotonic() > deadline:
            return missing
        time.sleep(POLL_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    ready = verbs.add_parser("ready")
    ready.add_argument("connection_file", type=Path)
    ready.add_argument("--also", type=Path, action="append", default=[])
    ready.add_argument("--timeout", type=float, default=60)
    leave = verbs.add_parser("leave")
    leave.add_argument("connection_file", type=Path)
    leave.add_argument("slot_file", type=Path)
    leave.add_argument("--timeout", type=float, default=2)
    args = parser.parse_args()
    info = json.loads(args.connection_file.read_text())
    if args.verb == "ready":
        missing = wait_ready([info, *(json.loads(path.read_text()) for path in args.also)], args.timeout)
        if missing:
            print(f"the controller is not ready after {args.timeout:.0f} s: {missing}", file=sys.stderr)
        return 1 if missing else 0
    engine = int(json.loads(args.slot_file.read_text())["id"])
    hub = Hub(info)
    try:
        hub.leave(engine, args.timeout)
    except NoAnswerError:
        print(f"the hub did not hear that engine {engine} is gone; missed heartbeats will tell it", file=sys.stderr)
    finally:
        hub.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
