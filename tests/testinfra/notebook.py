"""What tests of JupyterLab have in common: ways to it, and questions that are asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from fleet import CLIENT, ENGINE, ETC, INVENTORY, NAME, PYTHON, ROOT, container, environ, shell

LAB = f"/var/lib/ipyfleet/{NAME}.jupyterlab"
LAB_USER = f"ipylab-{NAME}"
SECURITY = f"{LAB}/ipython/profile_{NAME}/security"
UNIT = f"ipyfleet-{NAME}-jupyterlab.service"
# a person's cell, by the API that a browser uses
CELL = """
import asyncio, json, sys, urllib.request, uuid
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

port, token, code = json.loads(sys.stdin.readline())
base, headers = f"127.0.0.1:{port}/api/kernels", {"Authorization": f"token {token}"}

def ask(method, path=""):
    request = urllib.request.Request(f"http://{base}{path}", method=method, headers=headers, data=b"{}" if method == "POST" else None)
    return urllib.request.urlopen(request).read()

async def run(kernel):
    socket = await websocket_connect(HTTPRequest(f"ws://{base}/{kernel}/channels", headers=headers))
    mine = uuid.uuid4().hex
    header = {"msg_id": mine, "msg_type": "execute_request", "username": "", "session": mine, "version": "5.3", "date": ""}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
    await socket.write_message(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "channel": "shell", "content": content}))
    said = ""
    while True:
        message = json.loads(await socket.read_message())
        if message["parent_header"].get("msg_id") != mine:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream" and content["name"] == "stdout":
            said += content["text"]
        if kind == "error":
            said += f"{content['ename']}: {content['evalue']}"
        if kind == "execute_reply":
            return said

kernel = json.loads(ask("POST"))["id"]
try:
    print(asyncio.run(run(kernel)))
finally:
    ask("DELETE", f"/{kernel}")
"""

ASK = """
import http.client, json, sys
verb, address, port, path, headers = json.load(sys.stdin)
connection = http.client.HTTPConnection(address, port, timeout=10)
try:
    connection.request(verb, path, headers=headers)
    print(connection.getresponse().status)
except OSError:
    print(0)
"""


def token() -> str:
    """What lets one into JupyterLab, as the control node has it."""
    return str(json.loads((INVENTORY / ".ipyfleet" / NAME / "jupyterlab.json").read_text())["token"])


def port() -> int:
    """Where JupyterLab listens on its host."""
    return int(shell("head", f"sed -n 's/^c.ServerApp.port = //p' {ETC}/jupyter_server_config.py"))


def cell(code: str) -> str:
    """What a cell prints that somebody runs, in a kernel of its own."""
    shell("head", f"cat >/tmp/cell.py <<'END'\n{CELL}\nEND")
    command = [ENGINE, "exec", "-i", "-u", CLIENT, container("head"), PYTHON, "/tmp/cell.py"]
    given = json.dumps([port(), token(), code]) + "\n"
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def answer(name: str, path: str, *, token: str = "", verb: str = "GET", address: str = "127.0.0.1", at: int = 0, **headers: str) -> int:
    """The status code that somebody gets on a host; 0 when there is no connection.

    :param at: the port, if not JupyterLab's own.
    """
    sent = {**headers, **({"Authorization": f"token {token}"} if token else {})}
    command = [ENGINE, "exec", "-i", container(name), PYTHON, "-c", ASK]
    given = json.dumps([verb, address, at or port(), path, sent])
    return int(subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=60).stdout)


def get(url: str, path: str) -> tuple[int, Any]:
    """Status and content of a page behind a tunnel to this machine, for somebody with the token."""
    request = urllib.request.Request(url.partition("/lab")[0] + path, headers={"Authorization": f"token {token()}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as page:
            return page.status, json.loads(page.read())
    except urllib.error.HTTPError as error:
        return error.code, None


@contextlib.contextmanager
def connected(*options: str) -> Iterator[dict[str, Any]]:
    """What `ipyfleet connect` says when it is connected, and that it is until the end.

    `process` is its process id.
    """
    command = [sys.executable, "-m", "ipyfleet", "connect", "-i", str(INVENTORY), "--json", "--port=0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ(PYTHONPATH=str(ROOT / "src")))
    assert process.stdout
    try:
        said = json.loads(process.stdout.readline())
        assert said["ok"], said
        yield said | {"process": process.pid}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
