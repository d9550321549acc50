"""How a fleet of scope user comes back after a reboot, on hosts that offer this or that."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ipyfleet.cluster.plugins.module_utils import fleet_boot
from ansible_collections.ipyfleet.cluster.plugins.module_utils.fleet_boot import CRON, LINGER, Boot

COMMAND = ["/home/ada lovelace/100%/python", "-m", "supervisor.supervisord"]
LINE = "@reboot '/home/ada lovelace/100\\%/python' -m supervisor.supervisord # ipyfleet lab"
THEIRS = "17 4 * * * true # backup of lab\n# ipyfleet laboratory\n\n"
# what stands in for programs of the host; each works on files of the folder that it is in
PROGRAMS = {
    "crontab": """
        case $1 in
            -l) test -e $here/tab && cat $here/tab || { echo "no crontab for ada" >&2; exit 1; };;
            -r) rm $here/tab;;
            -) cat >$here/tab;;
        esac
    """,
    "loginctl": "case $2 in enable-linger) touch $here/linger/ada;; disable-linger) rm $here/linger/ada;; esac",
    "systemctl": 'echo "$@" >>$here/called; if [ "$3" = enable ]; then mkdir -p $here/W; ln -s $here/X $here/W/$4; fi',
    "pkcheck": "",
    "busctl": "printf 'b true\\nas 0\\nas 1 \"root\"\\n'",
}


class Machine:
    """A host of ada's, who may do nothing yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        for name in ("home", "linger", "systemd", "bin", "proc/1", "proc/self", "proc/7"):
            (folder / name).mkdir(parents=True)
        (folder / "proc" / "7" / "comm").write_text("cron\n")
        (folder / "proc" / "self" / "cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
        self.tab = folder / "tab"

    def has(self, *programs: str) -> Machine:
        for name in programs:
            text = PROGRAMS[name].replace("$here/W", str(self.home / ".config/systemd/user/default.target.wants"))
            path = self.folder / "bin" / name
            path.write_text(f"#!/bin/sh\nhere={self.folder}\n{text}\n")
            path.chmod(0o755)
        return self

    def lingers(self) -> Machine:
        (self.folder / "linger" / "ada").touch()
        return self.has("systemctl", "loginctl")

    def boot(self, wanted: bool = True, check: bool = False, fleet: str = "lab") -> Boot:
        with patch_module_args({}):
            module = AnsibleModule(argument_spec={}, supports_check_mode=True)
        module.check_mode = check
        return Boot(module, fleet, COMMAND, ["--nodaemon"], wanted)

    def converge(self, **options: Any) -> list[str]:
        return [each["what"] for each in self.boot(**options).converge()]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.home.rglob("*"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setattr(fleet_boot, "LINGERERS", str(tmp_path / "linger"))
    monkeypatch.setattr(fleet_boot, "SYSTEMD", str(tmp_path / "systemd"))
    monkeypatch.setattr(fleet_boot, "PROC", str(tmp_path / "proc"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_name="ada", pw_dir=str(found.home)))
    # the programs stand on a shell and its tools, and the host's own are none of theirs
    (tmp_path / "tools").mkdir()
    for name in ("cat", "rm", "touch", "mkdir", "ln"):
        (tmp_path / "tools" / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{tmp_path}/tools")
    return found


def test_a_crontab_gets_one_line_and_keeps_the_others(machine: Machine) -> None:
    machine.has("crontab").tab.write_text(THEIRS)
    assert machine.converge(check=True) == ["add line"]
    assert machine.tab.read_text() == THEIRS
    assert machine.converge() == ["add line"]
    assert machine.tab.read_text() == f"{THEIRS}{LINE}\n"
    assert machine.converge() == []
    machine.tab.write_text(machine.tab.read_text().replace("-m ", "-n "))
    assert machine.boot().converge()[0]["diff"] == {"before": f"{LINE.replace('-m ', '-n ')}\n", "after": f"{LINE}\n"}
    assert machine.boot().remove()[0]["what"] == "remove line"
    assert machine.tab.read_text() == THEIRS
    assert machine.boot().remove() == []


def test_lines_of_a_crontab_are_what_cron_takes_for_lines(machine: Machine) -> None:
    theirs = "# page\x0cbreak\x1c\n0 4 * * * printf 'a\x0b\x85b'\n"
    machine.has("crontab").tab.write_text(theirs)
    machine.converge()
    assert machine.tab.read_text() == f"{theirs}{LINE}\n"
    machine.boot().remove()
    assert machine.tab.read_text() == theirs


def test_a_crontab_of_its_own_goes_with_it(machine: Machine) -> None:
    machine.has("crontab")
    machine.converge()
    assert machine.tab.read_text() == f"{LINE}\n"
    assert machine.boot(wanted=False).converge()[0]["what"] == "remove line"
    assert not machine.tab.exists()


def test_who_lingers_gets_a_unit(machine: Machine) -> None:
    machine.lingers().has("crontab")
    assert machine.converge(check=True) == ["create file", "enable"]
    assert machine.files() == []
    assert machine.converge() == ["create file", "enable"]
    assert 'ExecStart="/home/ada lovelace/100%%/python" "-m" "supervisor.supervisord" "--nodaemon"' in Path(machine.boot().path).read_text()
    assert machine.converge() == []
    assert not machine.tab.exists()
    assert [each["what"] for each in machine.boot().remove()] == ["remove file"]
    assert machine.files() == []
    assert machine.boot().lingers()


def test_lingering_is_turned_on_where_that_is_allowed_and_off_again(machine: Machine) -> None:
    machine.has("systemctl", "loginctl", "pkcheck")
    assert machine.converge(check=True) == ["turn lingering on", "create file", "enable"]
    assert not machine.boot().lingers()
    assert machine.converge() == ["turn lingering on", "create file", "enable"]
    assert machine.converge() == []
    assert machine.boot().lingers()
    assert [each["what"] for each in machine.boot().remove()] == ["remove file", "turn lingering off"]
    assert not machine.boot().lingers()


def test_lingering_that_something_else_needs_stays_on(machine: Machine) -> None:
    machine.has("systemctl", "loginctl", "pkcheck")
    machine.converge()
    other = Path(machine.boot().link).with_name("ipyfleet-other.service")
    other.touch()
    assert [each["what"] for each in machine.boot().remove()] == ["remove file"]
    assert machine.boot().lingers()
    assert other.exists()


@pytest.mark.parametrize("first", ["lab", "other"])
def test_lingering_is_turned_off_with_the_last_fleet_of_a_user(machine: Machine, first: str) -> None:
    machine.has("systemctl", "loginctl", "pkcheck")
    last = "other" if first == "lab" else "lab"
    for fleet in ("lab", "other"):
        machine.boot(fleet=fleet).converge()
        assert machine.boot(fleet=fleet).converge() == []
    assert [each["what"] for each in machine.boot(fleet=first).remove()] == ["remove file"]
    assert machine.boot(fleet=last).converge() == []
    assert [each["what"] for each in machine.boot(fleet=last).remove()] == ["remove file", "turn lingering off"]
    assert not machine.boot().lingers()


def test_a_crontab_is_taken_before_lingering_is_turned_on(machine: Machine) -> None:
    assert machine.has("crontab", "systemctl", "loginctl", "pkcheck").boot().way() == CRON


def test_a_way_that_works_stays_when_another_one_is_opened(machine: Machine) -> None:
    machine.has("crontab").converge()
    machine.lingers()
    assert machine.boot().way() == CRON
    assert machine.converge() == []


def test_another_way_is_taken_when_one_is_closed(machine: Machine) -> None:
    machine.lingers().has("crontab").converge()
    (machine.folder / "linger" / "ada").unlink()
    assert machine.converge() == ["add line", "remove file"]


def test_where_nothing_lasts_beyond_the_login_a_crontab_does_not_help(machine: Machine) -> None:
    machine.has("crontab", "busctl")
    assert machine.boot().ends_with_login()
    assert machine.boot().way() == ""
    (machine.folder / "proc" / "self" / "cgroup").write_text("0::/system.slice/ssh.service\n")
    assert not machine.boot().ends_with_login()
    assert machine.boot().way() == CRON
    assert machine.lingers().boot().way() == LINGER


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ("b true\nas 0\nas 1 root", True),
        ("b false\nas 0\nas 1 root", False),
        ("b true\nas 0\nas 2 root ada", False),
        ("b true\nas 1 bob\nas 0", False),
        ("b true\nas 2 bob ada\nas 0", True),
    ],
)
def test_whose_processes_end(machine: Machine, said: str, ends: bool) -> None:
    machine.has("busctl")
    (machine.folder / "bin" / "busctl").write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    assert machine.boot().ends_with_login() is ends


def test_a_cron_that_does_not_run_does_not_count(machine: Machine) -> None:
    machine.has("crontab")
    (machine.folder / "proc" / "7" / "comm").write_text("sshd\n")
    assert machine.boot().way() == ""
    os.rmdir(machine.folder / "proc" / "1")
    assert machine.boot().way() == CRON


def test_who_may_not_use_cron_is_told_what_to_ask_for(machine: Machine) -> None:
    machine.has("crontab", "systemctl", "loginctl")
    (machine.folder / "bin" / "crontab").write_text("#!/bin/sh\necho 'You (ada) are not allowed to use this program' >&2\nexit 1\n")
    ask = "ask root for `loginctl enable-linger ada`"
    assert machine.boot().problem() == f"does not come back after a reboot: no crontab, no linger; {ask}"
    assert machine.converge() == []
    assert machine.boot(wanted=False).problem() == ""


@pytest.mark.parametrize("lingers", [False, True])
def test_what_is_yet_to_be_deployed_is_told_to_who_asks_how_it_is(machine: Machine, lingers: bool) -> None:
    machine.has("crontab")
    if lingers:
        machine.lingers()
    assert machine.boot().problem() == ""
    assert machine.boot().problem(there=True) == "does not come back after a reboot yet; run site.yml for its host"
    machine.converge()
    assert machine.boot().problem(there=True) == ""
