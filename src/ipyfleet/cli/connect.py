"""The command that brings a fleet's JupyterLab, controller and database to this machine."""

from __future__ import annotations

import contextlib
import json as json_module
import shlex
import time
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ipyfleet import ssh
from ipyfleet.access import NOTEBOOK, Access
from ipyfleet.cli.state import (
    ExtraOption,
    FleetOption,
    State,
    VaultOption,
    is_terminal,
    state_of,
)
from ipyfleet.cli.verbs import cluster_of
from ipyfleet.cluster import Cluster
from ipyfleet.connect import Connection, Wish, plan, reach_of
from ipyfleet.errors import ClientError, InputError
from ipyfleet.results import EXIT_CODES, SCHEMA
from ipyfleet.sources import chosen, fleet_files


def connect(
    context: typer.Context,
    fleet: Annotated[
        list[str] | None, typer.Argument(metavar="FLEET", help="Fleet file; the same as -i.", autocompletion=fleet_files)
    ] = None,
    inventory: FleetOption = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=0, max=65535, help="Of this machine, for JupyterLab; 0 for any that is free.")
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open JupyterLab in the browser.")] = False,
    user: Annotated[str, typer.Option("--user", "-u", metavar="NAME", help="Who logs in, such as the account for tunnels.")] = "",
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="The private key of who logs in; no other is offered.")
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Only print the address, and the ssh command that leads there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the address alone.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object when it is connected, and nothing else.")] = False,
    extra_vars: ExtraOption = None,
    ask_vault_pass: VaultOption = False,
) -> None:
    """Reach JupyterLab, the controller and the database from this machine, until Ctrl-C."""
    if fleet and inventory:
        raise InputError(["connect: expected a fleet file, or -i, got both"])
    state = state_of(context)
    cluster = cluster_of(context, chosen(fleet or inventory), extra_vars, ask=(False, False, ask_vault_pass))
    wish = Wish(port, user, str(identity.expanduser().absolute()) if identity else "")
    try:
        if only_print:
            print_way(state, cluster.access(), wish, json)
            return
        connection = opened(state, cluster, wish, quiet or json)
    except KeyboardInterrupt:
        state.err.print("cancelled")
        raise typer.Exit(EXIT_CODES["cancelled"]) from None
    except ClientError as error:
        if not json:
            raise
        print_json(state, {"ok": False, "message": str(error)})
        raise typer.Exit(1) from None
    try:
        with connection:
            print_connection(state, connection, quiet, json)
            if browser:
                open_browser(state, connection)
            # on this machine, what is in the profile stays there without us
            if not connection.profile or browser:
                connection.wait()
    except KeyboardInterrupt:
        if not (quiet or json):
            state.err.print("disconnected")


def opened(state: State, cluster: Cluster, wish: Wish, silent: bool) -> Connection:
    """Connect, and say what happens meanwhile, and later on."""

    def say(text: str) -> None:
        if not silent:
            state.err.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False)

    with state.err.status("connecting") if is_terminal() and not silent else contextlib.nullcontext():
        return cluster.connect(port=wish.port, user=wish.user, identity=wish.identity, on_news=say)


def print_connection(state: State, connection: Connection, quiet: bool, json: bool) -> None:
    """Say what is where, with lines to paste."""
    if json:
        print_json(state, as_dict(connection))
        return
    if quiet:
        state.out.print(connection.url or str(connection.client_file), markup=False)
    else:
        state.out.print("\n".join(lines_of(connection)), markup=False)
    for note in connection.notes:
        state.err.print(Text(f"warning: {note}", "yellow"))


def lines_of(connection: Connection) -> list[str]:
    """What is where, with lines to paste."""
    lines = [f"JupyterLab of fleet {connection.fleet}:", "", f"    {connection.url}", ""] if connection.url else []
    target = f"profile={json_module.dumps(connection.profile)}" if connection.profile else json_module.dumps(str(connection.client_file))
    lines += [
        "A client, in Python on this machine:",
        "",
        "    import ipyparallel as ipp",
        f"    c = ipp.Client({target})",
        "    c.ids",
        '    c[:].apply_sync(lambda: "Hello, World")',
        "",
    ]
    if connection.dsn and connection.profile:
        lines += ["The database, in a shell, for Python that is started there:", ""]
        lines += [f"    . ~/.config/ipyfleet/{connection.fleet}/database.sh", ""]
    elif connection.dsn:
        lines += ["The database, in Python on this machine:", ""]
        lines += ["    import os, sqlalchemy"]
        lines += [f"    os.environ.update({json_module.dumps(connection.environment)})"]
        lines += ['    engine = sqlalchemy.create_engine("postgresql+psycopg2://")', ""]
        lines += ["or in a shell:", "", f"    psql {shlex.quote(connection.dsn)}", ""]
    if connection.profile:
        return [*lines, f"All of it is on this machine, {connection.host}; there is nothing to keep open."]
    way = f"goes through one ssh to {connection.host}" if connection.over_ssh else "is on this machine; the files are there"
    return [*lines, f"All of it {way} until Ctrl-C."]


def as_dict(connection: Connection) -> dict[str, Any]:
    """A connection as plain data."""
    return {
        "ok": True,
        "message": "",
        "fleet": connection.fleet,
        "host": connection.host,
        "way": "ssh" if connection.over_ssh else "direct",
        "url": connection.url,
        "token": connection.token,
        "profile": connection.profile,
        "client_file": "" if connection.profile else str(connection.client_file),
        "dsn": "" if connection.profile else connection.dsn,
        "environment": {} if connection.profile else connection.environment,
        "ports": connection.ports,
        "notes": list(connection.notes),
    }


def print_way(state: State, access: Access, wish: Wish, json: bool) -> None:
    """Say where JupyterLab will be, and which ssh command leads there, for whoever has nothing but ssh."""
    forwards = plan(access, wish)
    here = next((each.here for each in forwards if each.name == NOTEBOOK), None)
    url = f"http://127.0.0.1:{here}/lab?token={access.token}" if here else ""
    reach = reach_of(access, wish)
    tunnel = access.way.tunnel_user
    command = shlex.join(ssh.plain_command(access.way.host, reach, forwards)) if access.way.over_ssh else ""
    # with a key of those people, wherever it is
    others = {**reach, "user": tunnel, "ssh_private_key_file": ""}
    for_others = shlex.join(ssh.plain_command(access.way.host, others, forwards)) if command and tunnel and not wish.user else ""
    if json:
        print_json(state, {"ok": True, "message": "", "url": url, "token": access.token, "command": command, "tunnel_command": for_others})
        return
    lines = [line for line in (url, command) if line]
    lines += ["", f"or, as {tunnel}, who may do nothing else:", for_others] if for_others else []
    state.out.print("\n".join(lines), markup=False)


def open_browser(state: State, connection: Connection) -> None:
    """Have the browser go to JupyterLab; the token is in a file, so that it is in no list of processes."""
    if not connection.url:
        state.err.print("the fleet has no JupyterLab to open")
    elif not webbrowser.open(connection.redirect().as_uri()):
        state.err.print("no browser was found on this machine; open the address above")


def print_json(state: State, data: dict[str, Any]) -> None:
    """Print an object for programs, on one line: they may wait for it while we stay."""
    state.out.file.write(json_module.dumps({"schema": SCHEMA, "verb": "connect", **data}) + "\n")
    state.out.file.flush()
