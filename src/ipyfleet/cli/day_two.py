"""The verbs that change a fleet at work."""

from __future__ import annotations

from typing import Annotated

import typer

from ipyfleet.cli.state import (
    CheckOption,
    ExtraOption,
    FleetOption,
    JsonOption,
    LimitOption,
    ServiceOption,
    SshOption,
    SudoOption,
    VaultOption,
    VerboseOption,
)
from ipyfleet.cli.verbs import carry_out, cluster_of
from ipyfleet.day_two import DRAIN_SECONDS
from ipyfleet.errors import InputError
from ipyfleet.sources import chosen

TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long engines have to get done.")]
NowOption = Annotated[bool, typer.Option("--now", help="Do not wait for what engines do.")]


def drain(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    service: ServiceOption = None,
    slots: Annotated[str, typer.Option("--slots", metavar="NAMES", help="The same, several at once: node1/0,node1/1.")] = "",
    timeout: TimeoutOption = DRAIN_SECONDS,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Give engines no new work, wait until they have nothing to do, and stop them."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    services = [*(service or ()), *(each for each in slots.split(",") if each.strip())]
    carry_out(context, cluster, "drain", lambda: cluster.drain(services=services, timeout=timeout, limit=limit, check=check), json, verbose)


def scale(
    context: typer.Context,
    slots: Annotated[
        list[str],
        typer.Argument(metavar="HOST=SLOTS ...", help="A number, 0 to take the host out, +1, -1, or auto."),
    ],
    inventory: FleetOption = None,
    now: Annotated[
        bool, typer.Option("--now", help="Do not wait for engines that go; leave hosts that go and are not reached as they are.")
    ] = False,
    timeout: TimeoutOption = DRAIN_SECONDS,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Change numbers of slots, in the fleet file and on the hosts that are meant."""
    wanted = wanted_of(slots)
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(context, cluster, "scale", lambda: cluster.scale(wanted, now=now, timeout=timeout, check=check), json, verbose)


def wanted_of(words: list[str]) -> dict[str, int | str]:
    """Numbers of slots by host, from words such as ``node1=4``.

    :raises InputError: when one is of another form, or names a host again.
    """
    found: dict[str, int | str] = {}
    wrong = []
    for word in words:
        host, equals, value = word.partition("=")
        if not (host and equals and value):
            wrong.append(f"scale: expected HOST=SLOTS, such as node1=4, got {word!r}")
        elif host in found:
            wrong.append(f"scale: expected each host once, got {host} twice")
        found[host] = value
    if wrong:
        raise InputError(wrong)
    return found


def upgrade(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Engine hosts at a time.")] = 1,
    now: NowOption = False,
    timeout: TimeoutOption = DRAIN_SECONDS,
    check: CheckOption = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Bring other packages, or a new ipyfleet's, to the hosts one after another."""
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))
    carry_out(
        context, cluster, "upgrade", lambda: cluster.upgrade(batch=batch, now=now, timeout=timeout, limit=limit, check=check), json, verbose
    )
