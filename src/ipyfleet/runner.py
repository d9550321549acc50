"""Run a playbook by ansible-runner; the only module that knows it.

What ansible-runner would do by itself and this does not let it: switch off the check of host keys,
put variables on the command line, keep files with them, take over signals, keep every event, and
leave Ansible's workers running when it is cancelled.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sysconfig
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ipyfleet import content
from ipyfleet.errors import CallbackError, InputError, InstallationError
from ipyfleet.events import Collector, Progress
from ipyfleet.results import Result

# an interrupted Ansible ends at once; one that does not is killed after this time
GRACE_SECONDS = 15.0
AGAIN_SECONDS = 3.0
MARK = "IPYFLEET_RUN"
# where private folders are made, if it is there
MEMORY = "/dev/shm"  # noqa: S108  (each gets a name of its own there)
SETTINGS = {"pexpect_timeout": 1}

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Request:
    """What to run.

    :param verb: what the run is called in its result.
    :param playbook: path of the playbook.
    :param inventory: sources, as for ``ansible-playbook -i``.
    :param variables: extra variables; they may be secret.
    :param arguments: words for ansible-playbook's command line; never secret.
    :param passwords: answers to Ansible's prompts, by regular expression.
    :param takes_part: roles whose hosts must be heard of.
    """

    verb: str
    playbook: Path
    inventory: Sequence[str]
    variables: Mapping[str, Any] = field(default_factory=dict, repr=False)
    arguments: Sequence[str] = ()
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    takes_part: tuple[str, ...] = ()
    check: bool = False
    diff: bool = False


def run(request: Request, on_progress: OnProgress | None = None, cancel: threading.Event | None = None) -> Result:
    """Run a playbook to its end and return what came of it.

    A Ctrl-C, an exception in `on_progress` and a set `cancel` all end Ansible and its workers
    before this returns or raises.

    :param on_progress: called for everything that happens, in a thread of its own.
    :param cancel: set it from elsewhere to cancel the run.
    :raises CallbackError: when `on_progress` raised; it has the result so far.
    :raises InputError: when the inventory or a variable is wrong; no host was touched.
    :raises InstallationError: when Ansible is not there.
    """
    collector = Collector(request.verb, request.check, request.diff, request.takes_part)
    begin = time.monotonic()
    with private_folder() as folder:
        write_settings(folder, request)
        playing = _Playing(request, folder, collector, on_progress, cancel or threading.Event())
        rc = playing.wait()
    if rc == 127:
        raise InstallationError("ansible-playbook was not found; install ansible-core beside ipyfleet")
    problems = collector.input_problems or ([] if collector.played or rc == 0 or playing.cancelled else collector.errors)
    if problems:
        raise InputError(problems)
    result = collector.result(rc, time.monotonic() - begin, playing.cancelled)
    if playing.raised_by_callback:
        raise CallbackError(result) from playing.raised_by_callback
    return result


class _Playing:
    """One run of ansible-runner in a thread of its own, so that this one can be interrupted."""

    def __init__(
        self, request: Request, folder: Path, collector: Collector, on_progress: OnProgress | None, cancel: threading.Event
    ) -> None:
        self.request = request
        self.folder = folder
        self.collector = collector
        self.on_progress = on_progress
        self.cancel = cancel
        self.mark = uuid.uuid4().hex
        self.kill = threading.Event()
        self.done = threading.Event()
        self.pid = 0
        self.rc = 1
        self.raised: BaseException | None = None
        self.raised_by_callback: BaseException | None = None
        self.interrupted_at = 0.0
        self.cancelled = False
        self.thread = threading.Thread(target=self._work, name="ansible-runner", daemon=True)

    def wait(self) -> int:
        """Run to the end; returns ansible-playbook's exit code."""
        interrupt: KeyboardInterrupt | None = None
        asked_at = 0.0
        self.thread.start()
        # an event, since an interrupted join may take a thread that runs for one that has ended
        while not self.done.is_set():
            try:
                self.done.wait(0.1)
                if self.cancel.is_set():
                    asked_at = asked_at or time.monotonic()
                    self._end(asked_at)
            except KeyboardInterrupt as error:
                interrupt = error
                self.cancel.set()
        self.cancelled = asked_at > 0
        if asked_at:
            self._end_orphans()
        if self.raised is not None:
            raise self.raised
        if interrupt is not None:
            raise interrupt
        return self.rc

    def _end(self, asked_at: float) -> None:
        # Ansible tells its workers only when it is interrupted; a kill would leave them running
        if time.monotonic() - asked_at > GRACE_SECONDS:
            self.kill.set()
        elif self.pid and time.monotonic() - self.interrupted_at > AGAIN_SECONDS:
            # once more after a while: an interrupt between two lines of Ansible's can get lost
            self.interrupted_at = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT)

    def _work(self) -> None:
        try:
            import ansible_runner

            done = ansible_runner.run(
                private_data_dir=str(self.folder),
                playbook=str(self.request.playbook),
                inventory=list(self.request.inventory),
                cmdline=shlex.join(self.request.arguments) or None,
                envvars={**environment(), MARK: self.mark},
                fact_cache_type="memory",
                quiet=True,
                event_handler=self._event,
                cancel_callback=self.kill.is_set,
            )
            self.rc = int(done.rc if done.rc is not None else 1)
        except BaseException as error:
            self.raised = self.raised or error
        finally:
            self.done.set()

    def _event(self, event: Mapping[str, Any]) -> bool:
        self.pid = self.pid or int(event.get("pid") or 0)
        try:
            news = self.collector.read(event)
        except Exception as error:
            self.raised = self.raised or error
            self.cancel.set()
            return False
        try:
            for progress in news:
                if self.on_progress and self.raised_by_callback is None:
                    self.on_progress(progress)
        except BaseException as error:
            # ansible-runner would let it pass, and Ansible go on
            self.raised_by_callback = error
            self.cancel.set()
        return False

    def _end_orphans(self) -> None:
        """End what Ansible's workers leave when they are interrupted: connections to hosts, and modules on this one.

        Those are in a session whose leader, the worker, is gone. What leads a session of its own was meant
        to outlive the run: a fleet on this machine, an ssh that keeps connections for the next run.
        """
        mine = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    mine.append(process)
        workers = [process for process in mine if is_ansible(process)]
        for process in workers:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(workers, timeout=GRACE_SECONDS)
        for process in mine:
            with contextlib.suppress(psutil.Error, OSError):
                if not psutil.pid_exists(os.getsid(process.pid)):
                    process.terminate()


def is_ansible(process: psutil.Process) -> bool:
    """Whether a process is ansible-playbook, or a worker of it."""
    with contextlib.suppress(psutil.Error):
        return any(os.path.basename(word) == "ansible-playbook" for word in process.cmdline()[:3])
    return False


def environment() -> dict[str, str]:
    """Environment of Ansible: it finds itself, and our tree."""
    return {**content.environ(), "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that nobody else can read, in memory where that can be, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ipyfleet-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


def write_settings(folder: Path, request: Request) -> None:
    """Write what ansible-runner reads: given as arguments, it would put variables on the command line."""
    # where Ansible runs: paths on its command line are those of the caller
    (folder / "project").symlink_to(Path.cwd())
    env = folder / "env"
    env.mkdir(mode=0o700)
    for name, value in (("settings", SETTINGS), ("extravars", dict(request.variables)), ("passwords", dict(request.passwords))):
        if value:
            path = env / name
            path.touch(mode=0o600)
            path.write_text(json.dumps(value, default=str), encoding="utf-8")
