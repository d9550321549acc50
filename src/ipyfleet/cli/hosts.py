"""Commands about single hosts: what the inventory says of them, a shell, a command on all."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer
from rich.table import Table

from ipyfleet.cli import show
from ipyfleet.cli.state import (
    ExtraOption,
    FleetOption,
    JsonOption,
    LimitOption,
    SshOption,
    SudoOption,
    VaultOption,
    VerboseOption,
    hosts,
    state_of,
)
from ipyfleet.cli.verbs import carry_out, cluster_of
from ipyfleet.errors import InputError
from ipyfleet.results import Result
from ipyfleet.sources import chosen
from ipyfleet.ssh import ssh_command


def inventory(
    context: typer.Context,
    inventory: FleetOption = None,
    json: JsonOption = False,
    extra_vars: ExtraOption = None,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Show what was understood of the fleet file."""
    result = cluster_of(context, chosen(inventory), extra_vars, ask=(False, False, ask_vault_pass)).inventory()
    out = state_of(context).out
    if json:
        out.file.write(as_json(result))
        raise typer.Exit(result.exit_code)
    if not result.ok or result.fleet is None:
        show.as_text(out, result)
        raise typer.Exit(result.exit_code)
    fleet = result.fleet
    ports = f"{fleet.first_port} to {fleet.last_port}"
    out.print(f"fleet {fleet.name}, scope {fleet.scope}, controller {fleet.controller} at {fleet.location}, ports {ports}", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("host", "roles", "slots", "address", "user", "packages"):
        table.add_column(name, justify="right" if name == "slots" else "left")
    for each in result.data["hosts"]:
        reach = each["reach"]
        over = reach.get("connection", "ssh")
        address = str(reach.get("host", each["name"])) if over == "ssh" else over
        roles = " ".join(role.removeprefix("ipp_") for role in each["roles"])
        slots = str(each["slots"]) if "ipp_engine" in each["roles"] else "-"
        table.add_row(each["name"], roles, slots, address, str(reach.get("user", "-")), " ".join(each["packages"]) or "-")
    out.print(table)


def as_json(result: Result) -> str:
    """The inventory's part of a result, beside what every result has."""
    import json

    return json.dumps({**result.to_dict(), "inventory": result.data.get("hosts", [])}, indent=2) + "\n"


def ssh(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="A host of the fleet.", autocompletion=hosts)],
    inventory: FleetOption = None,
    extra_vars: ExtraOption = None,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Open a shell on a host, or run a command there: ipyfleet ssh HOST -- COMMAND."""
    state = state_of(context)
    command, state.rest = state.rest, []
    result = cluster_of(context, chosen(inventory), extra_vars, ask=(False, False, ask_vault_pass)).inventory().check_ok()
    known = {each["name"]: each["reach"] for each in result.data["hosts"]}
    if host not in known:
        raise InputError([f"{host}: expected a host of the fleet, got none of that name; it has {', '.join(known)}"])
    if known[host].get("connection", "ssh") != "ssh":
        raise InputError([f"{host}: expected a host that is reached by ssh, got one by {known[host]['connection']}"])
    words = [*ssh_command(host, known[host]), *command]
    os.execvp(words[0], words)


def execute(
    context: typer.Context,
    inventory: FleetOption = None,
    limit: LimitOption = "",
    become: Annotated[bool, typer.Option("--become", "-b", help="As root.")] = False,
    json: JsonOption = False,
    verbose: VerboseOption = 0,
    extra_vars: ExtraOption = None,
    ask_become_pass: SudoOption = False,
    ask_pass: SshOption = False,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Run a command on every host: ipyfleet exec -- COMMAND."""
    state = state_of(context)
    command, state.rest = state.rest, []
    if not command:
        raise InputError(["exec: expected a command after --, got none; for example: ipyfleet exec -- uptime"])
    cluster = cluster_of(context, chosen(inventory), extra_vars, verbose, (ask_become_pass, ask_pass, ask_vault_pass))

    def call() -> Result:
        result = cluster.execute(command[0] if len(command) == 1 else shlex.join(command), limit=limit, become=become)
        for line in () if json else result.logs:
            state.out.print(f"{line.host}: {line.text}", markup=False)
        return result

    carry_out(context, cluster, "exec", call, json, verbose)
