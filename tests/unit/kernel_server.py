"""A server that speaks the protocol of JupyterLab's kernels, and does what a test tells it to."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_kernel import Server
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

TOKEN = "0123456789abcdef"


class Lab:
    """A server in a thread of its own.

    :param does: what its kernels do with a cell: ``show`` 42, ``raise``, ``hang``, ``end`` when they get it;
        ``never`` when no kernel comes up at all, ``refuse`` when it says so, ``slow`` when asking for one takes long.
    :param busy: how many requests it answers with 503 first.
    """

    def __init__(self, does: str = "show", busy: int = 0) -> None:
        self.does = does
        self.busy = busy
        self.kernels: set[str] = {"of-a-user"}
        self.began: list[str] = []
        self.ready = threading.Event()
        self.port = 0
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)

    async def serve(self) -> None:
        self.loop, self.done = asyncio.get_running_loop(), asyncio.Event()
        kernel = r"/api/kernels/([\w-]+)"
        routes = [("/api/status", Status), ("/api/kernels", Kernels), (kernel, Kernel), (kernel + "/channels", Channels)]
        server = HTTPServer(Application([(path, handler, {"lab": self}) for path, handler in routes]))
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        server.add_sockets(sockets)
        self.ready.set()
        await self.done.wait()
        server.stop()
        await server.close_all_connections()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.done.set)
        self.thread.join(10)

    @property
    def left(self) -> set[str]:
        """Kernels that nobody took away."""
        return self.kernels - {"of-a-user"}

    def run(self, seconds: float = 20, token: str = TOKEN) -> tuple[str, float]:
        return Server(f"127.0.0.1:{self.port}", token, time.monotonic() + seconds).run("6 * 7")


class Part(RequestHandler):
    """What needs the token."""

    def initialize(self, lab: Lab) -> None:
        self.lab = lab

    def prepare(self) -> None:
        self.lab.busy -= 1
        if self.lab.busy >= 0:
            self.send_error(503)
        elif self.request.headers.get("Authorization") != f"token {TOKEN}":
            self.send_error(403)


class Status(Part):
    def get(self) -> None:
        self.write({})


class Kernels(Part):
    def get(self) -> None:
        self.write(json.dumps([{"id": each} for each in self.lab.kernels]))

    async def post(self) -> None:
        kernel = json.loads(self.request.body)["kernel_id"]
        self.lab.began.append(kernel)
        if self.lab.does == "refuse":
            self.set_status(500)
            self.write({"message": "Unhandled error"})
            return
        if self.lab.does == "slow":
            await asyncio.sleep(1.0)
        self.lab.kernels.add(kernel)
        self.set_status(201)
        self.write({"id": kernel})


class Kernel(Part):
    def get(self, kernel: str) -> None:
        if kernel not in self.lab.kernels or self.lab.does == "never":
            self.send_error(404)

    def delete(self, kernel: str) -> None:
        self.set_status(204 if kernel in self.lab.kernels else 404)
        self.lab.kernels.discard(kernel)


class Channels(WebSocketHandler):
    def initialize(self, lab: Lab) -> None:
        self.lab = lab
        self.greeted = 0

    async def prepare(self) -> None:
        if self.lab.does == "never":
            # as the real one waits for a kernel that ends and is started anew
            await asyncio.sleep(30)

    def say(self, parent: dict[str, Any], kind: str, **content: Any) -> None:
        message = {"header": {"msg_type": kind}, "parent_header": parent, "content": content}
        self.write_message(json.dumps(message))

    def on_message(self, text: str | bytes) -> None:
        header = json.loads(text)["header"]
        if header["msg_type"] == "kernel_info_request":
            self.greeted += 1
            # the first one gets lost, as one does that comes before the server has heard the kernel
            if self.greeted > 1:
                self.say(header, "kernel_info_reply")
            return
        self.say({"msg_id": "of-a-user"}, "execute_result", data={"text/plain": "'of somebody else'"})
        self.say(header, "status", execution_state="busy")
        if self.lab.does == "end":
            self.say({}, "status", execution_state="restarting")
        elif self.lab.does == "raise":
            self.say(header, "execute_reply", status="error", ename="NameError", evalue="no such name\nand more")
        elif self.lab.does != "hang":
            # shell and iopub are two sockets: an answer can come before what it is about
            self.say(header, "execute_reply", status="ok")
            self.say(header, "execute_result", data={"text/plain": "42"})
            self.say(header, "status", execution_state="idle")
