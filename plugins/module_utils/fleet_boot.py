# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a fleet of a user without root comes back after a reboot, by what the host offers its users.

A user who lingers has services of systemd's own, which keep supervisord running as well. Else cron
starts it once, at boot. A host that offers neither is no error: its user is told what to ask for.
"""

from __future__ import annotations

import glob
import os
import pwd
import shlex
import shutil
import time
from typing import Any, Dict, List, Optional

from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_reading import regular_bytes
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_systemd import SupervisorError

LINGER, CRON = "linger", "cron"
LINGERERS = "/var/lib/systemd/linger"
SYSTEMD = "/run/systemd/system"
PROC = "/proc"
MANAGER_SECONDS = 10
# in the units of a user's fleets, when a deployment of one has made the user linger
TURNED_ON = "# ipyfleet has made this user linger"
SELF_LINGER = "org.freedesktop.login1.set-self-linger"
KILLING = ("KillUserProcesses", "KillOnlyUsers", "KillExcludeUsers")


class Boot:
    """The start of one fleet's supervisord at boot.

    :param fleet: the fleet's name.
    :param command: what starts supervisord in the background.
    :param foreground: what adds to that so that it stays in the foreground.
    :param wanted: whether it is to start at boot.
    """

    def __init__(self, module: Any, fleet: str, command: List[str], foreground: List[str], wanted: bool) -> None:
        self.module = module
        self.command = command
        self.foreground = foreground
        self.wanted = wanted
        entry = pwd.getpwuid(os.geteuid())
        self.user = entry.pw_name
        self.mark = "# ipyfleet %s" % fleet
        self.unit = "ipyfleet-%s.service" % fleet
        # the user's manager takes the home folder from the user database, whatever $HOME says
        self.folder = os.path.join(entry.pw_dir, ".config", "systemd", "user")
        self.path = os.path.join(self.folder, self.unit)
        self.link = os.path.join(self.folder, "default.target.wants", self.unit)
        self._way: Optional[str] = None

    # -- what the host offers

    def way(self) -> str:
        """`linger`, `cron`, or nothing when the host offers neither.

        What is there already stays as long as it works: another way would have to restart what runs.
        """
        if self._way is None:
            self._way = self.find_way()
        return self._way

    def find_way(self) -> str:
        """See `way`."""
        lingers = self.lingers()
        if lingers and os.path.exists(self.path):
            return LINGER
        crontab = self.crontab() if self.cron_runs() and not self.ends_with_login() else None
        if crontab is not None and (self.mine(crontab) or not lingers):
            return CRON
        return LINGER if lingers or self.may_linger() else ""

    def lingers(self) -> bool:
        """Whether this user's services run without a login."""
        return self.has_systemd() and os.path.exists(os.path.join(LINGERERS, self.user))

    def has_systemd(self) -> bool:
        """Whether systemd runs, and has managers of users."""
        return os.path.isdir(SYSTEMD) and all(shutil.which(name) for name in ("systemctl", "loginctl"))

    def may_linger(self) -> bool:
        """Whether this user may turn lingering on without a password."""
        pkcheck = shutil.which("pkcheck")
        if not (self.has_systemd() and pkcheck):
            return False
        return self.said([pkcheck, "--action-id", SELF_LINGER, "--process", str(os.getpid())]) is not None

    def ends_with_login(self) -> bool:
        """Whether what this process starts ends when its user logs out."""
        busctl = shutil.which("busctl")
        if "/session-" not in read(os.path.join(PROC, "self", "cgroup")) or not busctl:
            return False
        manager = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"]
        said = self.said([busctl, "--system", "get-property", *manager, *KILLING])
        if said is None:
            return False
        kills, only, exclude = [shlex.split(line)[1:] for line in said.splitlines()]
        return kills == ["true"] and self.user not in exclude[1:] and (only[:1] == ["0"] or self.user in only[1:])

    def cron_runs(self) -> bool:
        """Whether there is a cron that runs, as far as can be seen."""
        if not shutil.which("crontab"):
            return False
        names = [read(path).strip() for path in glob.glob(os.path.join(PROC, "[0-9]*", "comm"))]
        # some hosts show only a user's own processes
        hidden = not os.path.isdir(os.path.join(PROC, "1"))
        return hidden or any(name.endswith(("cron", "crond")) for name in names)

    def crontab(self) -> Optional[str]:
        """This user's crontab; None when there can be none."""
        code, out, err = self.module.run_command(["crontab", "-l"], environ_update={"LC_ALL": "C"})
        if code:
            return "" if "no crontab for" in err else None
        return str(out)

    def said(self, command: List[str]) -> Optional[str]:
        """What a command printed; None when it failed."""
        code, out, _ = self.module.run_command(command, environ_update=self.environment())
        return None if code else str(out)

    def environment(self) -> Dict[str, str]:
        """How the user's manager is found, from logins too that do not say so."""
        return {"LC_ALL": "C", "XDG_RUNTIME_DIR": "/run/user/%d" % os.geteuid()}

    def problem(self, there: bool = False) -> str:
        """Why the fleet does not come back after a reboot; empty when it does, or is not to.

        :param there: whether what is there counts, instead of what the next deployment brings about.
        """
        if not self.wanted:
            return ""
        ask = "ask root for `loginctl enable-linger %s`" % self.user
        if not self.way():
            return "does not come back after a reboot: no crontab, no linger; %s" % (ask if self.has_systemd() else "ask root for cron")
        if there and not (self.mine(self.crontab()) if self.way() == CRON else os.path.islink(self.link)):
            return "does not come back after a reboot yet; run site.yml for its host"
        return ""

    # -- bringing it about

    def converge(self) -> List[Dict[str, Any]]:
        """Have exactly what the host's way takes; see `Supervisord.converge`."""
        way = self.way() if self.wanted else ""
        changes = self.set_line("@reboot %s %s" % (self.cron_command(), self.mark) if way == CRON else "")
        return changes + (self.enable() if way == LINGER else self.disable())

    def remove(self) -> List[Dict[str, Any]]:
        """Take all of it away."""
        return self.set_line("") + self.disable()

    def cron_command(self) -> str:
        """The command, as a crontab has it: there, a percent sign ends the line."""
        return " ".join(map(shlex.quote, self.command)).replace("%", "\\%")

    def mine(self, crontab: Optional[str]) -> str:
        """The fleet's line of a crontab; empty when there is none."""
        return next((line for line in lines_of(crontab or "") if line.endswith(" " + self.mark)), "")

    def set_line(self, wanted: str) -> List[Dict[str, Any]]:
        """Have one line in the crontab, or none; other lines are nobody else's business, nor shown."""
        if not shutil.which("crontab"):
            return []
        text = self.crontab()
        mine = self.mine(text)
        if text is None or mine == wanted:
            return []
        others = [line for line in lines_of(text) if not line.endswith(" " + self.mark)]
        if not self.module.check_mode:
            new = "".join(line + "\n" for line in [*others, *([wanted] if wanted else [])])
            self.call(["crontab", "-"] if new else ["crontab", "-r"], new)
        what = "remove line" if not wanted else "change line" if mine else "add line"
        return [change("crontab of %s" % self.user, what, mine, wanted)]

    def unit_text(self) -> str:
        """The unit of a user who lingers."""
        before = read(self.path)
        # whichever fleet of this user goes last turns it off
        units = glob.glob(os.path.join(self.folder, "ipyfleet-*.service"))
        turned_on = any(TURNED_ON in read(path) for path in units) or (not before and not self.lingers())
        command = " ".join('"%s"' % each.replace("\\", "\\\\").replace('"', '\\"') for each in [*self.command, *self.foreground])
        lines = [
            *([TURNED_ON] if turned_on else []),
            "[Unit]",
            "Description=%s" % self.mark[2:],
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            "ExecStart=%s" % command.replace("%", "%%").replace("$", "$$"),
            # asked to end, supervisord ends without a failure, and stays so until it is started
            "Restart=on-failure",
            "RestartSec=1",
            "KillMode=mixed",
            "TimeoutStopSec=60",
            "",
            "[Install]",
            "WantedBy=default.target",
        ]
        return "".join(line + "\n" for line in lines)

    def enable(self) -> List[Dict[str, Any]]:
        """Have a unit that systemd starts at boot; it is not started here, as what it starts may run."""
        changes = [] if self.lingers() else [{"path": self.user, "what": "turn lingering on"}]
        text, before = self.unit_text(), read(self.path)
        if before != text:
            changes.append(change(self.path, "change file" if before else "create file", before, text))
        if not os.path.islink(self.link):
            changes.append({"path": self.unit, "what": "enable"})
        if changes and not self.module.check_mode:
            if not self.lingers():
                self.call(["loginctl", "--no-ask-password", "enable-linger"])
            os.makedirs(self.folder, exist_ok=True)
            with open(self.path, "w") as stream:
                stream.write(text)
            self.wait_manager()
            self.call(["systemctl", "--user", "--quiet", "enable", self.unit])
        return changes

    def disable(self) -> List[Dict[str, Any]]:
        """Take the unit away, and lingering if it was turned on for it and nothing else needs it."""
        text = read(self.path)
        if not (text or os.path.islink(self.link)):
            return []
        needed = [each for each in glob.glob(os.path.join(self.folder, "*.wants", "*")) if each != self.link]
        turn_off = TURNED_ON in text and not needed and self.lingers()
        if not self.module.check_mode:
            for path in filter(os.path.lexists, (self.link, self.path)):
                os.unlink(path)
            systemd = os.path.dirname(self.folder)
            for path in (os.path.dirname(self.link), self.folder, systemd, os.path.dirname(systemd)):
                if os.path.isdir(path) and not os.listdir(path):
                    os.rmdir(path)
            self.said(["systemctl", "--user", "daemon-reload"])
            if turn_off:
                self.call(["loginctl", "--no-ask-password", "disable-linger"])
        changes: List[Dict[str, Any]] = [{"path": self.path, "what": "remove file"}]
        return changes + ([{"path": self.user, "what": "turn lingering off"}] if turn_off else [])

    def begin(self) -> bool:
        """Start supervisord by its unit; returns whether there is one."""
        if not (os.path.exists(self.path) and self.lingers()):
            return False
        self.wait_manager()
        self.call(["systemctl", "--user", "start", self.unit])
        return True

    def wait_manager(self) -> None:
        """Wait until the user's manager takes orders: lingering has just been turned on, or the host has just booted."""
        deadline = time.monotonic() + MANAGER_SECONDS
        while self.said(["systemctl", "--user", "show", "--property=Version"]) is None and time.monotonic() < deadline:
            time.sleep(0.1)

    def call(self, command: List[str], data: str = "") -> None:
        """Run a command that has to succeed."""
        code, out, err = self.module.run_command(command, data=data or None, binary_data=True, environ_update=self.environment())
        if code:
            raise SupervisorError("%s: %s" % (" ".join(command), (err or out).strip()))


def change(path: str, what: str, before: str, after: str) -> Dict[str, Any]:
    """A change with its difference."""
    ended = [text + "\n" if text and not text.endswith("\n") else text for text in (before, after)]
    return {"path": path, "what": what, "diff": {"before": ended[0], "after": ended[1]}}


def lines_of(text: str) -> List[str]:
    """Lines as cron has them: nothing but a newline ends one."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def read(path: str) -> str:
    """The text of a file; empty when there is none."""
    try:
        return regular_bytes(path).decode("utf-8", "replace")
    except OSError:
        return ""
