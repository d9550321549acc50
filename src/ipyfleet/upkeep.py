"""Verbs of the second day: what `Cluster` does for people who look after a fleet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ipyfleet.errors import InputError, RunError
from ipyfleet.follow import Following, Source, Wanted
from ipyfleet.results import Result

EVERYONE = ("ipp_controller", "ipp_engine", "ipp_client", "jupyterlab")
SERVICES = ("ipp_controller", "ipp_engine", "jupyterlab")


class Upkeep:
    """A part of `Cluster`."""

    _prompts: Mapping[tuple[str, str], str | None]

    def run(
        self,
        playbook: str | os.PathLike[str],
        *,
        verb: str = "",
        limit: str = "",
        check: bool = False,
        diff: bool = False,
        variables: Mapping[str, Any] | None = None,
        takes_part: tuple[str, ...] = (),
    ) -> Result:
        """Run a playbook, as `Cluster` does it."""
        raise NotImplementedError

    def follow(self, *, lines: int = 20, since: str = "", services: Sequence[str | int] = (), limit: str = "") -> Following:
        """Follow what the services say, of all hosts in one stream, until it is closed.

        :param lines: at most so many of before: of each host, in scope ``user`` of each service.
        :param since: from when on, in the words of journalctl; of no effect in scope ``user``.
        :param services: as for `start`.
        :raises RunError: when no host answers.
        """
        words = [str(each) for each in ([services] if isinstance(services, str) else services)]
        variables = {"logs_lines": 1, "chosen_services": words}
        found = self.run("logs", limit=limit, variables=variables, takes_part=SERVICES)
        known = found.data.get("logs", {})
        reach = {str(each["name"]): each["reach"] for each in found.data.get("hosts", [])}
        sources = [Source(host, reach[host], tuple(units)) for host, units in known.items() if units]
        if found.fleet is None or not sources:
            raise RunError(found)
        password = next((value for (option, _), value in self._prompts.items() if option == "--ask-become-pass"), None)
        following = Following(Wanted(found.fleet.name, found.fleet.scope, lines, since, password or ""), sources)
        following.failures.update({each.host: each.message for each in found.failures if each.host})
        return following

    def sync(
        self,
        folder: str | os.PathLike[str],
        *,
        exclude: Sequence[str] = (),
        restart: bool = False,
        limit: str = "",
        check: bool = False,
    ) -> Result:
        """Bring a folder of your own code to all hosts, where what is in it can be imported.

        :param exclude: patterns of names, or of paths below the folder, of what is left out beside what is no code.
        :param restart: start engines anew, so that they have it now; they lose their memory.
        :raises InputError: when there is no such folder.
        """
        path = Path(folder).expanduser().absolute()
        if not path.is_dir():
            raise InputError([f"{path}: expected a folder, got {'a file' if path.exists() else 'nothing there'}"])
        variables = {"sync_folder": str(path), "sync_exclude": list(exclude), "sync_restart": restart}
        return self.run("sync", limit=limit, check=check, variables=variables, takes_part=EVERYONE)

    def rotate(self, what: str | Sequence[str], *, check: bool = False) -> Result:
        """Make new keys instead of those that the fleet has, bring them to every host, and run code on every engine.

        :param what: ``hub-key``, with which engines lose their memory, ``certificates``, ``passwords``, ``all``; or several.
        :raises InputError: when it is none of these.
        """
        words = [what] if isinstance(what, str) else list(what)
        return self.run("rotate", check=check, variables={"rotate_what": words}, takes_part=EVERYONE)

    def bundle(self, path: str | os.PathLike[str] = "", *, lines: int = 500, limit: str = "", check: bool = False) -> Result:
        """Write an archive for a bug report, without secrets; see `Result.path`.

        :param path: the archive, for nobody else to read; in the current folder, and named after the fleet and the time, when empty.
        :param lines: at most so many of each service's log.
        :raises InputError: when it cannot be written there.
        """
        dest = Path(path or f"ipyfleet-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz").expanduser().absolute()
        if not dest.parent.is_dir() or dest.is_dir():
            raise InputError([f"{dest}: expected a file in a folder that is there, got another path"])
        variables = {"bundle_file": str(dest), "bundle_lines": lines}
        result = self.run("bundle", limit=limit, check=check, variables=variables)
        return replace(result, path=str(dest)) if result.ok and not check else result
