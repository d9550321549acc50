"""More or fewer slots: the fleet file is edited, and the hosts that are meant follow."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ipyfleet.errors import InputError
from ipyfleet.fleet_edit import Edit, Slots, edit
from ipyfleet.results import Result
from ipyfleet.sources import SUFFIXES

Run = Callable[..., Result]
# roles that hold something of other hosts' slots
AFFECTED = ("jupyterlab", "postgresql")


@dataclass(frozen=True)
class How:
    """How to scale.

    :param now: do not wait for engines that go, nor fail for hosts that go and are not reached.
    :param timeout: seconds that engines have to get done with what they do.
    :param check: change nothing.
    """

    now: bool
    timeout: float
    check: bool


def scale(run: Run, sources: Sequence[str], wanted: Mapping[str, Slots], how: How) -> Result:
    """Edit the fleet file and bring about what it says, step by step, until one fails.

    :param run: runs a playbook, as `Cluster.run` does.
    :raises InputError: when nothing was changed, because of what is wanted, or of the file.
    """
    scaling = Scaling(run, list(sources), edit(fleet_file(sources), wanted), how)
    result = scaling.carry_out()
    return replace(result, verb="scale", check=how.check, edited=scaling.edit.diff, seconds=round(scaling.seconds, 3))


def fleet_file(sources: Sequence[str]) -> Path:
    """The one of the sources that is a fleet file.

    :raises InputError: when there is none, or more.
    """
    found = [Path(each) for each in sources if each.endswith(SUFFIXES)]
    if len(found) != 1:
        raise InputError([f"scale: expected one fleet file, whose name ends in {SUFFIXES[0]}, got {', '.join(sources)}"])
    return found[0]


class Scaling:
    """One call of `scale`."""

    def __init__(self, run: Run, sources: list[str], edited: Edit, how: How) -> None:
        self.playbook = run
        self.sources = sources
        self.edit = edited
        self.how = how
        self.seconds = 0.0

    def carry_out(self) -> Result:
        """All steps; returns the last one's result, or that of the one that failed."""
        if not self.edit.diff:
            # a run before this one may have been cut off behind the edit
            meant = ":".join(host for host in self.edit.meant if host in self.edit.after)
            return self.run("site", limit=meant, check=self.how.check) if meant else self.run("verify")
        with self.candidate() as candidate:
            if self.how.check:
                return self.checked(candidate)
            looked = self.run("validate", limit=self.limit, inventory=candidate)
            if not looked.ok:
                return self.told(looked, "nothing was changed")
        for step in (self.drain, self.take_out):
            result = step()
            if result is not None and not result.ok:
                return self.told(result, f"{self.edit.path.name} is as it was; run it again to go on")
        self.write()
        result = self.run("site", limit=self.limit) if self.limit else self.run("verify")
        how = f"{self.edit.path.name} has what is wanted now; `ipyfleet up` goes on"
        return result if result.ok else self.told(result, how)

    def run(self, playbook: str, **options: Any) -> Result:
        """Run a playbook, and count its time."""
        result = self.playbook(playbook, verb="scale", **options)
        self.seconds += result.seconds
        return result

    def told(self, result: Result, how: str) -> Result:
        """A result that says how to go on."""
        return replace(result, warnings=(*result.warnings, how))

    @property
    def limit(self) -> str:
        """Hosts that change and stay, and those that hold something of their slots."""
        groups = self.edit.groups
        others = [host for role in AFFECTED for host in groups.get(role, ())]
        leaving = [host for host in self.edit.gone if self.stays(host)]
        return ":".join(dict.fromkeys([*self.edit.changed, *leaving, *others]))

    def stays(self, host: str) -> bool:
        """Whether a host is in the fleet for something else, too."""
        return any(host in hosts for hosts in self.edit.groups.values())

    @contextlib.contextmanager
    def candidate(self) -> Iterator[list[str]]:
        """The sources with the new fleet file, which is beside the old one so that all that is beside it counts."""
        path = self.edit.path.with_name(f".{os.getpid()}.{self.edit.path.name}")
        try:
            path.write_text(self.edit.text, encoding="utf-8")
            yield [str(path) if Path(each) == self.edit.path else each for each in self.sources]
        finally:
            path.unlink(missing_ok=True)

    def checked(self, candidate: list[str]) -> Result:
        """What would be changed."""
        result = self.run("site", limit=self.limit, check=True, inventory=candidate) if self.limit else self.run("inventory")
        gone = [host for host in self.edit.gone if not self.stays(host)]
        return self.told(result, f"would be taken out of the fleet: {', '.join(gone)}") if gone else result

    def going(self) -> list[str]:
        """Slots that go: of each host those with the highest numbers."""
        before = dict(self.edit.before)
        if any(before[host] == "auto" for host in [*self.edit.gone, *self.edit.changed] if host in before):
            known = {each["name"]: len(each["ids"]) for each in self.run("inventory").data.get("hosts", [])}
            before |= {host: known.get(host, 0) for host in before if before[host] == "auto"}
        found = []
        for host, old in before.items():
            new = self.edit.after.get(host, 0)
            found += [f"{host}/{number}" for number in range(int(new), int(old))] if new != "auto" else []
        return found

    def drain(self) -> Result | None:
        """Wait until the slots that go have nothing to do, and stop them."""
        if self.how.now or not (going := self.going()):
            return None
        hosts = dict.fromkeys(each.rpartition("/")[0] for each in going)
        return self.run("drain", limit=":".join(hosts), variables={"chosen_services": going, "drain_timeout": self.how.timeout})

    def take_out(self) -> Result | None:
        """Take the fleet away from hosts that are in it for their slots alone."""
        gone = [host for host in self.edit.gone if not self.stays(host)]
        if not gone:
            return None
        result = self.run("teardown", limit=":".join(gone))
        if result.ok or not self.how.now or any(host.outcome not in ("ok", "changed", "unreachable") for host in result.hosts):
            return result
        return replace(result, status="ok")

    def write(self) -> None:
        """Put the new text in the fleet file's place, whole or not at all."""
        path = self.edit.path.resolve()
        if path.read_text(encoding="utf-8") != self.edit.old:
            raise InputError([f"{path.name}: expected it as it was read, got a change meanwhile; it is left as it is"])
        new = path.with_name(f".{os.getpid()}.{path.name}")
        new.write_text(self.edit.text, encoding="utf-8")
        shutil.copymode(path, new)
        os.replace(new, path)
