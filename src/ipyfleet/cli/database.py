"""Commands about the fleet's database: backups, the proof of them, and bringing a database back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ipyfleet.cli.state import CheckOption, ExtraOption, FleetOption, JsonOption, SshOption, SudoOption, VaultOption, VerboseOption
from ipyfleet.cli.verbs import carry_out, cluster_of
from ipyfleet.sources import chosen


def simple(verb: str, about: str) -> Callable[..., None]:
    """A command for a verb that has no options of its own."""

    def command(
        context: typer.Context,
        inventory: FleetOption = None,
        json: JsonOption = False,
        verbose: VerboseOption = 0,
        extra_vars: ExtraOption = None,
        ask_become_pass: SudoOption = False,
        ask_pass: SshOption = False,
        ask_vault_pass: VaultOption = False,
    ) -> None:
        cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
        carry_out(context, cluster, verb, getattr(cluster, verb), json, verbose)

    command.__doc__ = about
    return command


def restore(
    context: typer.Context,
    database: Annotated[str, typer.Argument(metavar="DATABASE", help="The database to bring back.")],
    inventory: FleetOption = None,
    backup: Annotated[str, typer.Option("--backup", "-b", metavar="NAME", help="Which backup; see `ipyfleet backups`.")] = "latest",
    overwrite: Annotated[
        str, typer.Option("--overwrite", metavar="DATABASE", help="The database's name once more, to replace one that is there.")
    ] = "",
    drop_old: Annotated[bool, typer.Option("--drop-old", help="Drop the one that was there; else it is kept under another name.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Run code of the database's users, such as checks, as a superuser.")] = False,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Bring a database back: restored beside, compared, and swapped in one moment."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(
        context,
        cluster,
        "restore",
        lambda: cluster.restore(database, backup=backup, overwrite=overwrite, drop_old=drop_old, trust=trust, check=check),
        json,
        verbose,
    )
