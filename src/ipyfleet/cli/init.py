"""The command `ipyfleet init`: a fleet file, from answers or from options."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ipyfleet.cli.state import state_of
from ipyfleet.cluster import Cluster
from ipyfleet.description import Description, fleet_text
from ipyfleet.errors import InputError
from ipyfleet.sources import SUFFIXES

LOCAL = "localhost"
NAME = "lab"


@dataclass(frozen=True)
class Answers:
    """What was said about a fleet so far; None where nothing was.

    :param engines: hosts or ranges, each with ``=N`` where that is not `auto`.
    :param user: who logs in; empty for whom ssh takes.
    :param postgresql: the database's host; empty for a fleet without one.
    :param jupyterlab: JupyterLab's host; empty for a fleet without it.
    """

    name: str | None = None
    controller: str | None = None
    engines: tuple[str, ...] | None = None
    clients: tuple[str, ...] | None = None
    user: str | None = None
    scope: str | None = None
    postgresql: str | None = None
    jupyterlab: str | None = None

    def completed(self) -> Answers:
        """The same, with what is taken where nothing was said: a fleet on this machine, if no host was named."""
        controller = self.controller or LOCAL
        engines = self.engines if self.engines is not None else (controller,)
        clients = self.clients if self.clients is not None else (controller,)
        postgresql, jupyterlab = self.postgresql or "", self.jupyterlab or ""
        hosts = {controller, *(split_slots(each)[0] for each in engines), *clients, postgresql, jupyterlab} - {""}
        scope = self.scope or ("user" if hosts == {LOCAL} else "system")
        return Answers(self.name or NAME, controller, engines, clients, self.user or "", scope, postgresql, jupyterlab)

    def description(self) -> Description:
        """The fleet that they describe.

        :raises InputError: when one cannot be read; whether it is right is found out later.
        """
        whole = self.completed()
        engines: dict[str, int | str] = {}
        for each in whole.engines or ():
            host, slots = split_slots(each)
            if host in engines:
                raise InputError([f"--engine: expected each host once, got {host} twice"])
            engines[host] = slots
        return Description(
            name=str(whole.name),
            scope=str(whole.scope),
            controller=str(whole.controller),
            engines=engines,
            clients=whole.clients or (),
            defaults={"ansible_user": whole.user} if whole.user else {},
            postgresql=whole.postgresql or "",
            jupyterlab=whole.jupyterlab or "",
            about=("One ipyparallel cluster: `ipyfleet up` brings it about, `ipyfleet --help` says what else there is.",),
        )


def init(
    context: typer.Context,
    path: Annotated[Path | None, typer.Argument(metavar="[PATH]", help="File to write, or its folder.  [default: NAME.fleet.yml]")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The fleet's name.")] = None,
    controller: Annotated[str | None, typer.Option("--controller", metavar="HOST", help="The host of the controller.")] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", metavar="HOST[=N]", help="A host or a range, such as node[01:08], and the number of engines on each."),
    ] = None,
    client: Annotated[list[str] | None, typer.Option("--client", metavar="HOST", help="A host whose user connects to the fleet.")] = None,
    postgresql: Annotated[
        str | None, typer.Option("--postgresql", metavar="HOST", help="The host of a PostgreSQL database for engines and clients.")
    ] = None,
    jupyterlab: Annotated[str | None, typer.Option("--jupyterlab", metavar="HOST", help="The host of JupyterLab.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Who logs in to the hosts.")] = None,
    scope: Annotated[str | None, typer.Option("--scope", metavar="SCOPE", help="`system` (sudo and systemd) or `user` (a login).")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take what is usual where nothing is said.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file, if there is one.")] = False,
) -> None:
    """Write a fleet file with comments, from answers or options. Options that can be given more than once: --engine, --client."""
    out = state_of(context).out
    given = Answers(name or name_in(path), controller, as_tuple(engine), as_tuple(client), user, scope, postgresql, jupyterlab)
    if path is not None and not path.is_dir():
        check_path(path, force)
    if not yes and is_asked():
        given = ask(given, out)
    elif not yes:
        missing = [f"{option}: expected {what}, got none" for option, value, what in required(given) if value is None]
        if missing:
            raise InputError([*missing, "there is no terminal to ask on; --yes takes what is usual"])
    description = given.description()
    target = path if path and not path.is_dir() else (path or Path()) / f"{description.name}{SUFFIXES[0]}"
    write(target, fleet_text(description), force)
    say_next(out, target)


def is_asked() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def required(given: Answers) -> list[tuple[str, object, str]]:
    """Options without which nothing is written unasked: their values, and what they should be."""
    return [("--controller", given.controller, "a host"), ("--engine", given.engines, "HOST=N once or more")]


def as_tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    """Values of an option; None when it was not given."""
    return tuple(values) if values else None


def name_in(path: Path | None) -> str | None:
    """The fleet's name that a path suggests."""
    name = path.name if path else ""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), None)


