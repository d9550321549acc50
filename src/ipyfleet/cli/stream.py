"""Lines that are printed while they come."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NoReturn

import typer

from ipyfleet.cli.state import State
from ipyfleet.follow import Following


def print_stream(state: State, call: Callable[..., Following], json: bool, **arguments: Any) -> NoReturn:
    """Print lines as they come, until Ctrl-C, which is a good end.

    :param call: what gives the stream, with these `arguments`.
    :param json: each line as an object.
    """
    code = 0
    try:
        with call(**arguments) as stream:
            for host, reason in list(stream.failures.items()):
                state.err.print(f"{host}: {reason}", markup=False, style="red")
            told = set(stream.failures)
            for line in stream:
                if json:
                    state.out.file.write(json_format.dumps(asdict(line)) + "\n")
                    state.out.file.flush()
                else:
                    state.out.print(str(line), markup=False)
            # by itself, it ends where nothing is left to follow
            code = 1
            for host in set(stream.failures) - told:
                state.err.print(f"{host}: {stream.failures[host]}", markup=False, style="red")
    except KeyboardInterrupt:
        code = 3 if stream.failures else 0
    raise typer.Exit(code)
