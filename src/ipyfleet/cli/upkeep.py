"""Commands for those who look after a fleet."""

from __future__ import annotations

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
