"""The command `ipyfleet import`: a fleet file from an existing ipcluster_config.py."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from ipyfleet.cli.init import check_path, name_in, say_next, split_slots, write
from ipyfleet.cli.state import state_of
from ipyfleet.configuration import Configuration, read_configuration
from ipyfleet.description import fleet_text
from ipyfleet.results import SCHEMA
from ipyfleet.sources import SUFFIXES


def import_config(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="An ipcluster_config.py, or the folder of its profile.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PATH", help="Fleet file to write, or its folder.  [default: NAME.fleet.yml]")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The fleet's name.  [default: the profile's]")] = None,
    controller: Annotated[
        str | None, typer.Option("--controller", metavar="HOST", help="The host of the controller.  [default: this machine]")
    ] = None,
    location: Annotated[
        str | None, typer.Option("--location", metavar="NAME", help="Name or address by which engines reach the controller.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", metavar="HOST[=N]", help="An engine host that the file does not name; more than once.")
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Who logs in to the hosts.")] = None,
    scope: Annotated[str | None, typer.Option("--scope", metavar="SCOPE", help="`system` (sudo and systemd) or `user` (a login).")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing, and end with 1, if something is not carried over.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite the fleet file, if there is one.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what became of each setting as JSON, and nothing else.")] = False,
) -> None:
    """Write a fleet file from an ipcluster_config.py, which is read and never run; say what could not be carried over."""
    out = state_of(context).out
    if output is not None and not output.is_dir():
        check_path(output, force)
    found = read_configuration(path, wishes(name or name_in(output), controller, location, engine or [], user, scope))
    target = output if output and not output.is_dir() else (output or Path()) / f"{found.description.name}{SUFFIXES[0]}"
    refused = strict and bool(found.left)
    if not refused:
        write(target, fleet_text(found.description), force)
    if json:
        out.file.write(json_.dumps({"schema": SCHEMA, "written": None if refused else str(target), **found.to_dict()}, indent=2) + "\n")
    else:
        out.print(told(found), markup=False)
        if refused:
            out.print("Nothing was written.")
        else:
            say_next(out, target)
    raise typer.Exit(int(refused))


def wishes(
    name: str | None, controller: str | None, location: str | None, engines: list[str], user: str | None, scope: str | None
) -> dict[str, Any]:
    """Options as keys of a fleet file.

    :raises InputError: when a number of engines is none.
    """
    address = {key: value for key, value in (("host", controller), ("location", location)) if value}
    wanted = {
        "name": name,
        "scope": scope,
        "controller": address,
        "engines": dict(split_slots(each) for each in engines),
        "defaults": {"ansible_user": user} if user else {},
    }
    return {key: value for key, value in wanted.items() if value}


def told(found: Configuration) -> str:
    """What became of each setting, as text."""
    parts = [("Carried over:", found.carried), ("Not carried over:", found.left)]
    return "\n".join(line for title, notes in parts if notes for line in [title, *(f"  {each}" for each in notes), ""])
