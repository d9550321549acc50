"""From ansible-runner's events to results: one event is read at a time, and little of it is kept."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from ipyfleet.finding import Finding
from ipyfleet.results import (
    Backup,
    Change,
    Database,
    Failure,
    Fleet,
    Guest,
    Host,
    JupyterLab,
    LogLine,
    Outcome,
    Restored,
    Result,
    Slot,
    Status,
)

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# tasks that only pass on what a report says already
REPEATS = "Name what is short"
# tasks that are of no interest as such
QUIET = ("meta", "assert", "debug", "fail", "fleet_report")
RANK: dict[Outcome, int] = {"ok": 0, "changed": 1, "failed": 2, "unreachable": 3, "missing": 4}


@dataclass(frozen=True)
class Progress:
    """Something that has just happened in a run.

    :param kind: ``task`` when one begins, ``host`` when a host is done with one, ``text`` for output.
    :param task: name of the task.
    :param seconds: time that the task took on the host.
    """

    kind: Literal["task", "host", "text"]
    task: str = ""
    host: str = ""
    outcome: Outcome = "ok"
    message: str = ""
    seconds: float = 0.0


@dataclass
class _HostState:
    outcome: Outcome = "ok"
    message: str = ""
    seconds: float = 0.0
    changes: tuple[Change, ...] = ()

    def raise_to(self, outcome: Outcome, message: str) -> None:
        """Note an outcome, unless there was a worse one."""
        if RANK[outcome] > RANK[self.outcome] or (outcome == self.outcome and message):
            self.outcome, self.message = outcome, message or self.message


@dataclass
class Collector:
    """Reads the events of one run and knows its outcome in the end.

    :param verb: what the run is called.
    :param check: whether it only looks.
    :param diff: whether to keep the differences of files.
    :param takes_part: roles whose hosts must be heard of.
    """

    verb: str
    check: bool = False
    diff: bool = False
    takes_part: tuple[str, ...] = ()
    hosts: dict[str, _HostState] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    fleet: Fleet | None = None
    report: dict[str, Any] = field(default_factory=dict)
    printed: list[LogLine] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    input_problems: list[str] = field(default_factory=list)
    refused: bool = False
    played: bool = False

    def read(self, event: Mapping[str, Any]) -> list[Progress]:
        """Take in an event; returns what of it is worth showing."""
        kind, data = str(event["event"]), event.get("event_data") or {}
        shown = [Progress("text", message=text)] if (text := plain(event.get("stdout", ""))) else []
        if kind == "playbook_on_task_start":
            self.played = True
            quiet = str(data.get("task_action", "")).rsplit(".", 1)[-1] in QUIET
            return shown if quiet else [*shown, Progress("task", task=short_name(data.get("task", "")))]
        if kind in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
            progress = self._host_done(kind, data)
            return [*shown, progress] if progress else shown
        if kind in ("error", "verbose", "warning"):
            self._said(text)
        return shown

    def _said(self, text: str) -> None:
        if match := re.match(r"\[(ERROR|WARNING)\]: (.*)", text, re.DOTALL):
            (self.errors if match[1] == "ERROR" else self.warnings).append(match[2].strip())

    def _host_done(self, kind: str, data: Mapping[str, Any]) -> Progress | None:
        result = data.get("res")
        result = result if isinstance(result, Mapping) else {}
        task, host = short_name(data.get("task", "")), str(data.get("host", ""))
        seconds = float(data.get("duration") or 0.0)
        action = str(data.get("task_action", "")).rsplit(".", 1)[-1]
        self._take(action, host, result)
        if data.get("ignore_errors") or task == REPEATS:
            return None
        # the control node's own tasks are no host of the fleet
        if host == "localhost" and self.members and host not in self.members:
            host = ""
        outcome, message = self._judge(kind, action, task, result, host)
        if host:
            state = self.hosts.setdefault(host, _HostState())
            state.seconds += seconds
            state.raise_to(outcome, message)
            if action in ("fleet_host", "fleet_sync") and self._counts(result):
                state.changes += tuple(change_of(each, self.diff) for each in result.get("changes", []))
        return Progress("host", task, host, outcome, message, seconds)

    def _counts(self, result: Mapping[str, Any]) -> bool:
        # a look says what a deployment would change, which is not what this run changes
        return "facts" not in result and "units" not in result

    def _take(self, action: str, host: str, result: Mapping[str, Any]) -> None:
        if action == "fleet_prepare" and "fleet" in result:
            fleet = result["fleet"]
            self.members = {host: list(fleet["hosts"][host]["roles"]) for host in fleet["asked"] if host in fleet["hosts"]}
            database = fleet.get("postgresql")
            if database and database["host"] in fleet["asked"]:
                self.members.setdefault(database["host"], []).append("postgresql")
            self.fleet = fleet_of(fleet)
            self.warnings += [str(each) for each in result.get("warnings", [])]
        if action == "fleet_exec":
            self.printed += [
                LogLine(host, stream, line) for stream in ("stdout", "stderr") for line in str(result.get(stream, "")).splitlines()
            ]
        if action == "fleet_host" and result.get("kept"):
            self.warnings.append(f"{host}: kept, because there is something in it: {', '.join(result['kept'])}")
        if action == "fleet_drain" and "slots" in result:
            self.report = {"slots": [slot for slot in result["slots"] if self.verb == "drain" or slot["state"] == "busy"]}
        if action == "fleet_report" and "report" in result:
            self.report = dict(result["report"])
            self.warnings += [str(each) for each in result.get("warnings", [])]
            self.warnings += [f"database: {each}" for each in self.report.get("backup_problems", [])]

    def _judge(self, kind: str, action: str, task: str, result: Mapping[str, Any], host: str) -> tuple[Outcome, str]:
        message = one_line(result.get("msg", ""))
        if kind == "runner_on_unreachable":
            self.failures.append(Failure(f"unreachable: {message}", host, task))
            return "unreachable", message
        if kind == "runner_on_failed":
            if problems := refusal(action, result):
                self._refuse(problems)
            elif action == "assert" and not self.members:
                self.input_problems.append(message)
            else:
                self.failures.append(Failure(message or "failed without a message", host, task))
            return "failed", message
        if result.get("problem") and action == "fleet_host":
            return "failed", str(result["problem"])
        if result.get("changed"):
            return "changed", message
        return "ok", ""

    def _refuse(self, problems: list[str]) -> None:
        if not self.members:
            # before the inventory was understood, no host was asked for anything
            self.input_problems += problems
            return
        self.refused = True
        for problem in problems:
            host, _, rest = problem.partition(": ")
            self.failures.append(Failure(rest, host) if host in self.members else Failure(problem))

    def result(self, rc: int, seconds: float, cancelled: bool) -> Result:
        """The outcome of the run.

        :param rc: exit code of ansible-playbook.
        """
        slots = tuple(slot_of(each) for each in self.report.get("slots", []))
        if self.members and "localhost" not in self.members:
            # what the control node did before the fleet was known
            self.hosts.pop("localhost", None)
        failures = self._all_failures(rc, slots, cancelled)
        for host, roles in self.members.items():
            if host not in self.hosts and not cancelled and not self.refused and set(roles) & set(self.takes_part):
                self.hosts[host] = _HostState("missing")
                failures.append(Failure("expected it to take part, but nothing was heard of it", host))
        return Result(
            verb=self.verb,
            status=self._status(rc, slots, failures, cancelled),
            seconds=round(seconds, 3),
            rc=rc,
            check=self.check,
            fleet=self.fleet,
            hosts=tuple(self._hosts()),
            slots=slots,
            guests=tuple(Guest(**each) for each in self.report.get("guests", [])),
            failures=tuple(dict.fromkeys(failures)),
            warnings=tuple(dict.fromkeys(self.warnings)),
            logs=(*self.printed, *logs_of(self.report)),
            database=database_of(self.report.get("database")),
            jupyterlab=jupyterlab_of(self.report.get("jupyterlab")),
            backups=tuple(backup_of(each) for each in self.report.get("backups", [])),
            restored=restored_of(self.report["restored"]) if "restored" in self.report else None,
            findings=tuple(map(finding_of, self.report.get("findings", []))),
            data=self.report,
        )

    def _hosts(self) -> Iterator[Host]:
        """Hosts as the inventory has them, whoever was done first."""
        for name in sorted(self.hosts, key=[*self.members, *self.hosts].index):
            state = self.hosts[name]
            yield Host(name, state.outcome, state.message, round(state.seconds, 3), state.changes)

    def _all_failures(self, rc: int, slots: tuple[Slot, ...], cancelled: bool) -> list[Failure]:
        # of a good run, what failed was rescued or ignored by its playbook
        failures = list(self.failures) if rc else []
        if "findings" in self.report:
            return [*_told(failures, self.report["findings"]), *self._nothing_found(rc, cancelled)]
        if self.report.get("problem"):
            controller = self.report["controller"]
            failures.append(Failure(f"the controller gave no answer: {self.report['problem']}", controller))
        failures += [Failure(f"slot {slot.number} (id {slot.id}): {slot.reason}", slot.host) for slot in slots if not slot.ok]
        database = self.report.get("database") or {}
        failures += [Failure(f"database: {problem}", database["host"]) for problem in database.get("problems", [])]
        lab = self.report.get("jupyterlab") or {}
        failures += [Failure(f"JupyterLab: {lab['reason']}", lab["host"])] if lab.get("state") == "failed" else []
        if self.takes_part and not self.members and not rc and not cancelled:
            failures.append(Failure("expected a host of the fleet within the limit, got none"))
        if rc and not failures and not cancelled:
            failures += [Failure(text) for text in self.errors] or [Failure(f"ansible-playbook ended with exit code {rc}")]
        return failures

    def _nothing_found(self, rc: int, cancelled: bool) -> list[Failure]:
        if rc and not cancelled and self.report["ok"] and not self.failures:
            return [Failure(text) for text in self.errors] or [Failure(f"ansible-playbook ended with exit code {rc}")]
        return []

    def _status(self, rc: int, slots: tuple[Slot, ...], failures: list[Failure], cancelled: bool) -> Status:
        if cancelled:
            return "cancelled"
        if self.refused:
            return "refused"
        if rc == 0 and not failures:
            return "ok"
        # none of the slots was stopped when one is busy
        busy = any(slot.state == "busy" for slot in slots)
        return "partial" if any(slot.ok for slot in slots) and not busy else "failed"


def refusal(action: str, result: Mapping[str, Any]) -> list[str]:
    """The problems for which fleet_prepare refused a run; its message ends with a line that counts them."""
    lines = str(result.get("msg", "")).splitlines()
    return lines[:-1] if action == "fleet_prepare" and lines and lines[-1].endswith("; nothing was changed") else []


def plain(text: object) -> str:
    """Output without colours and carriage returns."""
    return COLOUR.sub("", str(text)).replace("\r", "").strip("\n")


def one_line(message: object) -> str:
    """A message without line breaks."""
    return "; ".join(line.strip() for line in str(message).splitlines() if line.strip())


def short_name(task: object) -> str:
    """A task's name without its role's."""
    return str(task).rsplit(" : ", 1)[-1]


def change_of(change: Mapping[str, Any], diff: bool) -> Change:
    """A change as the module fleet_host tells it."""
    path, text = str(change["path"]), ""
    if diff and change.get("diff"):
        before, after = (str(change["diff"][key]).splitlines() for key in ("before", "after"))
        text = "\n".join(difflib.unified_diff(before, after, path, path, lineterm="", n=3))
    return Change(path, str(change["what"]), text)


def slot_of(slot: Mapping[str, Any]) -> Slot:
    """A slot as a report has it."""
    unit = slot.get("unit") or {}
    found = Slot(int(slot["id"]), str(slot["host"]), int(slot["number"]), str(slot["state"]), str(slot.get("reason", "")))
    return replace(
        found,
        **{key: slot[key] for key in ("pid", "python", "ms") if key in slot},
        service=unit.get("state"),
        restarts=unit.get("restarts"),
        healed=unit.get("healed"),
    )


def database_of(said: Mapping[str, Any] | None) -> Database | None:
    """The database as a report has it."""
    if not said:
        return None
    backup = said["backup"]
    return Database(
        host=str(said["host"]),
        port=int(said["port"]),
        databases=tuple(said["databases"]),
        user=str(said["user"]),
        running=said["running"],
        asked=int(said["asked"]),
        reached=int(said["reached"]),
        tls=str(said["tls"]),
        version=str(said["version"]),
        certificate_days=said["certificate_days"],
        backup=backup_of(backup) if backup else None,
        problems=tuple(said["problems"]),
        message=str(said["message"]),
    )


def jupyterlab_of(said: Mapping[str, Any] | None) -> JupyterLab | None:
    """JupyterLab as a report has it."""
    if not said:
        return None
    return JupyterLab(**{each.name: said[each.name] for each in fields(JupyterLab)})


def logs_of(report: Mapping[str, Any]) -> list[LogLine]:
    """Lines of logs as a report has them."""
    return [LogLine(host, unit, line) for host, units in report.get("logs", {}).items() for unit, lines in units.items() for line in lines]


def backup_of(backup: Mapping[str, Any]) -> Backup:
    """A backup as a report has it."""
    same = {key: backup[key] for key in ("name", "age", "rows", "whole", "proven", "reason")}
    return Backup(size=backup["bytes"], databases=tuple(backup["databases"]), **same)


def restored_of(restored: Mapping[str, Any]) -> Restored:
    """A database that was brought back, as a report has it."""
    same = {key: restored[key] for key in ("database", "backup", "rows", "tables", "replaced", "kept", "message")}
    return Restored(made=tuple(restored["roles"]), **same)


def finding_of(finding: Mapping[str, Any]) -> Finding:
    """A finding as a report has it."""
    return Finding(**{each.name: finding[each.name] for each in fields(Finding)})


def _told(failures: list[Failure], findings: list[Mapping[str, Any]]) -> list[Failure]:
    """The findings as failures, and what else failed; that a host is unreachable, its finding says better."""
    open_ = [each for each in findings if not each["fixed"]]
    away = {each["host"] for each in open_ if each["cause"] == "host-unreachable"}
    rest = [each for each in failures if not (each.host in away and each.message.startswith("unreachable: "))]
    where = ["" if each["slot"] is None else f"slot {each['slot']}: " for each in open_]
    return [*rest, *(Failure(f"{slot}{each['what']}; {each['fix']}", each["host"]) for slot, each in zip(where, open_, strict=True))]


def fleet_of(fleet: Mapping[str, Any]) -> Fleet:
    """The fleet as the action fleet_prepare describes it."""
    clients = tuple(host for host, each in fleet["hosts"].items() if "ipp_client" in each["roles"])
    known = {key: str(fleet[key]) for key in ("name", "scope", "controller", "location")}
    return Fleet(**known, first_port=fleet["ports"]["first"], last_port=fleet["ports"]["last"], clients=clients)
