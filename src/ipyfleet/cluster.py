"""A fleet as a Python object: every verb is a playbook that is run, and a result."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipyfleet import content, runner
from ipyfleet.access import CONNECTION, Access, read_access
from ipyfleet.client import CLIENT_SECONDS, ask_engines, find_way, new_client
from ipyfleet.connect import Connection, Wish, open_connection
from ipyfleet.day_two import DayTwo
from ipyfleet.errors import Cancelled, ClientError, InputError
from ipyfleet.results import ClientCheck, Failure, Result
from ipyfleet.tunnel import Tunnel
from ipyfleet.upkeep import Upkeep

EVERYONE = ("ipp_controller", "ipp_engine", "ipp_client", "jupyterlab")
SERVICES = ("ipp_controller", "ipp_engine", "jupyterlab")
Services = Sequence[str | int]
# what cancels the calls of a context; each has its own where there is none
CANCEL: ContextVar[threading.Event] = ContextVar("CANCEL")
# what would have ansible-playbook ask, and how to answer instead
ASKING = {
    **dict.fromkeys(("-K", "--ask-become-pass"), "give -K before --, or become_password"),
    **dict.fromkeys(("-k", "--ask-pass"), "give -k before --, or ssh_password"),
    **dict.fromkeys(("-J", "--ask-vault-pass", "--ask-vault-password"), "give -J before --, or vault_password"),
}


class Cluster(DayTwo, Upkeep):
    """One fleet: ``Cluster("lab.fleet.yml").up()``.

    :param fleet: a fleet file, or another inventory; several, if more sources supply hosts or variables.
    :param variables: extra variables for every run, as ``ansible-playbook -e``.
    :param arguments: more words for ansible-playbook's command line, such as ``--vault-password-file=F``;
        they are shown in lists of processes, so never secrets.
    :param become_password: what sudo asks for.
    :param ssh_password: what ssh asks for.
    :param vault_password: what Ansible Vault asks for.
    :param on_progress: called with a `ipyfleet.events.Progress` for everything that happens.
    :raises InputError: when a source does not exist, or an argument would ask something.
    """

    def __init__(
        self,
        fleet: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        variables: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        become_password: str | None = None,
        ssh_password: str | None = None,
        vault_password: str | None = None,
        on_progress: runner.OnProgress | None = None,
    ) -> None:
        given = [fleet] if isinstance(fleet, (str, os.PathLike)) else list(fleet)
        self.sources = [str(Path(each).expanduser().absolute()) for each in given]
        missing = [each for each in self.sources if not Path(each).exists()]
        if missing or not given:
            raise InputError(
                [f"{each}: expected a fleet file, got no such file" for each in missing] or ["expected a fleet file, got none"]
            )
        self.variables = dict(variables or {})
        self.arguments = list(arguments)
        asking = [word for word in self.arguments if word in ASKING]
        if asking:
            raise InputError([f"{word}: expected no question that nobody could answer, got one; {ASKING[word]}" for word in asking])
        self.on_progress = on_progress
        self._prompts = {
            ("--ask-become-pass", r"^BECOME password.*:\s*?$"): become_password,
            ("--ask-pass", r"^SSH password.*:\s*?$"): ssh_password,
            ("--ask-vault-pass", r"^Vault password.*:\s*?$"): vault_password,
        }
        self._cancel: threading.Event | None = None

    def __repr__(self) -> str:
        return f"Cluster({', '.join(map(repr, self.sources))})"

    # -- verbs

    def up(self, *, limit: str = "", check: bool = False, diff: bool = False) -> Result:
        """Bring every host about, then run code on every engine. A second call changes nothing.

        :param limit: only these hosts, as ``ansible-playbook --limit``.
        :param check: only say what would be changed.
        :param diff: keep the differences of files in the result; secrets are masked.
        """
        return self.run("site", verb="up", limit=limit, check=check, diff=diff, takes_part=EVERYONE)

    def verify(self, *, client: bool = True, limit: str = "") -> Result:
        """Run code on every engine: from the controller's host, then from this machine.

        :param client: whether to do so from this machine as well.
        """
        result = self.run("verify", limit=limit)
        return self._with_client(result) if client and result.ok else result

    def status(self, *, limit: str = "") -> Result:
        """Say how each slot's service does, and whether the controller lists its engine."""
        return self.run("status", limit=limit, takes_part=SERVICES)

    def doctor(self, *, fix: bool = False, limit: str = "", check: bool = False) -> Result:
        """Say why something is not as it should be, a cause in a line; see `Result.findings`.

        :param fix: do what is safe about it: start and restart services, write connection files as they were
            deployed, renew the database's certificate.
        :param check: with `fix`, only say what would be done.
        """
        return self.run("doctor", limit=limit, check=check, variables={"doctor_fix": fix}, takes_part=SERVICES)

    def start(self, *, services: Services = (), limit: str = "", check: bool = False, verify: bool = True) -> Result:
        """Start the services that do not run, then run code on every engine.

        :param services: only these: slots such as ``node1/0``, engine ids, ``controller`` or ``jupyterlab``.
        :param verify: whether to wait until engines answer.
        """
        variables = {"chosen_services": named(services), "verify_after": verify}
        return self.run("start", limit=limit, check=check, variables=variables, takes_part=SERVICES)

    def stop(self, *, services: Services = (), limit: str = "", check: bool = False) -> Result:
        """Stop the services until they are started, or their host boots. Engines lose their memory.

        :param services: as for `start`.
        """
        return self.run("stop", limit=limit, check=check, variables={"chosen_services": named(services)}, takes_part=SERVICES)

    def restart(self, *, services: Services = (), limit: str = "", check: bool = False, verify: bool = True) -> Result:
        """Restart the services, then run code on every engine. Engines lose their memory.

        :param services: as for `start`, as is `verify`.
        """
        variables = {"chosen_services": named(services), "verify_after": verify}
        return self.run("restart", limit=limit, check=check, variables=variables, takes_part=SERVICES)

    def signal(self, name: str, *, services: Services = (), limit: str = "", check: bool = False) -> Result:
        """Send a signal to engines; what ends by it is started again.

        :param name: ``INT``, which interrupts the code that they run, or HUP, QUIT, KILL, USR1, USR2, TERM.
        :param services: as for `start`; all engines when empty.
        """
        variables = {"chosen_services": named(services), "signal_name": name.removeprefix("SIG")}
        return self.run("signal", limit=limit, check=check, variables=variables, takes_part=SERVICES)

    def teardown(self, *, data: bool = False, keys: bool = False, limit: str = "", check: bool = False) -> Result:
        """Take the fleet away from its hosts.

        :param data: what engines wrote to their work folder as well.
        :param keys: the fleet's keys on this machine as well.
        """
        variables = {"teardown_data": data, "teardown_keys": keys}
        return self.run("teardown", limit=limit, check=check, variables=variables, takes_part=EVERYONE)

    def logs(self, *, lines: int = 20, since: str = "", services: Services = (), limit: str = "") -> Result:
        """Read what the services said; see `Result.logs`.

        :param services: as for `start`.
        :param lines: at most so many of each service.
        :param since: from when on, in the words of journalctl, such as ``-1h``.
        """
        variables = {"logs_lines": lines, "logs_since": since, "chosen_services": named(services)}
        return self.run("logs", limit=limit, variables=variables, takes_part=SERVICES)

    def execute(self, command: str, *, limit: str = "", become: bool = False) -> Result:
        """Run a shell command on every host; what it printed is in `Result.logs`.

        :param become: as root, rather than as the user who logs in.
        """
        variables = {"exec_command": command, "exec_become": become}
        return self.run("exec", limit=limit, variables=variables, takes_part=EVERYONE)

    def validate(self, *, limit: str = "") -> Result:
        """Check the inventory and every host without changing anything."""
        return self.run("validate", limit=limit, takes_part=EVERYONE)

    def inventory(self) -> Result:
        """Say what was understood of the fleet file; no host is asked. See `Result.data` for all of it."""
        return self.run("inventory")

    def backup(self) -> Result:
        """Back up the fleet's databases now; the new one is the first of `Result.backups`."""
        return self.run("backup")

    def backups(self) -> Result:
        """Say what backups there are, and which are proven; see `Result.backups`."""
        return self.run("backups")

    def drill(self) -> Result:
        """Prove the newest backup: restore it into a server that is thrown away, and compare every row."""
        return self.run("drill")

    def restore(
        self,
        database: str,
        *,
        backup: str = "latest",
        overwrite: str = "",
        drop_old: bool = False,
        trust: bool = False,
        check: bool = False,
    ) -> Result:
        """Bring a database back from a backup; see `Result.restored`.

        Until all of it is there and compared, and when anything fails, the database is as it was.

        :param backup: name of a backup, or ``latest``.
        :param overwrite: the database's name once more, to replace one that is there.
        :param drop_old: drop the one that was there, instead of keeping it under another name.
        :param trust: run code that users wrote into the database, such as checks, with a superuser's rights.
        :param check: only say what would be done.
        """
        variables = {
            "restore_database": database,
            "restore_backup": backup,
            "restore_overwrite": overwrite,
            "restore_drop_old": drop_old,
            "restore_trust": trust,
        }
        return self.run("restore", check=check, variables=variables)

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
        inventory: Sequence[str] = (),
    ) -> Result:
        """Run a playbook on the fleet: one of ours by its name, or any other by its path.

        :param verb: what the result calls it; the playbook's name when empty.
        :param takes_part: roles whose hosts must be heard of for the result to be good.
        :param inventory: other sources than the fleet's.
        :raises InputError: when the inventory or a variable is wrong; no host was touched.
        """
        return self._run(
            playbook,
            on_progress=self.on_progress,
            verb=verb,
            limit=limit,
            check=check,
            diff=diff,
            variables=variables,
            takes_part=takes_part,
            inventory=inventory,
        )

    def _run(
        self,
        playbook: str | os.PathLike[str],
        *,
        on_progress: runner.OnProgress | None,
        verb: str = "",
        limit: str = "",
        check: bool = False,
        diff: bool = False,
        variables: Mapping[str, Any] | None = None,
        takes_part: tuple[str, ...] = (),
        inventory: Sequence[str] = (),
    ) -> Result:
        path = Path(playbook).expanduser()
        known = path.suffix not in (".yml", ".yaml")
        if not known and not path.exists():
            raise InputError([f"{path}: expected a playbook, got no such file"])
        prompts = {key: secret for key, secret in self._prompts.items() if secret is not None}
        arguments = [*self.arguments, *(option for option, _ in prompts)]
        arguments += [f"--limit={limit}"] if limit else []
        arguments += ["--check"] if check else []
        arguments += ["--diff"] if diff else []
        request = runner.Request(
            verb=verb or path.stem,
            playbook=content.playbook(str(playbook)) if known else path.absolute(),
            inventory=list(inventory) or self.sources,
            variables={**self.variables, **(variables or {})},
            arguments=arguments,
            passwords={prompt: secret for (_, prompt), secret in prompts.items()},
            takes_part=takes_part,
            check=check,
            diff=diff,
        )
        self._cancel = CANCEL.get(None) or threading.Event()
        try:
            return runner.run(request, on_progress, self._cancel)
        finally:
            self._cancel = None

    def cancel(self) -> None:
        """Cancel the call that another thread is in; it ends with status ``cancelled``."""
        if event := self._cancel:
            event.set()

    # -- being a client

    def access(self) -> Access:
        """What a client needs, made from the fleet's keys on this machine, and the way to get there.

        :raises ClientError: when there are no keys here, because it was not deployed from here.
        """
        with runner.private_folder() as folder:
            result = self._run("client", variables={"client_dir": str(folder)}, on_progress=None)
            if result.status == "cancelled":
                raise Cancelled(result)
            if not result.ok or not (folder / CONNECTION).exists():
                raise ClientError("; ".join(str(failure) for failure in result.failures) or "no connection file was made")
            return read_access(folder, result.data)

    def connect(
        self,
        *,
        port: int | None = None,
        user: str = "",
        identity: str | os.PathLike[str] = "",
        on_news: Callable[[str], None] | None = None,
    ) -> Connection:
        """Bring JupyterLab, the controller and the database to this machine, through one ssh process.

        It goes through JupyterLab's host, or through the controller's where there is none. An ssh that ends is
        started anew until `Connection.close`, which a ``with`` block calls by itself.

        :param port: of this machine, for JupyterLab: the one that it has there when None, any when 0.
        :param user: who logs in, where it is not who deploys.
        :param identity: that user's private key.
        :param on_news: told, in a thread of its own, when ssh ends, and when it is back.
        :raises InputError: when an argument is wrong.
        :raises ClientError: when it does not get there, with the reason.
        """
        identity = os.fspath(Path(identity).expanduser().absolute()) if identity else ""
        return open_connection(self.access(), Wish(port, user, identity), on_news or (lambda _: None))

    def client(self, *, timeout: float = CLIENT_SECONDS) -> Any:
        """An ipyparallel Client of the fleet, from this machine.

        Where the controller's ports do not answer from here, it goes through ssh to the controller's
        host; that tunnel ends when the client is no longer used.

        :param timeout: seconds to wait for the controller.
        :raises ClientError: when neither way leads to it.
        """
        client, tunnel = self._client(self.access(), timeout)
        if tunnel:
            weakref.finalize(client, tunnel.close)
        return client

    def _client(self, access: Access, timeout: float) -> tuple[Any, Tunnel | None]:
        info, tunnel = find_way(access)
        try:
            return new_client(info, access.host, timeout), tunnel
        except BaseException:
            if tunnel:
                tunnel.close()
            raise

    def _with_client(self, result: Result) -> Result:
        begin = time.monotonic()
        wanted = {slot.id: slot.pid for slot in result.slots}
        try:
            client, tunnel = self._client(self.access(), CLIENT_SECONDS)
            try:
                found = ask_engines(client, list(wanted), CLIENT_SECONDS)
            finally:
                client.close()
                if tunnel:
                    tunnel.close()
        except Cancelled:
            return replace(result, status="cancelled")
        except ClientError as error:
            check = ClientCheck(ok=False, message=str(error), seconds=round(time.monotonic() - begin, 3))
        else:
            # the same process ids as the controller's host saw: these are the very engines
            good = tuple(number for number, pid in wanted.items() if found.get(number) == pid)
            missing = sorted(set(wanted) - set(good))
            message = f"engines {', '.join(map(str, missing))} did not answer it as they did the controller's host" if missing else ""
            check = ClientCheck(not missing, "ssh" if tunnel else "direct", good, round(time.monotonic() - begin, 3), message)
        result = replace(result, client=check, seconds=round(result.seconds + check.seconds, 3))
        if check.ok:
            return result
        failure = Failure(f"a client on this machine: {check.message}")
        return replace(result, status="partial", failures=(*result.failures, failure))


def named(services: Services) -> list[str]:
    """Services as the playbooks take them; a single word is one of them, not its letters."""
    return [str(each) for each in ([services] if isinstance(services, str) else services)]
