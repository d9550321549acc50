# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why a fleet is not as it should be: what was seen on all hosts becomes one line for each cause.

What follows from something else is not told: engines that a stopped controller leaves alone, or a service
that ends again and again because a port is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils import doctor_hosts
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.doctor_words import Finding, halves, word
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.report import reason

# a service that has just been started is not registered yet
STARTING_SECONDS = 20
CERTIFICATE_DAYS = 14
START = "run `ipyfleet doctor --fix`, or `ipyfleet start`"
RESTART = "run `ipyfleet doctor --fix`, or `ipyfleet restart {}`"
Seen = Mapping[str, Any]
GOOD = ("listed", "ok")


class Judge:
    """What was seen of one fleet.

    :param fleet: as it is wanted.
    :param hosts: what was seen on each host that was asked: `look`, of the module fleet_host, and `doctor`.
    :param listed: what the controller says of the wanted slots, as the module fleet_verify returns it.
    :param database: what is known of the fleet's database, as a report has it; None without.
    :param lab: likewise of JupyterLab.
    :param pins: versions of packages by host, as its lock has them.
    :param days: that a certificate should be good for.
    """

    def __init__(
        self,
        fleet: Mapping[str, Any],
        hosts: Mapping[str, Seen],
        listed: Mapping[str, Any],
        database: Mapping[str, Any] | None = None,
        lab: Mapping[str, Any] | None = None,
        pins: Mapping[str, Mapping[str, str]] | None = None,
        days: int = CERTIFICATE_DAYS,
    ) -> None:
        self.fleet = fleet
        self.hosts = hosts
        self.listed = listed
        self.database = database
        self.lab = lab
        self.pins = pins or {}
        self.days = days
        self.controller = str(fleet["controller"])
        there = hosts.get(self.controller, {}).get("doctor", {})
        self.controller_away = bool(hosts.get(self.controller, {}).get("look", {}).get("unreachable"))
        unit = there.get("units", {}).get("controller")
        # beyond the limit, or it could not be looked at: nothing is known against it
        self.controller_down = self.controller_away or (bool(unit) and (not unit["running"] or bool(unit["loops"])))
        self.keys = there.get("connection", {})
        wanted = (each["path"] for each in hosts.get(self.controller, {}).get("look", {}).get("changes", ()))
        if any(path.endswith("/ipcontroller-engine.json") for path in wanted):
            # it is the controller's own that is wrong
            self.keys = {}

    def findings(self) -> list[Finding]:
        """Every cause, host by host."""
        found: list[Finding] = []
        for host in self.hosts:
            found += self._host(host)
        return [*found, *self._clocks(), *self._controller(), *self._services(found)]

    def _host(self, host: str) -> Iterator[Finding]:
        look, doctor = self.hosts[host].get("look", {}), self.hosts[host].get("doctor", {})
        if look.get("unreachable"):
            yield Finding(host, "host-unreachable", *halves(f"it is not reached: {look['msg']}", "see that it is up"))
            return
        if problem := look.get("problem") or doctor.get("problem"):
            yield Finding(host, "host-unfit", *halves(str(problem), f"run `ipyfleet validate --limit {host}`"))
        if not doctor or doctor.get("problem"):
            return
        yield from doctor_hosts.resources(self.fleet, host, doctor)
        if not doctor["deployed"]:
            yield Finding(host, "not-deployed", f"fleet {self.fleet['name']} is not on it", f"run `ipyfleet up --limit {host}`")
            return
        roots = [*doctor_hosts.network(self, host, doctor, look), *doctor_hosts.files(self, host, doctor, look)]
        yield from roots
        yield from doctor_hosts.software(self, host, doctor, look)
        yield from self._units(host, doctor["units"], bool(roots))
        unnamed = any(each.cause == "name" for each in roots) and "translate host name" in doctor.get("database", {}).get("error", "")
        if "error" in doctor.get("database", {}) and not unnamed:
            yield from doctor_hosts.database(self, host, str(doctor["database"]["error"]))

    def _units(self, host: str, units: Mapping[str, Seen], excused: bool) -> Iterator[Finding]:
        """Services that do not run.

        :param excused: whether the host has something for which engines cannot but end.
        """
        for name, unit in units.items():
            engine = name.startswith("engine@")
            slot = int(name.removeprefix("engine@")) if engine else None
            service = f"{host}/{slot}" if engine else name
            last = f"; it last said: {unit['last']}" if unit["last"] else ""
            if unit["killed"] and doctor_hosts.lacked_memory(self.hosts[host]["doctor"]):
                fix = "give it more memory, or the host fewer slots; or limit engines with memory_max, which fails the task instead"
                yield Finding(host, "out-of-memory", f"{word(name)} was killed for want of memory in the last minutes", fix, slot)
            if unit["loops"]:
                if not (engine and (excused or self.controller_down)):
                    what = f"{word(name)} ended {unit['quick']} times in a row right after its start{last}"
                    yield Finding(host, "crash-loop", what, f"mend that; see `ipyfleet logs --service {service}`", slot, "", name)
            elif unit["state"].startswith(("failed", "fatal")):
                yield Finding(host, "failed", f"{word(name)} has failed{last}", START, slot, "start", name)
            elif unit["state"].startswith(("inactive", "stopped", "exited", "not running", "unknown")):
                yield Finding(host, "stopped", f"{word(name)} does not run: its service is {unit['state']}", START, slot, "start", name)

    def _clocks(self) -> Iterator[Finding]:
        clocks = {host: seen["doctor"]["clock"] for host, seen in self.hosts.items() if seen.get("doctor", {}).get("clock")}
        yield from (Finding(*each) for each in doctor_hosts.clocks(clocks, self.controller))

    def _controller(self) -> Iterator[Finding]:
        """A controller that runs and gives no answer; one that does not run is told of as a service."""
        problem = self.listed.get("problem")
        told = self.controller_down or self.hosts.get(self.controller, {}).get("doctor", {}).get("deployed") is False
        if not problem or told:
            return
        if self.controller not in self.hosts:
            yield Finding(
                self.controller, "controller-unreachable", *halves(f"the controller gave no answer: {problem}", "run without --limit")
            )
        elif self.hosts[self.controller].get("doctor", {}).get("units"):
            fix = RESTART.format("--service controller") + "; engines keep their memory"
            what = f"the controller's service runs, but gives no answer: {problem}"
            yield Finding(self.controller, "controller-silent", what, fix, None, "restart", "controller")

    def _services(self, found: Sequence[Finding]) -> Iterator[Finding]:
        told = {(each.host, each.slot) for each in found}
        for slot in self.listed["slots"]:
            host, number = slot["host"], slot["number"]
            whole = {each.cause for each in found if each.host == host and each.slot is None}
            if slot["state"] in GOOD or self.listed.get("problem") or (host, number) in told or whole & doctor_hosts.EXPLAIN:
                continue
            yield from self._missing(slot)
        yield from doctor_hosts.services(self.database, self.lab, found, self.days)

    def _missing(self, slot: Seen) -> Iterator[Finding]:
        """A slot that nothing else accounts for."""
        host, number = slot["host"], slot["number"]
        unit = self.hosts.get(host, {}).get("doctor", {}).get("units", {}).get(f"engine@{number}")
        if unit is None or not unit["running"]:
            tunnel = self.hosts.get(host, {}).get("doctor", {}).get("units", {}).get("tunnel")
            what = f"its engine is not registered: {reason(slot, unit, self.fleet, tunnel)}"
            yield Finding(host, "missing", what, "run `ipyfleet up`, or see `ipyfleet logs`", number)
        elif unit["since"] is not None and unit["since"] < STARTING_SECONDS:
            what = f"its engine has been started {unit['since']:.0f} s ago, and is not registered yet"
            yield Finding(host, "starting", what, "ask again in a moment", number)
        else:
            what = "its service runs, but the controller does not know its engine"
            yield Finding(host, "zombie", what, RESTART.format(f"--slot {host}/{number}"), number, "restart", f"engine@{number}")


