"""What calls give back: frozen, typed, and the same for every verb."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

from ipyfleet.errors import Cancelled, RunError
from ipyfleet.finding import Finding

Outcome = Literal["ok", "changed", "failed", "unreachable", "missing"]
Status = Literal["ok", "partial", "refused", "failed", "cancelled"]

# of `to_dict`; a change that breaks readers makes it another number
SCHEMA = 1
EXIT_CODES: dict[Status, int] = {"ok": 0, "failed": 1, "refused": 1, "partial": 3, "cancelled": 130}


@dataclass(frozen=True)
class Change:
    """Something that was changed on a host, or would be in check mode.

    :param path: the file, folder or unit.
    :param what: what was done to it.
    :param diff: the difference as text; only where it was asked for, secrets masked.
    """

    path: str
    what: str
    diff: str = ""


@dataclass(frozen=True)
class Host:
    """How a host fared.

    :param outcome: ``missing`` when nothing was heard of it, though it should have taken part.
    :param message: the last thing worth saying about it.
    :param seconds: time that tasks took on it.
    """

    name: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Slot:
    """A wanted engine.

    :param id: its engine id.
    :param number: the slot's number on its host.
    :param state: ``ok`` when it ran code, ``listed`` when the controller lists it, else ``missing``,
        ``silent`` or ``drifted``; of `drain` ``drained``, ``busy``, or in check mode ``working``, when it would be waited for.
    :param reason: why it is short; empty when it is not.
    :param service: state of its service, where it was asked.
    :param ms: time of a round trip, in milliseconds.
    :param healed: how often its host's watchdog has restarted it, when and why last; empty when it never has.
    """

    id: int
    host: str
    number: int
    state: str
    reason: str = ""
    pid: int | None = None
    python: str | None = None
    ms: float | None = None
    service: str | None = None
    restarts: int | None = None
    healed: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it is as wanted, as far as was asked."""
        return self.state in ("ok", "listed", "drained", "working")


@dataclass(frozen=True)
class Guest:
    """An engine that no slot asks for: somebody has started it.

    :param state: ``idle``, ``busy``, or ``silent`` when it did not answer though nothing is known that it does.
    :param hostname: the name of its machine, as it says itself; like the rest, only an idle one is asked for it.
    :param message: all of this in words.
    """

    id: int
    state: str
    hostname: str | None = None
    pid: int | None = None
    python: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Failure:
    """One reason for which a run did not reach what it was for.

    :param host: whom it is about; empty when it is about the run.
    """

    message: str
    host: str = ""
    task: str = ""

    def __str__(self) -> str:
        return f"{self.host}: {self.message}" if self.host else self.message


@dataclass(frozen=True)
class Fleet:
    """What a run was about.

    :param location: name or address by which the controller is reached.
    :param clients: hosts whose users have the client's connection file.
    """

    name: str
    scope: str
    controller: str
    location: str
    first_port: int
    last_port: int
    clients: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClientCheck:
    """What an ipyparallel client on the caller's machine saw.

    :param way: ``direct``, or ``ssh`` when it had to go through a tunnel to the controller's host.
    :param answered: ids of engines that ran code for it.
    """

    ok: bool
    way: str = ""
    answered: tuple[int, ...] = ()
    seconds: float = 0.0
    message: str = ""


@dataclass(frozen=True)
class LogLine:
    """A line that a service left."""

    host: str
    unit: str
    text: str

    def __str__(self) -> str:
        return f"{self.host} {self.unit}: {self.text}"


@dataclass(frozen=True)
class Backup:
    """A backup of the fleet's databases.

    :param name: when it was begun, as YYYYMMDDTHHMMSSZ.
    :param age: in seconds.
    :param size: in bytes.
    :param rows: of all tables of all databases.
    :param whole: whether it can be read.
    :param proven: when a drill brought all of it back, as ISO 8601; None as long as none has.
    :param reason: why the newest drill of it failed.
    """

    name: str
    age: int
    size: int
    rows: int
    databases: tuple[str, ...]
    whole: bool
    proven: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Database:
    """The fleet's PostgreSQL, as far as was asked.

    :param databases: names, each a service of libpq's as well; the first is the default.
    :param user: the account that engines and clients use.
    :param running: whether it runs, by its host's word; None when that was not asked.
    :param asked: engines that were told to connect.
    :param reached: those that could, with its certificate verified, and were refused without TLS.
    :param tls: protocol of their connections, such as ``TLSv1.3``; empty in scope ``user``.
    :param certificate_days: days until its certificate ends.
    :param backup: the newest that a drill has brought back, if that was asked and there is one.
    :param message: all of this but the problems, in words.
    """

    host: str
    port: int
    databases: tuple[str, ...]
    user: str
    running: bool | None = None
    asked: int = 0
    reached: int = 0
    tls: str = ""
    version: str = ""
    certificate_days: int | None = None
    backup: Backup | None = None
    problems: tuple[str, ...] = ()
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is as wanted, as far as was asked."""
        return not self.problems and self.running is not False


@dataclass(frozen=True)
class JupyterLab:
    """The fleet's JupyterLab, as far as was asked.

    :param url: where it is, on its host alone; `ipyfleet connect` leads there.
    :param state: ``ok`` when a cell ran in a kernel of it, ``failed``, or ``unknown`` when that was not asked.
    :param seconds: from asking for a kernel until the cell had run.
    :param engines: that the cell saw, if it looked for them.
    :param reason: why the state is not ``ok``.
    :param message: all of this in words.
    """

    host: str
    port: int
    url: str
    state: str
    seconds: float | None = None
    engines: int | None = None
    version: str = ""
    reason: str = ""
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is as wanted, as far as was asked."""
        return self.state != "failed"


