"""What every command needs: which fleet, how to show it, and what comes after ``--``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console

from ipyfleet.errors import InputError
from ipyfleet.sources import VARIABLE, chosen, fleet_files

FleetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--inventory",
        "-i",
        metavar="PATH",
        envvar=VARIABLE,
        help="Fleet file or other inventory; may be given more than once. Default: the only *.fleet.yml of this folder.",
        autocompletion=lambda incomplete: fleet_files(incomplete),
    ),
]
LimitOption = Annotated[
    str, typer.Option("--limit", "-l", metavar="HOSTS", help="Only these hosts.", autocompletion=lambda incomplete: hosts(incomplete))
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
ServiceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--service", "--slot", metavar="NAME", help="Only this one: a slot such as node1/0, an engine's id, controller, jupyterlab, or mpi."
    ),
]
CheckOption = Annotated[bool, typer.Option("--check", "-C", help="Only say what would be changed.")]
DiffOption = Annotated[bool, typer.Option("--diff", "-D", help="Show the differences of files; secrets are masked.")]
VerboseOption = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Show Ansible's output; more often for more of it.")]
ExtraOption = Annotated[
    list[str] | None, typer.Option("--extra-vars", "-e", metavar="NAME=VALUE", help="A variable, a mapping in JSON, or @FILE with some.")
]
SudoOption = Annotated[bool, typer.Option("--ask-become-pass", "-K", help="Ask for sudo's password.")]
SshOption = Annotated[bool, typer.Option("--ask-pass", "-k", help="Ask for ssh's password.")]
VaultOption = Annotated[bool, typer.Option("--ask-vault-pass", "-J", help="Ask for the vault's password.")]


@dataclass
class State:
    """What is known before a command runs.

    :param rest: words after ``--``.
    """

    rest: list[str] = field(default_factory=list)
    out: Console = field(default_factory=lambda: Console(soft_wrap=True, highlight=False))
    err: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True, highlight=False))


def state_of(context: typer.Context) -> State:
    """The state that `main` made."""
    return context.ensure_object(State)


def hosts(incomplete: str) -> list[str]:
    """Hosts of the fleet whose names begin so, for completion: mistakes are silent."""
    import json
    import subprocess

    from ipyfleet import runner

    try:
        words = [word for source in chosen([os.environ[VARIABLE]] if os.environ.get(VARIABLE) else None) for word in ("-i", source)]
        environ = {**os.environ, **runner.environment()}
        done = subprocess.run(["ansible-inventory", *words, "--list"], capture_output=True, env=environ, timeout=10, check=True)
        known = json.loads(done.stdout)["_meta"]["hostvars"]
    except (InputError, OSError, subprocess.SubprocessError, ValueError, KeyError):
        return []
    return sorted(name for name in known if name.startswith(incomplete))


def variables_of(given: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """Extra variables as a mapping, and what only Ansible can read, as words for its command line.

    A variable goes to Ansible in a file, so that its value is in no list of processes.

    :raises InputError: when one is not NAME=VALUE, JSON or @FILE.
    """
    import yaml

    found: dict[str, Any] = {}
    words: list[str] = []
    for each in given or ():
        if each.startswith("@"):
            words.append(f"--extra-vars={each}")
        elif each.lstrip().startswith("{"):
            try:
                content = yaml.safe_load(each)
            except yaml.YAMLError:
                content = None
            if not isinstance(content, Mapping):
                raise InputError(["-e: expected a mapping in JSON or YAML, got something else"])
            found.update(content)
        elif "=" in each:
            name, _, value = each.partition("=")
            found[name] = value
        else:
            raise InputError([f"-e: expected NAME=VALUE, a mapping or @FILE, got {each!r}"])
    return found, words


def is_terminal() -> bool:
    """Whether somebody is watching."""
    return sys.stdout.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
