"""Being a client of a controller, straight or through ssh where that is the only way."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ipyfleet import local_ports, ssh
from ipyfleet.access import CONTROLLER, PORTS, Access
from ipyfleet.errors import ClientError
from ipyfleet.ssh import Forward
from ipyfleet.tunnel import Tunnel, takes_connections

CLIENT_SECONDS = 30.0
SIGNAL_SECONDS = 10.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.02
LOOPBACK = "127.0.0.1"
# a controller's host that loses power closes no connection, and who only listens would do so for ever:
# seconds and milliseconds as engines have them
LASTING = {
    "TCP_KEEPALIVE": 1,
    "TCP_KEEPALIVE_IDLE": 5,
    "TCP_KEEPALIVE_INTVL": 2,
    "TCP_KEEPALIVE_CNT": 5,
    "TCP_MAXRT": 15000,
    "CONNECT_TIMEOUT": 2000,
}


def client_info(info: Mapping[str, Any], forwards: Sequence[Forward]) -> dict[str, Any]:
    """A client's connection file as it holds on this side of a tunnel."""
    here = {each.name: each.here for each in forwards if each.name in PORTS}
    return {**info, **here, "interface": f"tcp://{LOOPBACK}", "location": LOOPBACK}


def is_reachable(info: Mapping[str, Any]) -> bool:
    """Whether the hub's port takes a connection from here."""
    return takes_connections(str(info["location"]), int(info[CONTROLLER]))


def find_way(access: Access) -> tuple[dict[str, Any], Tunnel | None]:
    """A client's connection file as it holds here: straight, or through a tunnel that is opened, where that is the only way.

    :raises ClientError: when neither way leads to the controller.
    """
    if is_reachable(access.info):
        return access.info, None
    if access.reach.get("connection", "ssh") != "ssh":
        raise ClientError(f"{access.host}: expected the controller at {access.info['location']}, got no answer")
    return open_tunnel(access)


def open_tunnel(access: Access) -> tuple[dict[str, Any], Tunnel]:
    """Forward a controller's client ports through its host; returns the connection file as it holds here.

    :raises ClientError: with ssh's own reason.
    """
    address = str(access.info["interface"]).removeprefix("tcp://")
    address = LOOPBACK if address in ("0.0.0.0", "*", "::") else address
    forwards: list[Forward] = []
    for name in PORTS:
        if name in access.info:
            here = local_ports.same_or_free(local_ports.free_port(), [each.here for each in forwards])
            forwards.append(Forward(name, here, address, int(access.info[name])))
    tunnel = Tunnel(access.host, ssh.tunnel_command(access.host, access.reach, forwards))
    try:
        tunnel.wait_open(forwards[0].here)
    except BaseException:
        tunnel.close()
        raise
    return client_info(access.info, forwards), tunnel


@cache
def lasting_context(process: int) -> Any:  # noqa: ARG001
    """A ZeroMQ context whose connections are made anew when the other side went away without a word.

    :param process: this one's id: a fork needs one of its own. It is kept to the end, as waiting for what was not sent could take as long.
    """
    import zmq

    context = zmq.Context()
    for name, value in LASTING.items():
        context.setsockopt(getattr(zmq, name), value)
    return context


def new_client(info: Mapping[str, Any], host: str, timeout: float) -> Any:
    """An ipyparallel Client.

    :param info: its connection file.
    :param host: whom messages are about.
    :raises ClientError: when the controller does not answer.
    """
    import ipyparallel as ipp

    try:
        return ipp.Client(dict(info), timeout=timeout, context=lasting_context(os.getpid()))
    except Exception as error:
        raise ClientError(f"{host}: expected the controller to answer, got: {error}") from error


def ask_engines(client: Any, ids: Sequence[int], timeout: float) -> dict[int, int]:
    """Process ids of engines by engine id, of those that answer.

    The question is a function of the standard library, which is sent by its name: it works between
    different versions of Python, where code of one's own does not. An engine that died, or that a controller
    remembers from before it was restarted, stays listed for a while, and what is sent to it is lost: so each
    is asked anew until it answers.

    :param client: an ipyparallel client.
    :param timeout: seconds to wait in all.
    """
    deadline = time.monotonic() + timeout
    found: dict[int, int] = {}
    asked: dict[int, tuple[float, Any]] = {}
    while left := [number for number in ids if number not in found]:
        for number in left:
            sent, answer = asked.get(number, (0.0, None))
            if answer is not None and answer.ready():
                del asked[number]
                with contextlib.suppress(Exception):
                    found[number] = int(answer.get())
            elif number in client.ids and time.monotonic() - sent > ANSWER_SECONDS:
                asked[number] = (time.monotonic(), client[number].apply_async(os.getpid))
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return found


def signal_engines(client: Any, name: str, ids: Sequence[int], timeout: float = SIGNAL_SECONDS) -> dict[int, str]:
    """Send a signal to engines through their controller; returns those that did not confirm it by id, with the reasons.

    :param client: an ipyparallel client.
    :param name: the signal's name, such as ``SIGINT``.
    :param timeout: seconds to wait in all.
    """
    deadline = time.monotonic() + timeout
    answers: dict[int, Any] = {}
    silent: dict[int, str] = {}
    for number in ids:
        try:
            answers[number] = client.send_signal(name, targets=number, block=False)
        except Exception as error:
            silent[number] = str(error)
    for number, answer in answers.items():
        try:
            answer.result(max(0.0, deadline - time.monotonic()))
        except Exception as error:
            silent[number] = str(error) or "no answer in time"
    return silent