def check_path(path: Path, force: bool) -> None:
    """See that a fleet file can be written there.

    :raises InputError: when it cannot.
    """
    if not path.name.endswith(SUFFIXES):
        raise InputError([f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}, got {path.name}"])
    if not path.absolute().parent.is_dir():
        raise InputError([f"{path}: expected its folder to be there, got no {path.parent}"])
    if path.exists() and not force:
        raise InputError([f"{path}: expected a new file, got one that is there; --force overwrites it"])


def split_slots(text: str) -> tuple[str, int | str]:
    """A host and its number of slots, from ``HOST=N``.

    :raises InputError: when the number is none.
    """
    host, sign, slots = text.rpartition("=")
    if not sign:
        return text, "auto"
    if slots != "auto" and not slots.isdecimal():
        raise InputError([f"--engine {text}: expected a number of engines after =, or `auto`, got {slots!r}"])
    return host, slots if slots == "auto" else int(slots)


def write(path: Path, text: str, force: bool) -> None:
    """Write a fleet file, once what it says has been understood; nothing is left when it is not.

    :raises InputError: with everything that is wrong with it.
    """
    check_path(path, force)
    with tempfile.TemporaryDirectory(prefix="ipyfleet-") as folder:
        trial = Path(folder) / path.name
        trial.write_text(text, encoding="utf-8")
        try:
            Cluster(trial).inventory().check_ok()
        except InputError as error:
            raise InputError([problem.replace(f"{folder}{os.sep}", "") for problem in error.problems]) from error
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError([f"{path}: expected a file that can be written, got: {error.strerror}"]) from error


def ask(given: Answers, out: Console) -> Answers:
    """Ask for what was not said; an empty answer takes what is usual."""
    out.print("A host is a name or address, or user@host; several are separated by spaces, and may be ranges such as node[01:08].\n")
    if given.name is None:
        given = replace(given, name=typer.prompt("Name of the fleet", NAME))
    if given.controller is None:
        given = replace(given, controller=typer.prompt("Host of the controller", LOCAL))
    if given.engines is None:
        hosts = typer.prompt("Hosts of engines", given.controller).split()
        slots = typer.prompt("Engines on each, a number or auto", "auto")
        given = replace(given, engines=tuple(host if "=" in host else f"{host}={slots}" for host in hosts))
    if given.clients is None:
        given = replace(given, clients=tuple(typer.prompt("Hosts of clients", given.controller).split()))
    if given.postgresql is None:
        given = replace(given, postgresql=typer.prompt("Host of a PostgreSQL database (empty: none)", "", show_default=False))
    if given.jupyterlab is None:
        given = replace(given, jupyterlab=typer.prompt("Host of JupyterLab (empty: none)", "", show_default=False))
    usual = given.completed()
    if given.scope is None:
        given = replace(given, scope=typer.prompt("Scope: system (sudo and systemd) or user (a login)", usual.scope))
    if given.user is None and given.scope == "system":
        given = replace(given, user=typer.prompt("User who logs in (empty: whom ssh takes)", "", show_default=False))
    return given


def say_next(out: Console, path: Path) -> None:
    """Say what was written, and how to go on."""
    word = shlex.quote(str(path))
    lines = [
        f"Wrote {path}. Look it over, it explains itself; then",
        "",
        f"    ipyfleet inventory -i {word}    # what was understood",
        f"    ipyfleet validate -i {word}     # whether the hosts are as they have to be; nothing is changed",
        f"    ipyfleet up -i {word}           # bring it up",
    ]
    out.print("\n".join(lines), markup=False)
