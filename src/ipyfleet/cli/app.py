"""The command line as a whole."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from ipyfleet.cli import connect, database, day_two, hosts, importing, init, lab, upkeep, verbs
from ipyfleet.cli.state import State
from ipyfleet.errors import InputError, IpyfleetError, RunError

app = typer.Typer(
    name="ipyfleet",
    help="Turn a list of Linux hosts into a verified ipyparallel cluster.",
    epilog="Words after -- go to ansible-playbook. Exit codes: 0 all there, 1 failed, 2 bad input, 3 partly there, 130 cancelled.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version.", callback=lambda on: say_version(on))
    ] = False,
) -> None:
    """What all commands have in common."""


def say_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        import ipyfleet

        typer.echo(f"ipyfleet {ipyfleet.__version__}")
        raise typer.Exit


app.command()(verbs.up)
app.command()(verbs.verify)
app.command("status")(verbs.simple("status", "Show how each slot's service does, and whether the controller lists its engine.", False))
app.command()(verbs.doctor)
app.command("validate")(verbs.simple("validate", "Check the fleet file and every host, and change nothing.", False))
app.command("start")(verbs.simple("start", "Start the services that do not run.", True))
app.command("stop")(verbs.simple("stop", "Stop the services until they are started again, or their host boots.", True))
app.command("restart")(verbs.simple("restart", "Restart the services; engines lose their memory.", True))
app.command()(verbs.signal)
app.command()(day_two.drain)
app.command()(day_two.scale)
app.command()(day_two.upgrade)
app.command()(connect.connect)
app.command()(verbs.logs)
app.command()(upkeep.bundle)
app.command()(upkeep.rotate)
app.command()(upkeep.sync)
app.command()(verbs.teardown)
app.command()(verbs.run)
app.command("backup")(database.simple("backup", "Back up the fleet's databases now, as the timer on their host does by itself."))
app.command("backups")(database.simple("backups", "Show what backups there are, and which are proven."))
app.command("drill")(database.simple("drill", "Prove the newest backup: restore it into a server that is thrown away, and compare."))
app.command()(database.restore)
app.command()(hosts.inventory)
app.command()(hosts.ssh)
app.command("exec")(hosts.execute)
app.command()(init.init)
app.command("import")(importing.import_config)
app.add_typer(lab.app, name="lab")


def main(argv: list[str] | None = None) -> None:
    """Carry out a command line.

    :param argv: its words; the process's own when None.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    cut = words.index("--") if "--" in words else len(words)
    state = State(rest=words[cut + 1 :])
    for number in (signal.SIGTERM, signal.SIGHUP):
        # ended from outside: Ansible and its secrets go first, as with Ctrl-C
        signal.signal(number, signal.default_int_handler)
    try:
        app(args=words[:cut], obj=state)
    except InputError as error:
        say(state, error)
        raise SystemExit(2) from None
    except RunError as error:
        say(state, error)
        raise SystemExit(error.result.exit_code) from None
    except IpyfleetError as error:
        say(state, error)
        raise SystemExit(1) from None


def say(state: State, error: IpyfleetError) -> None:
    """Print what is wrong, a line each."""
    for line in str(error).splitlines():
        state.err.print(f"ipyfleet: {line}", markup=False, style="red")
