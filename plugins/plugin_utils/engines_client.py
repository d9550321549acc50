# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engines of a running controller, asked from the control node."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import socket
import sys
import warnings
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_engines import watch
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.ssh_forward import EVERYWHERE, ForwardError, forwarded

NEEDED = ("interface", "location", "key", "registration", "control", "mux", "task", "notification", "task_scheme")
# beyond what is waited for: loading ipyparallel on a slow machine
START_SECONDS = 60.0
# what a ZeroMQ socket that listens says first
GREETING = b"\xff"
BY_SSH = "if only ssh leads there, leave `ipyfleet connect` open and name the connection file that it prints, or name the fleet"


class ControllerError(Exception):
    """The controller cannot be asked; the message is one line."""


def profile_file(profile: str) -> Path:
    """Where a client looks for the connection file of a profile of IPython's."""
    folder = Path(os.environ.get("IPYTHONDIR") or Path.home() / ".ipython")
    return folder / f"profile_{profile}" / "security" / "ipcontroller-client.json"


def read_connection(path: Path) -> dict[str, Any]:
    """A client's connection file.

    :raises ControllerError: when it is none.
    """
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ControllerError(
            f"expected a client's connection file, got no such file as {path}; playbooks/client.yml -e client_file=PATH makes it"
        ) from error
    except OSError as error:
        raise ControllerError(f"expected a client's connection file, got {path}, which cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ControllerError(f"expected a client's connection file, got {path}, which is not JSON") from error
    missing = [key for key in NEEDED if key not in info] if isinstance(info, dict) else list(NEEDED)
    if missing:
        raise ControllerError(f"expected a client's connection file, got {path}, in which there is no {missing[0]}")
    return dict(info)


def address_of(info: Mapping[str, Any]) -> tuple[str, int]:
    """Where the hub of a connection file is reached."""
    bound = str(info["interface"]).rpartition("://")[2]
    return str(info["location"] if bound in EVERYWHERE else bound), int(info["registration"])


def check_answers(info: Mapping[str, Any], seconds: float) -> None:
    """See whether something that may be a controller listens.

    :raises ControllerError: when nothing does.
    """
    host, port = address_of(info)
    try:
        with socket.create_connection((host, port), timeout=seconds) as stream:
            if stream.recv(1) == GREETING:
                return
        why = "a connection that was closed, or something else"
    except OSError as error:
        why = error.strerror or str(error)
    raise ControllerError(f"expected a controller that listens at {host}:{port}, got: {why}")


def engines_somehow(
    info: Mapping[str, Any], controller: tuple[str, Mapping[str, Any]] | None, timeout: float, engine_timeout: float
) -> list[dict[str, Any]]:
    """Engines, asked straight, or through ssh to the controller's host where that is the only way.

    :param controller: that host, and how Ansible reaches it; None when it is not known.
    :raises ControllerError: when the controller does not answer.
    """
    if info.get("ssh"):
        # ipyparallel goes through ssh by itself
        return engines_of(info, timeout, engine_timeout)
    try:
        check_answers(info, timeout)
    except ControllerError as straight:
        if not controller:
            raise ControllerError(f"{straight}; {BY_SSH}") from straight
        host, reach = controller
        if reach.get("connection", "ssh") != "ssh":
            raise
        try:
            with forwarded(info, host, reach, timeout) as through:
                check_answers(through, timeout)
                return engines_of(through, timeout, engine_timeout)
        except ForwardError as error:
            raise ControllerError(f"{straight}; and through ssh to {host}: {error}") from error
        except ControllerError as error:
            raise ControllerError(f"{straight}; and through ssh to {host}, which answers: {error}") from error
    return engines_of(info, timeout, engine_timeout)


def engines_of(info: Mapping[str, Any], timeout: float, engine_timeout: float) -> list[dict[str, Any]]:
    """Engines as `watch` gives them.

    A child process asks: it is ended when it takes too long, and nothing of ipyparallel's is left in this one.

    :param info: content of the client's connection file.
    :param timeout: seconds that the controller has to answer.
    :param engine_timeout: seconds that idle engines have to answer, together.
    :raises ControllerError: when the controller does not answer.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_ask, args=(there, dict(info), timeout, engine_timeout), daemon=True)
    child.start()
    there.close()
    try:
        said = here.recv() if here.poll(timeout + engine_timeout + START_SECONDS) else {}
    except EOFError:
        said = {}
    finally:
        child.kill()
        child.join()
        here.close()
    if said.get("missing"):
        raise ControllerError(f"expected ipyparallel in the Python that Ansible runs with, {sys.executable}, got: {said['missing']}")
    if "engines" not in said:
        why = said.get("problem") or "no answer"
        host, port = address_of(info)
        raise ControllerError(f"expected the controller at {host}:{port} to answer what is signed with this file's key, got: {why}")
    return list(said["engines"])


def _ask(there: Connection, info: dict[str, Any], timeout: float, engine_timeout: float) -> None:
    """In the child process."""
    said: dict[str, Any]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import ipyparallel

            client = ipyparallel.Client(info, timeout=timeout)
            said = {"engines": watch(client, client.ids, engine_timeout)}
        except ImportError as error:
            said = {"missing": str(error)}
        except Exception as error:
            said = {"problem": " ".join(str(error).split()) or type(error).__name__}
    there.send(said)
    there.close()
    # its threads need not be waited for
    os._exit(0)
