"""An ssh process that forwards ports, and what keeps one going."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ipyfleet import local_ports, ssh
from ipyfleet.errors import ClientError

OPEN_SECONDS = 30.0
POLL_SECONDS = 0.1
LINES = 40
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)

Say = Callable[[str], None]


class Tunnel:
    """One ssh process; it ends with `close`, or by itself.

    :param host: what it is called in messages.
    :param command: of `ssh.tunnel_command`.
    """

    def __init__(self, host: str, command: Sequence[str]) -> None:
        self.host = host
        # in a session of its own: Ctrl-C is for us, who end it
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self._closed = False
        self.said: deque[str] = deque(maxlen=LINES)
        self._reader = threading.Thread(target=self._read, name="ssh's standard error", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        # closed here alone: what ssh has started may hold it for longer than ssh lives
        with self.process.stderr as stream:
            for line in stream:
                if line.strip():
                    self.said.append(line.strip())

    @property
    def alive(self) -> bool:
        """Whether ssh runs."""
        return self.process.poll() is None

    def is_open(self, port: int) -> bool:
        """Whether a port leads into it: another program's may be there, before ssh has found that out and ended."""
        return self.alive and takes_connections("127.0.0.1", port) and local_ports.listens(self.process.pid, port) is not False

    def wait_open(self, port: int, stop: threading.Event | None = None) -> None:
        """Wait until ssh has logged in, and listens.

        :param port: one that it forwards.
        :param stop: what ends the wait.
        :raises ClientError: with the reason for which it does not.
        """
        deadline = time.monotonic() + OPEN_SECONDS
        while not self.is_open(port):
            if not self.alive:
                raise ClientError(f"{self.host}: {self.reason()}")
            if time.monotonic() > deadline or (stop and stop.is_set()):
                self.close()
                raise ClientError(f"{self.host}: expected ssh to log in, got no answer in {OPEN_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def reason(self) -> str:
        """Why ssh has ended."""
        self._reader.join(5)
        return ssh.meaning(list(self.said), self.process.returncode)

    def is_prohibited(self) -> bool:
        """Whether the host let us in, and does not let us through."""
        return any(ssh.PROHIBITED in line for line in list(self.said))

    def close(self) -> None:
        """End it, and the commands that it goes through, such as one of ProxyCommand."""
        if self._closed:
            return
        self._closed = True
        end_group(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        end_group(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Keeper:
    """Keeps a tunnel going: an ssh that ends is started anew, on the same ports.

    :param say: told what happens to it, in a thread of its own.
    :param started: called with each ssh process that is started.
    """

    def __init__(self, host: str, command: Sequence[str], port: int, say: Say, started: Callable[[int], None] = lambda _: None) -> None:
        self.host = host
        self.command = list(command)
        self.port = port
        self.say = say
        self.started = started
        self.stop = threading.Event()
        self.tunnel = self._start()
        self._thread = threading.Thread(target=self._keep, name=f"tunnel to {host}", daemon=True)

    def open(self) -> None:
        """Wait until the tunnel is open; from then on it is kept.

        :raises ClientError: with the reason for which it is not; nothing is left running.
        """
        try:
            self.tunnel.wait_open(self.port)
        except BaseException:
            self.close()
            raise
        self._thread.start()

    def close(self) -> None:
        """End the tunnel, and what keeps it."""
        self.stop.set()
        self.tunnel.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(5)
            # the one that was being started just then
            self.tunnel.close()

    def _start(self) -> Tunnel:
        tunnel = Tunnel(self.host, self.command)
        self.started(tunnel.process.pid)
        return tunnel

    def _keep(self) -> None:
        while not self.stop.wait(POLL_SECONDS * 5):
            if not self.tunnel.alive:
                self.say(f"{self.host}: the way there has ended: {self.tunnel.reason()}; connecting again")
                self._again()

    def _again(self) -> None:
        told = ""
        for number in range(1_000_000):
            if self.stop.wait(BACK_OFF[min(number, len(BACK_OFF) - 1)]):
                return
            self.tunnel.close()
            self.tunnel = self._start()
            try:
                self.tunnel.wait_open(self.port, self.stop)
            except ClientError as error:
                # the same reason once is enough
                if str(error) != told and not self.stop.is_set():
                    self.say(f"{error}; trying on")
                told = str(error)
            else:
                self.say(f"{self.host}: connected again")
                return


def end_group(leader: int, number: signal.Signals) -> None:
    """Send a signal to all processes of a group that are left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def takes_connections(address: str, port: int, seconds: float = 2.0) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((address, port), seconds).close()
    except OSError:
        return False
    return True
