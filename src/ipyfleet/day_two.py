"""Verbs that change a fleet at work: what they do not mean goes on as if nothing were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipyfleet import scaling
from ipyfleet.results import Result

SERVICES = ("ipp_controller", "ipp_engine")
EVERYONE = ("ipp_controller", "ipp_engine", "ipp_client", "jupyterlab")
# seconds that engines have to get done with what they do
DRAIN_SECONDS = 300.0


class DayTwo:
    """What `ipyfleet.Cluster` can do once there is a fleet."""

    sources: list[str]

    def run(self, *arguments: Any, **options: Any) -> Result:
        """Run a playbook on the fleet."""
        raise NotImplementedError

    def drain(self, *, services: Sequence[str | int] = (), timeout: float = DRAIN_SECONDS, limit: str = "", check: bool = False) -> Result:
        """Give engines no new work, wait until they have nothing to do, and stop them.

        When one is still busy in the end, none is stopped, and all get work again; `Result.slots` says what each does.

        :param services: only these: slots such as ``node1/0``, or engine ids; all within the limit when empty.
        :param timeout: seconds to wait.
        :param check: only say what would be waited for.
        """
        chosen = [services] if isinstance(services, str) else services
        variables = {"chosen_services": [str(each) for each in chosen], "drain_timeout": timeout}
        return self.run("drain", limit=limit, check=check, variables=variables)

    def scale(self, slots: Mapping[str, int | str], *, now: bool = False, timeout: float = DRAIN_SECONDS, check: bool = False) -> Result:
        """Change the numbers of slots, in the fleet file and on the hosts that are meant; no other process is touched.

        Of fewer slots, those with the highest numbers go. A host without slots is taken out of the fleet, a new one in.
        See `Result.edited` for what is changed in the fleet file; what is written there is true whenever this ends.

        :param slots: by host or range of hosts: a number, 0 for none, ``"+1"`` or ``"-1"`` for more or fewer, or ``"auto"``.
        :param now: do not wait for engines that go, and leave hosts that go and are not reached as they are.
        :param timeout: seconds that engines that go have to get done with what they do.
        :param check: change nothing, not even the file.
        :raises InputError: when a number makes no sense, or the fleet file would not; nothing was changed.
        """
        return scaling.scale(self.run, self.sources, slots, scaling.How(now, timeout, check))

    def upgrade(self, *, batch: int = 1, now: bool = False, timeout: float = DRAIN_SECONDS, limit: str = "", check: bool = False) -> Result:
        """Bring other packages, or another version of ipyfleet's own, to the hosts one after another.

        The controller comes first; engines keep their memory until it is their host's turn. Each host is drained, changed
        and tried out before the next one is begun, and the first that fails is the last.

        :param batch: engine hosts at a time.
        :param now: do not wait for what engines do.
        :param timeout: seconds that the engines of a host have to get done with what they do.
        :param check: only say what would be changed.
        """
        variables = {"upgrade_batch": batch, "upgrade_now": now, "drain_timeout": timeout}
        return self.run("upgrade", limit=limit, check=check, variables=variables, takes_part=EVERYONE)
