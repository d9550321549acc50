"""Results for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ipyfleet.results import Backup, Result, Slot

COLOURS = {"ok": "green", "partial": "yellow", "refused": "red", "failed": "red", "cancelled": "yellow"}


def as_json(console: Console, result: Result) -> None:
    """Print a result as JSON."""
    console.file.write(json.dumps(result.to_dict(), indent=2) + "\n")


def as_text(console: Console, result: Result) -> None:
    """Print a result: its outcome last, where it is seen."""
    if any(change.diff for host in result.hosts for change in host.changes):
        print_diffs(console, result)
    for line in result.edited.splitlines():
        console.print(Text(line, {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")))
    changes(console, result)
    if result.slots:
        console.print(slot_table(result.slots, result.verb in ("status", "doctor")))
    if result.database:
        console.print(result.database.message, markup=False)
    if result.jupyterlab and result.jupyterlab.ok:
        console.print(result.jupyterlab.message, markup=False)
    if result.backups:
        console.print(backup_table(result.backups))
    if result.restored:
        console.print(result.restored.message, markup=False)
    for warning in result.warnings:
        console.print(Text(f"warning: {warning}", "yellow"))
    fixed(console, result)
    for failure in result.failures:
        console.print(Text(str(failure), "red"))
    for guest in result.guests:
        console.print(guest.message, markup=False)
    if result.client and result.client.ok:
        way = "straight" if result.client.way == "direct" else "through ssh"
        console.print(f"a client on this machine reached {len(result.client.answered)} engines {way}")
    console.print(Text(result.headline(), COLOURS[result.status]))


def fixed(console: Console, result: Result) -> None:
    """Print what a doctor has mended."""
    for finding in result.findings:
        if finding.fixed:
            console.print(Text(str(finding), "green"))


def changes(console: Console, result: Result) -> None:
    """Print what was changed on each host, or would be."""
    for host in result.hosts:
        if not host.changes:
            continue
        console.print(f"{host.name}: {'would change' if result.check else 'changed'}", markup=False)
        shown = host.changes if result.check else host.changes[:10]
        for change in shown:
            console.print(f"  {change.what}: {change.path}", markup=False)
        if len(host.changes) > len(shown):
            console.print(f"  and {len(host.changes) - len(shown)} more")


def print_diffs(console: Console, result: Result) -> None:
    """Print the differences of files."""
    for host in result.hosts:
        for change in host.changes:
            for line in change.diff.splitlines():
                colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
                console.print(Text(line, colour))


def slot_table(slots: Sequence[Slot], services: bool) -> Table:
    """Slots with what is known of them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    middle = ("service", "restarts") if services else ("pid", "Python", "ms")
    for name in ("id", "host", "slot", "state", *middle):
        table.add_column(name, justify="right" if name in ("id", "slot", "pid", "ms", "restarts") else "left")
    for slot in slots:
        known = (slot.service, slot.restarts) if services else (slot.pid, slot.python, slot.ms)
        state = Text(slot.state, "green" if slot.ok else "red")
        table.add_row(str(slot.id), slot.host, str(slot.number), state, *("-" if each is None else str(each) for each in known))
    return table


def backup_table(backups: Sequence[Backup]) -> Table:
    """Backups, and what is known of them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("backup", "age", "size", "rows", "databases", "proven"):
        table.add_column(name, justify="right" if name in ("age", "size", "rows") else "left", no_wrap=name != "databases")
    for each in backups:
        proven = Text(each.proven, "green") if each.proven else Text("failed", "red") if each.reason else Text("not yet", "yellow")
        age = str(timedelta(seconds=each.age))
        table.add_row(each.name, age, decimal(each.size), str(each.rows), Text(", ".join(each.databases)), proven)
    return table


def next_steps(console: Console, result: Result, sources: Sequence[str]) -> None:
    """Say how to use the fleet that was brought up."""
    fleet = result.fleet
    if fleet is None or not result.slots:
        return
    given = [str(Path(source)) for source in sources]
    argument = repr(given[0]) if len(given) == 1 else repr(given)
    lines = [
        "",
        "Use it from Python on this machine:",
        "",
        "    from ipyfleet import Cluster",
        f"    rc = Cluster({argument}).client()",
        '    rc[:].apply_sync(lambda: "Hello, World")',
    ]
    if fleet.clients:
        where = f"/opt/ipyfleet/{fleet.name}/env" if fleet.scope == "system" else f"~/.local/share/ipyfleet/{fleet.name}/env"
        lines += [
            "",
            f"or on {', '.join(fleet.clients)}, in {where}/bin/ipython:",
            "",
            "    import ipyparallel as ipp",
            f'    rc = ipp.Client(profile="{fleet.name}")',
        ]
    options = "".join(f" -i {source}" for source in given)
    lines += ["", f"Next: ipyfleet connect{options}, ipyfleet status{options}, ipyfleet logs{options}, ipyfleet --help"]
    console.print("\n".join(lines), markup=False)
