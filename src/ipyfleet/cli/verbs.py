"""The verbs that are playbooks."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from ipyfleet.cli import show, stream
from ipyfleet.cli.progress import Board, Lines
from ipyfleet.cli.state import (
    CheckOption,
    DiffOption,
    ExtraOption,
    FleetOption,
    JsonOption,
    LimitOption,
    ServiceOption,
    SshOption,
    State,
    SudoOption,
    VaultOption,
    VerboseOption,
    is_terminal,
    state_of,
    variables_of,
)
from ipyfleet.cluster import Cluster
from ipyfleet.errors import InputError
from ipyfleet.results import EXIT_CODES, Result
from ipyfleet.sources import chosen


def cluster_of(
    context: typer.Context,
    sources: Sequence[str],
    extra: Sequence[str] | None,
    verbose: int = 0,
    ask: tuple[bool, bool, bool] = (False, False, False),
) -> Cluster:
    """The fleet that a command is about.

    :param ask: whether to ask for the passwords of sudo, ssh and the vault.
    """
    variables, words = variables_of(extra)
    secrets = [
        getpass.getpass(f"{what} password: ") if wanted else None for wanted, what in zip(ask, ("sudo", "SSH", "Vault"), strict=True)
    ]
    return Cluster(
        sources,
        variables=variables,
        arguments=[*words, *state_of(context).rest, *(["-" + "v" * verbose] if verbose > 1 else [])],
        become_password=secrets[0],
        ssh_password=secrets[1],
        vault_password=secrets[2],
    )


def carry_out(
    context: typer.Context, cluster: Cluster, verb: str, call: Callable[[], Result], json: bool, verbose: int, after: bool = False
) -> None:
    """Run a verb with progress, print its result, and end with its exit code.

    :param after: whether to say how to go on.
    """
    state = state_of(context)
    with watcher(state, verb, json, verbose) as shown:
        cluster.on_progress = shown if verbose or not json else None
        try:
            result = call()
        except KeyboardInterrupt:
            state.err.print("cancelled; run it again to go on")
            raise typer.Exit(EXIT_CODES["cancelled"]) from None
    if json:
        show.as_json(state.out, result)
    else:
        show.as_text(state.out, result)
        if after and result.ok and not result.check:
            show.next_steps(state.out, result, cluster.sources)
    raise typer.Exit(result.exit_code)


def watcher(state: State, verb: str, json: bool, verbose: int) -> AbstractContextManager[Any]:
    """What shows the progress of a run."""
    if is_terminal() and not json and not verbose:
        return Board(state.out, verb)
    return Lines(state.err if json else state.out, bool(verbose))


def up(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    check: CheckOption = False,
    diff: DiffOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Bring every host about, then run code on every engine."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(context, cluster, "up", lambda: cluster.up(limit=limit, check=check, diff=diff), json, verbose, after=True)


def verify(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    client: Annotated[bool, typer.Option(help="Also as a client on this machine.")] = True,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Prove that the fleet works: run code on every engine."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(context, cluster, "verify", lambda: cluster.verify(client=client, limit=limit), json, verbose)


def teardown(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    data: Annotated[bool, typer.Option("--data", help="What engines wrote to their work folder, too.")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="The fleet's keys on this machine, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Take the fleet away from its hosts."""
    sources = chosen(inventory)
    if not (yes or check):
        if not sys.stdin.isatty():
            raise InputError(["teardown: expected --yes, or a terminal to ask on, got neither"])
        typer.confirm(f"Take the fleet of {', '.join(sources)} away from {limit or 'all of its hosts'}?", abort=True)
    cluster = cluster_of(context, sources, extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(context, cluster, "teardown", lambda: cluster.teardown(data=data, keys=keys, limit=limit, check=check), json, verbose)


def logs(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    service: ServiceOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="At most so many of each service.")] = 20,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="In the words of journalctl, such as -1h.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, as they say it.")] = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Show what the services said, of all hosts together."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    if follow:
        stream.print_stream(state_of(context), cluster.follow, json, lines=lines, since=since, services=service or (), limit=limit)

    def call() -> Result:
        result = cluster.logs(lines=lines, since=since, services=service or (), limit=limit)
        for line in () if json else result.logs:
            state_of(context).out.print(str(line), markup=False)
        return result

    carry_out(context, cluster, "logs", call, json, verbose)


def doctor(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    fix: Annotated[
        bool, typer.Option("--fix", help="Do what is safe about it: services, connection files, the database's certificate.")
    ] = False,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Say why something is not as it should be, and what to do about it."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(context, cluster, "doctor", lambda: cluster.doctor(fix=fix, limit=limit, check=check), json, verbose)


def signal(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="SIGNAL", help="INT, which interrupts the code that engines run, HUP, QUIT, KILL, USR1 ...")
    ],
    inventory: FleetOption = None,
    limit: LimitOption = "",
    service: ServiceOption = None,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Send a signal to engines; what ends by it is started again."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(context, cluster, "signal", lambda: cluster.signal(name, services=service or (), limit=limit, check=check), json, verbose)


def run(
    context: typer.Context,
    playbook: Annotated[str, typer.Argument(help="A playbook of ipyfleet by name, or any other by path.")],
    inventory: FleetOption = None,
    limit: LimitOption = "",
    check: CheckOption = False,
    diff: DiffOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Run a playbook on the fleet's hosts."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(context, cluster, "run", lambda: cluster.run(playbook, limit=limit, check=check, diff=diff), json, verbose)


def simple(verb: str, about: str, checks: bool) -> Callable[..., None]:
    """A command for a verb that has no options of its own.

    :param checks: whether the verb changes something, and so has a check mode; it can be about some of the services.
    """

    def with_check(
        context: typer.Context,
        inventory: FleetOption = None,
        limit: LimitOption = "",
        service: ServiceOption = None,
        check: CheckOption = False,
        json: JsonOption = False,
        verbose: VerboseOption = 0,
        extra_vars: ExtraOption = None,
        ask_become_pass: SudoOption = False,
        ask_pass: SshOption = False,
        ask_vault_pass: VaultOption = False,
    ) -> None:
        cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
        carry_out(context, cluster, verb, lambda: getattr(cluster, verb)(services=service or (), limit=limit, check=check), json, verbose)

    def without_check(
        context: typer.Context,
        inventory: FleetOption = None,
        limit: LimitOption = "",
        json: JsonOption = False,
        verbose: VerboseOption = 0,
        extra_vars: ExtraOption = None,
        ask_become_pass: SudoOption = False,
        ask_pass: SshOption = False,
        ask_vault_pass: VaultOption = False,
    ) -> None:
        cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
        carry_out(context, cluster, verb, lambda: getattr(cluster, verb)(limit=limit), json, verbose)

    found: Callable[..., None] = with_check if checks else without_check
    found.__doc__ = about
    return found
