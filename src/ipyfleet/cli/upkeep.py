"""Commands for those who look after a fleet."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ipyfleet.cli import verbs
from ipyfleet.cli.state import (
    CheckOption,
    ExtraOption,
    FleetOption,
    JsonOption,
    LimitOption,
    SshOption,
    SudoOption,
    VaultOption,
    VerboseOption,
    state_of,
)
from ipyfleet.errors import InputError
from ipyfleet.results import Result
from ipyfleet.sources import chosen


def bundle(
    context: typer.Context,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The archive, for nobody else to read.")] = "",
    inventory: FleetOption = None,
    limit: LimitOption = "",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="At most so many of each service's log.")] = 500,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Write an archive for a bug report, without secrets."""
    cluster = verbs.cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))

    def call() -> Result:
        result = cluster.bundle(output, lines=lines, limit=limit, check=check)
        if result.path and not json:
            state_of(context).out.print(f"{result.path}: look through it before it goes to others", markup=False)
        return result

    verbs.carry_out(context, cluster, "bundle", call, json, verbose)


def rotate(
    context: typer.Context,
    what: Annotated[list[str], typer.Option("--what", "-w", metavar="WHAT", help="hub-key, certificates, passwords, or all.")],
    inventory: FleetOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Make new keys, certificates or passwords, and bring them to every host."""
    words = [each for given in what for each in given.split(",")]
    sources = chosen(inventory)
    if {"hub-key", "all"} & set(words) and not (yes or check):
        if not sys.stdin.isatty():
            raise InputError(["rotate: expected --yes, or a terminal to ask on, got neither"])
        typer.confirm("With a new hub key, engines are started anew and lose their memory. Go on?", abort=True)
    cluster = verbs.cluster_of(context, sources, extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    verbs.carry_out(context, cluster, "rotate", lambda: cluster.rotate(words, check=check), json, verbose)


def sync(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="What is in it can be imported on all hosts.")],
    inventory: FleetOption = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="Leave these out, too.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start engines anew; they lose their memory.")] = False,
    limit: LimitOption = "",
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Bring a folder of your own code to all engines."""
    cluster = verbs.cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))

    def call() -> Result:
        result = cluster.sync(folder, exclude=exclude or (), restart=restart, limit=limit, check=check)
        if result.ok and result.changed and not (json or check or restart):
            state_of(context).out.print("engines that run import it when they are started again, or reload it", markup=False)
        return result

    verbs.carry_out(context, cluster, "sync", call, json, verbose)