@dataclass(frozen=True)
class Restored:
    """A database that was brought back, or would be in check mode.

    :param rows: of all of its tables.
    :param tables: number of them.
    :param replaced: whether there was one of that name.
    :param kept: name that the one that was there has now; empty when there was none, or it was dropped.
    :param made: roles that were made for it.
    :param message: all of this in words.
    """

    database: str
    backup: str
    rows: int
    tables: int
    replaced: bool
    kept: str = ""
    made: tuple[str, ...] = ()
    message: str = ""


@dataclass(frozen=True)
class Result:
    """The outcome of a verb.

    :param status: ``partial`` when some of the wanted engines answer, but not all; ``refused`` when
        nothing was changed because something has to be put right first.
    :param check: whether it only looked at what it would change.
    :param guests: engines that no slot asks for; they are no failure.
    :param seconds: wall-clock time.
    :param rc: exit code of ansible-playbook.
    :param backups: newest first; of verbs that are about them.
    :param restored: of the verb `restore`.
    :param findings: of the verb `doctor`.
    :param edited: what is changed in the fleet file, as a difference; of the verb `scale`.
    :param path: the file that was written, of the verb `bundle`; empty in check mode, and of other verbs.
    """

    verb: str
    status: Status
    seconds: float
    rc: int
    check: bool = False
    fleet: Fleet | None = None
    hosts: tuple[Host, ...] = ()
    slots: tuple[Slot, ...] = ()
    guests: tuple[Guest, ...] = ()
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()
    logs: tuple[LogLine, ...] = ()
    client: ClientCheck | None = None
    database: Database | None = None
    jupyterlab: JupyterLab | None = None
    backups: tuple[Backup, ...] = ()
    restored: Restored | None = None
    findings: tuple[Finding, ...] = ()
    edited: str = ""
    path: str = ""
    data: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Whether all is there."""
        return self.status == "ok"

    @property
    def changed(self) -> bool:
        """Whether anything was changed, or would be."""
        return any(host.outcome == "changed" or host.changes for host in self.hosts)

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return EXIT_CODES[self.status]

    def check_ok(self) -> Result:
        """This result, if all is there.

        :raises Cancelled: when the run was cancelled.
        :raises RunError: with the failures, when something is not there.
        """
        if self.status == "cancelled":
            raise Cancelled(self)
        if not self.ok:
            raise RunError(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        known = {key: value for key, value in asdict(self).items() if key != "data"}
        return {"schema": SCHEMA, "ok": self.ok, "changed": self.changed, "exit_code": self.exit_code, **known}

    def __str__(self) -> str:
        lines = [self.headline()]
        lines += [f"  {slot.id:>4}  {slot.host}/{slot.number}  {slot.state}" for slot in self.slots]
        lines += [f"  {self.database.message}"] if self.database else []
        lines += [f"  {self.jupyterlab.message}"] if self.jupyterlab and self.jupyterlab.ok else []
        lines += [f"  {guest.message}" for guest in self.guests]
        lines += [f"  {finding}" for finding in self.findings if finding.fixed]
        lines += [f"  {failure}" for failure in self.failures]
        return "\n".join(lines)

    def headline(self) -> str:
        """The outcome in one line."""
        name = f" {self.fleet.name}" if self.fleet else ""
        text = f"{self.verb}{name}: {self.status} in {self.seconds:.1f} s"
        if self.slots:
            good = sum(slot.ok for slot in self.slots)
            text += f", {good} of {len(self.slots)} engine slots {slots_word(self)}"
        if self.verb == "doctor":
            left, fixed = (sum(each.fixed is done for each in self.findings) for done in (False, True))
            text += f", {left or 'no'} finding{'' if left == 1 else 's'}" + (f", {fixed} fixed" if fixed else "")
        changed = [host for host in self.hosts if host.changes or host.outcome == "changed"]
        if changed:
            text += f", {len(changed)} host{'s' if len(changed) > 1 else ''} {'would change' if self.check else 'changed'}"
        return text

    def _repr_html_(self) -> str:
        parts = [f"<p><b>{escape(self.headline())}</b></p>"]
        if self.slots:
            rows = [(slot.id, slot.host, slot.number, slot.state, slot.pid, slot.python, slot.ms) for slot in self.slots]
            parts.append(html_table(("id", "host", "slot", "state", "pid", "Python", "ms"), rows))
        elif self.hosts:
            parts.append(html_table(("host", "outcome", "message"), [(host.name, host.outcome, host.message) for host in self.hosts]))
        if self.database:
            parts.append(f"<p>{escape(self.database.message)}</p>")
        if self.jupyterlab and self.jupyterlab.ok:
            parts.append(f"<p>{escape(self.jupyterlab.message)}</p>")
        parts += [f"<p>{escape(guest.message)}</p>" for guest in self.guests]
        if self.failures:
            parts.append("<ul>" + "".join(f"<li>{escape(str(failure))}</li>" for failure in self.failures) + "</ul>")
        return "".join(parts)


def slots_word(result: Result) -> str:
    """What good slots have done, or would."""
    if result.verb in ("status", "doctor"):
        return "registered"
    states = {slot.state for slot in result.slots}
    if "busy" in states:
        return "had nothing to do"
    return ("would be drained" if result.check else "drained") if states & {"drained", "working"} else "answered"


def html_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as an HTML table."""
    head = "".join(f"<th>{escape(each)}</th>" for each in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape('-' if cell is None else str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