def treatments(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `--fix` is to do: units by host to start and to restart, hosts whose connection files are to be written, and the certificate."""
    found: dict[str, Any] = {"start": {}, "restart": {}, "connection": [], "certificate": []}
    for each in findings:
        if each.treatment in ("start", "restart"):
            found[each.treatment].setdefault(each.host, []).append(each.unit)
        elif each.treatment and each.host not in found[each.treatment]:
            found[each.treatment].append(each.host)
    return found


def compared(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Findings after a treatment, and those before that are no more, as fixed.

    What was treated and is only on its way is no finding of its own.
    """
    there = {(each["host"], each["cause"], each["slot"]) for each in after}
    cured = [dict(each) | {"fixed": True} for each in before if (each["host"], each["cause"], each["slot"]) not in there]
    return [*cured, *map(dict, after)]


def text(known: Mapping[str, Any]) -> str:
    """Every cause in a line, the fix behind it."""
    open_ = [each for each in known["findings"] if not each["fixed"]]
    fixed = [each for each in known["findings"] if each["fixed"]]
    good = sum(slot["state"] in GOOD for slot in known["slots"])
    count = f"{len(open_)} finding{'' if len(open_) == 1 else 's'}" if open_ else "no findings"
    lines = [f"fleet {known['name']}: {good} of {len(known['slots'])} engine slots registered, {count}"]
    lines += [f"fixed: {line(each)}" for each in fixed]
    return "\n".join([*lines, *(f"{line(each)}; {each['fix']}" for each in open_)])


def line(finding: Mapping[str, Any]) -> str:
    """A finding in a line, without what to do."""
    where = finding["host"] if finding["slot"] is None else f"{finding['host']} slot {finding['slot']}"
    return f"{where}: {finding['what']}"
