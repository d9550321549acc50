"""The commands `ipyfleet lab`: a fleet in containers on this machine, for trying."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ipyfleet.cli.state import JsonOption, VerboseOption, is_terminal, state_of
from ipyfleet.cli.verbs import carry_out, cluster_of
from ipyfleet.lab import Lab, LabStatus
from ipyfleet.lab.engine import Say
from ipyfleet.lab.fleet import ENGINES, SLOTS
from ipyfleet.lab.image import RELEASE, RELEASES
from ipyfleet.results import SCHEMA, Result

app = typer.Typer(
    help="Try a fleet of several hosts on this machine: in containers of podman or docker, thrown away when done.", no_args_is_help=True
)

NameOption = Annotated[str, typer.Option("--name", metavar="NAME", help="Tells several labs apart.")]


@app.command()
def up(
    context: typer.Context,
    engines: Annotated[int | None, typer.Option(metavar="N", help=f"Number of engine hosts.  [default: {ENGINES}]")] = None,
    slots: Annotated[int | None, typer.Option(metavar="N", help=f"Number of engines on each.  [default: {SLOTS}]")] = None,
    release: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Debian on the hosts: {' or '.join(RELEASES)}.  [default: {RELEASE}]")
    ] = None,
    name: NameOption = "lab",
    json: JsonOption = False,
    verbose: VerboseOption = 0,
) -> None:
    """Start the hosts and deploy a fleet to them. A second call changes nothing."""
    state = state_of(context)
    lab = Lab(name)
    with _saying(state.err if json else state.out) as say:
        hosts = lab.start(engines=engines, slots=slots, release=release, say=say)
    cluster = cluster_of(context, [str(lab.fleet_file)], None, verbose)

    def call() -> Result:
        result = cluster.up()
        if result.ok and not result.changed and not any(host.started for host in hosts.values()) and not json:
            state.out.print(f"lab {name} was up already; nothing was changed", markup=False)
        return result

    try:
        carry_out(context, cluster, "up", call, json, verbose, after=True)
    finally:
        if not json:
            _remind(state.out, name)


@app.command()
def status(context: typer.Context, name: NameOption = "lab", json: JsonOption = False, verbose: VerboseOption = 0) -> None:
    """Show the lab's hosts, and how its engines do."""
    state = state_of(context)
    found = Lab(name).status()
    if found is None:
        if json:
            _print_json(state.out, {"schema": SCHEMA, "ok": False, "lab": None})
        else:
            state.out.print(f"there is no lab {name}; ipyfleet lab up{_option(name)} makes one", markup=False)
        raise typer.Exit(1)
    if not found.ok or not found.fleet_file.exists():
        if json:
            _print_json(state.out, {"schema": SCHEMA, "ok": False, "lab": _as_dict(found)})
        else:
            _print_hosts(state.out, found)
            state.out.print(Text(f"lab {name} is not up as a whole; ipyfleet lab up{_option(name)} brings it back", "yellow"))
        raise typer.Exit(3 if any(host.ok for host in found.hosts) else 1)
    cluster = cluster_of(context, [str(found.fleet_file)], None, verbose)
    if json:
        result = cluster.status()
        _print_json(state.out, {**result.to_dict(), "lab": _as_dict(found)})
        raise typer.Exit(result.exit_code)
    _print_hosts(state.out, found)
    carry_out(context, cluster, "status", cluster.status, json, verbose)


@app.command()
def down(
    context: typer.Context,
    name: NameOption = "lab",
    images: Annotated[bool, typer.Option("--images", help="The images of hosts, too; making them takes a minute.")] = False,
) -> None:
    """Remove the lab's hosts, their network, and all that is kept about them."""
    state = state_of(context)
    lab = Lab(name)
    there = lab.folder.exists()
    with _saying(state.out) as say:
        say(f"removing lab {name}")
        gone = lab.down(images=images)
    if gone or there:
        hosts = f"hosts {', '.join(gone)}" if gone else "no hosts were left"
        state.out.print(f"lab {name} is gone: {hosts}, network {lab.prefix}, folder {lab.folder}", markup=False)
    else:
        state.out.print(f"there was no lab {name}", markup=False)


@contextmanager
def _saying(console: Console) -> Iterator[Say]:
    """Show what takes its time: with a spinner on a terminal, else a line each."""
    if not is_terminal():
        yield lambda text: console.print(text, markup=False)
        return
    with console.status("looking for podman or docker") as shown:
        yield lambda text: shown.update(Text(text))


def _option(name: str) -> str:
    return "" if name == "lab" else f" --name {name}"


def _remind(console: Console, name: str) -> None:
    """Say how to get rid of a lab."""
    console.print(f"\nWhen done: ipyfleet lab down{_option(name)}", markup=False)


def _print_hosts(console: Console, found: LabStatus) -> None:
    """Print a lab's hosts."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("host", "container", "state", "Debian"):
        table.add_column(heading)
    for host in found.hosts:
        table.add_row(host.name, host.container, Text(host.state, "green" if host.ok else "red"), found.release)
    console.print(table)
    console.print(f"{found.engine}; fleet file {found.fleet_file}", markup=False)


def _as_dict(found: LabStatus) -> dict[str, Any]:
    """A lab as plain data, for JSON."""
    return {
        "name": found.name,
        "engine": found.engine,
        "release": found.release,
        "fleet_file": str(found.fleet_file),
        "hosts": [{"name": host.name, "container": host.container, "state": host.state} for host in found.hosts],
    }


def _print_json(console: Console, data: dict[str, Any]) -> None:
    console.file.write(json_module.dumps(data, indent=2) + "\n")
