# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A piece of code in a kernel of a Jupyter server, as a notebook would have it run.

The kernel is one of its own and ends with it, whatever happens; those of users are not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import time
import uuid
from typing import Any, Awaitable, Callable, Dict, List, Optional, Tuple, TypeVar

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_abandoned import abandoned

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
DISCARD_SECONDS = 10.0
# a kernel that answers is slower than this only when it has something to do
ASK_AGAIN_SECONDS = 2.0
# of a probe that was killed, and could not take its kernel away
FORGOTTEN_SECONDS = 60.0
# ids of such kernels say until when they are needed
MARK = "ipyfleet-cell"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ENDED = "expected a kernel that runs, got one that ended"
UNANSWERED, REFUSED, DIED, ERROR, TIMEOUT = "unanswered", "refused", "died", "error", "timeout"

T = TypeVar("T")


class KernelError(Exception):
    """The code did not run to its end.

    :param kind: `UNANSWERED` when the server does not answer, `REFUSED` when it does not take the token, `DIED`
        when there is no kernel that runs, `ERROR` when the code or the server raised something, `TIMEOUT` of the code.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Server:
    """A Jupyter server.

    :param address: host and port, as in ``127.0.0.1:8888``.
    :param deadline: until when it has to be done, by `time.monotonic`.
    :param hopeless: asked while the server does not answer: whether it never will.
    """

    def __init__(self, address: str, token: str, deadline: float, hopeless: Callable[[], bool] = lambda: False) -> None:
        self.address = address
        self.headers = {"Authorization": "token " + token}
        self.deadline = deadline
        self.hopeless = hopeless
        self.began = 0.0
        self.stage = (UNANSWERED, "")

    def run(self, code: str) -> Tuple[str, float]:
        """Run code; returns what its last line shows, as text, and the seconds from asking for a kernel on.

        :raises KernelError: saying why it did not run to its end; with no words when it is the server that does not answer.
        :raises asyncio.CancelledError: when a signal came, or nobody is left to hear the answer.
        """
        return asyncio.run(self._guarded(self._run(code)))

    async def _guarded(self, work: Awaitable[T]) -> T:
        """Do work until the deadline, a signal, or until nobody waits for it; it gets to clean up."""
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, task.cancel)
        late = False
        while not (await asyncio.wait([task], timeout=POLL_SECONDS))[0]:
            if not late and (time.monotonic() > self.deadline or abandoned()):
                late = True
                task.cancel()
        if task.cancelled() and time.monotonic() > self.deadline:
            raise KernelError(*self.stage)
        return task.result()

    async def _run(self, code: str) -> Tuple[str, float]:
        await self._answer()
        await self._tidy()
        kernel = new_id(self._left())
        self.began = time.monotonic()
        asked = False
        try:
            self.stage = (DIED, "expected a kernel that starts in time, got none")
            status, said = await self._call("POST", "/api/kernels", {"kernel_id": kernel})
            asked = True
            if status != 201:
                raise KernelError(DIED, "expected the server to start a kernel, got HTTP %d: %s" % (status, said.get("message")))
            text = await self._execute(kernel, code)
            return text, round(time.monotonic() - self.began, 2)
        finally:
            await self._discard(kernel, asked)

    def _left(self) -> float:
        return max(0.1, self.deadline - time.monotonic())

    async def _call(self, method: str, path: str, body: Optional[Dict[str, Any]] = None) -> Tuple[int, Any]:
        """One request; its status, and the data that came with it.

        :raises KernelError: when there is no answer.
        """
        from tornado.httpclient import AsyncHTTPClient, HTTPError

        try:
            response = await AsyncHTTPClient().fetch(
                "http://%s%s" % (self.address, path),
                method=method,
                headers=self.headers,
                body=None if body is None else json.dumps(body),
                request_timeout=self._left() + DISCARD_SECONDS,
                raise_error=False,
                follow_redirects=False,
            )
        except (OSError, HTTPError) as error:
            raise KernelError(UNANSWERED, "") from error
        try:
            return response.code, json.loads(response.body or b"{}")
        except ValueError:
            return response.code, {}

    async def _answer(self) -> None:
        """Wait until the server answers; it may have been started a moment ago.

        :raises KernelError: when it does not take the token, or never will answer.
        """
        while True:
            try:
                status, _ = await self._call("GET", "/api/status")
            except KernelError:
                status = 503
            if status == 200:
                return
            if status != 503:
                kind = REFUSED if status in (302, 401, 403) else ERROR
                raise KernelError(kind, "expected the server to answer, got HTTP %d" % status)
            if self.hopeless():
                raise KernelError(*self.stage)
            await asyncio.sleep(POLL_SECONDS)

    async def _tidy(self) -> None:
        """Take kernels away that were left by somebody who did this before and was killed."""
        status, kernels = await self._call("GET", "/api/kernels")
        for each in kernels if status == 200 else []:
            if forgotten(each["id"]):
                await self._call("DELETE", "/api/kernels/" + each["id"])

    async def _discard(self, kernel: str, asked: bool) -> None:
        """End the kernel.

        :param asked: whether the server has answered the request for it; else it may be there yet.
        """
        until = time.monotonic() + DISCARD_SECONDS
        while time.monotonic() < until:
            status = 0
            with contextlib.suppress(KernelError):
                status, _ = await self._call("DELETE", "/api/kernels/" + kernel)
            if status == 204 or (asked and status == 404):
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _execute(self, kernel: str, code: str) -> str:
        """Run code in the kernel; returns what its last line shows."""
        session = uuid.uuid4().hex
        socket = await self._connect(kernel, session)
        talk = Talk(socket, session)
        try:
            await talk.greet()
            self.stage = (TIMEOUT, "expected the cell to end in time, got no end of it")
            return await talk.execute(code)
        finally:
            talk.end()

    async def _connect(self, kernel: str, session: str) -> Any:
        """A connection to the kernel's channels, which the server gives once the kernel has been heard.

        :raises KernelError: when the server has given the kernel up: one that ends at once is started anew some times.
        """
        from tornado.httpclient import HTTPRequest
        from tornado.websocket import websocket_connect

        url = "ws://%s/api/kernels/%s/channels?session_id=%s" % (self.address, kernel, session)
        request = HTTPRequest(url, headers=self.headers, request_timeout=self._left() + DISCARD_SECONDS)
        connecting = asyncio.ensure_future(websocket_connect(request))
        while not (await asyncio.wait([connecting], timeout=LOOK_SECONDS))[0]:
            status, _ = await self._call("GET", "/api/kernels/" + kernel)
            if status == 404:
                connecting.cancel()
                raise KernelError(DIED, ENDED)
        try:
            return connecting.result()
        except Exception as error:
            # tornado's own when it is refused, any of the operating system's when it breaks
            raise KernelError(ERROR, "expected a connection to the kernel, got %s: %s" % (type(error).__name__, error)) from error


class Talk:
    """What is said to a kernel, and what it says.

    :param socket: a connection of tornado's to the kernel's channels.
    """

    def __init__(self, socket: Any, session: str) -> None:
        self.socket = socket
        self.session = session
        self.next: Any = None

    async def greet(self) -> None:
        """Wait for the kernel: what is sent before the server has a connection to it gets lost."""
        asked: List[str] = []
        while True:
            asked.append(await self._send("kernel_info_request", {}))
            again = time.monotonic() + ASK_AGAIN_SECONDS
            while time.monotonic() < again:
                message = await self._hear(again - time.monotonic())
                if message and message["header"]["msg_type"] == "kernel_info_reply" and parent_of(message) in asked:
                    return

    async def execute(self, code: str) -> str:
        """Run code; returns what its last line shows.

        :raises KernelError: when it raised something.
        """
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        mine = await self._send("execute_request", content)
        shown, replied, idle = "", False, False
        while not (replied and idle):
            message = await self._hear()
            if not message or parent_of(message) != mine:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "execute_result":
                shown = str(content["data"].get("text/plain", ""))
            elif kind == "execute_reply":
                replied = True
                if content["status"] != "ok":
                    first = str(content.get("evalue", "")).split("\n")[0]
                    raise KernelError(ERROR, "expected a cell that runs, got %s: %s" % (content.get("ename", content["status"]), first))
            elif kind == "status":
                idle = content["execution_state"] == "idle"
        return shown

    def end(self) -> None:
        """Hang up."""
        self.socket.close()

    async def _send(self, kind: str, content: Dict[str, Any]) -> str:
        """Send a message; returns its id."""
        from tornado.websocket import WebSocketClosedError

        number = uuid.uuid4().hex
        header = {"msg_id": number, "session": self.session, "username": "", "date": "", "msg_type": kind, "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        try:
            await self.socket.write_message(json.dumps(message))
        except WebSocketClosedError as error:
            raise KernelError(DIED, ENDED) from error
        return number

    async def _hear(self, seconds: Optional[float] = None) -> Optional[Dict[str, Any]]:
        """The next message, if one comes in time.

        :raises KernelError: when there is none to come, or it says that the kernel has ended.
        """
        self.next = self.next or self.socket.read_message()
        if not (await asyncio.wait([self.next], timeout=seconds))[0]:
            return None
        text, self.next = self.next.result(), None
        if text is None:
            raise KernelError(DIED, ENDED)
        if isinstance(text, bytes):
            return None  # a message with buffers, which is none of ours
        message: Dict[str, Any] = json.loads(text)
        if message["header"]["msg_type"] == "status" and message["content"]["execution_state"] in ("restarting", "dead"):
            raise KernelError(DIED, ENDED)
        return message


def parent_of(message: Dict[str, Any]) -> str:
    """Id of the message that one is an answer to."""
    return str(message["parent_header"].get("msg_id", ""))


def new_id(seconds: float) -> str:
    """An id for a kernel that is needed for some seconds: in five parts, as the server wants them.

    It is no longer than the server's own, since names of the kernel's sockets are made of it, which must not be long.
    """
    chance = uuid.uuid4().hex
    return "%s-%08x-%s-%s" % (MARK, int(time.time() + seconds), chance[:4], chance[4:11])


def forgotten(kernel: str) -> bool:
    """Whether a kernel is one of `Server.run` that nobody needs any more."""
    found = re.fullmatch(MARK + r"-([0-9a-f]{8})-\w+-\w+", kernel)
    return found is not None and time.time() > int(found.group(1), 16) + FORGOTTEN_SECONDS
