"""Progress of a run: a table that lives on a terminal, sober lines on a pipe."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ipyfleet.events import Progress
from ipyfleet.results import Outcome

COLOURS: dict[Outcome, str] = {"ok": "green", "changed": "yellow", "failed": "red", "unreachable": "red", "missing": "red"}
WORST: tuple[Outcome, ...] = ("missing", "unreachable", "failed", "changed", "ok")


class Lines:
    """Says what happens in a line each: tasks as they begin, hosts that something happened to.

    :param verbose: whether to show Ansible's own output instead.
    """

    def __init__(self, console: Console, verbose: bool) -> None:
        self.console = console
        self.verbose = verbose

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def __call__(self, progress: Progress) -> None:
        """Show something that has happened."""
        if self.verbose:
            if progress.kind == "text":
                self.console.print(progress.message, markup=False)
        elif progress.kind == "task":
            self.console.print(progress.task, markup=False)
        elif progress.kind == "host" and progress.host and progress.outcome != "ok":
            said = f": {progress.message}" if progress.message else ""
            self.console.print(f"  {progress.host}: {progress.outcome}{said}", markup=False)


class Board:
    """A table of hosts with what happens on them, redrawn as it happens."""

    def __init__(self, console: Console, verb: str) -> None:
        self.console = console
        self.verb = verb
        self.begin = time.monotonic()
        self.task = "starting"
        self.hosts: dict[str, tuple[Outcome, str, float]] = {}
        self.spinner = Spinner("dots")
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Board:
        self.live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.__exit__(kind, error, trace)

    def __call__(self, progress: Progress) -> None:
        """Take in something that has happened."""
        if progress.kind == "task":
            self.task = progress.task
        elif progress.kind == "host" and progress.host:
            outcome, message, seconds = self.hosts.get(progress.host, ("ok", "", 0.0))
            if WORST.index(progress.outcome) <= WORST.index(outcome):
                outcome, message = progress.outcome, progress.message or message
            self.hosts[progress.host] = (outcome, message, seconds + progress.seconds)

    def render(self) -> RenderableType:
        """The table as it is now: the worst first, as many hosts as fit."""
        elapsed = time.monotonic() - self.begin
        hosts = list(self.hosts.items())  # at once: another thread adds to them
        self.spinner.update(text=Text(f"{self.verb}: {self.task}  {elapsed:.0f} s"))
        counts = Counter(outcome for _, (outcome, _, _) in hosts)
        summary = Text("  ").join(Text(f"{count} {outcome}", COLOURS[outcome]) for outcome, count in sorted(counts.items()))
        table = Table(box=None, pad_edge=False, show_header=False)
        room = max(1, self.console.size.height - 4)
        shown = sorted(hosts, key=lambda item: (WORST.index(item[1][0]), item[0]))
        for name, (outcome, message, seconds) in shown[:room]:
            table.add_row(name, Text(outcome, COLOURS[outcome]), f"{seconds:.1f} s", Text(message, overflow="ellipsis", no_wrap=True))
        more = [Text(f"and {len(shown) - room} more", "dim")] if len(shown) > room else []
        return Group(self.spinner, summary, table, *more)
