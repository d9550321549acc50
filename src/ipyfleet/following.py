"""What a host runs to say what services say while they say it, and how its words are read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ipyfleet.results import LogLine

# ends with what it was asked through: whoever waits for it holds its standard input
WRAPPED = """exec 3<&0
echo
trap 'kill $all 2>/dev/null; exit 0' HUP INT TERM PIPE
{start}
(cat <&3 >/dev/null 2>&1; kill -TERM $$) >/dev/null 2>&1 &
wait $first; ended=$?
kill $all 2>/dev/null
exit $ended"""
JOURNAL = "{command} 3<&- </dev/null & first=$!; all=$first"
# by which an entry says whose it is; others speak about a unit, a unit speaks for itself
OWNERS = ("UNIT", "OBJECT_SYSTEMD_UNIT", "COREDUMP_UNIT", "_SYSTEMD_UNIT")
FIELDS = ",".join(("MESSAGE", "SYSLOG_IDENTIFIER", "_PID", *OWNERS))
# how a line of a file begins, and what ends the name of its unit
MARK = "\t"


def journal_script(fleet: str, units: Sequence[str], lines: int, since: str, cursor: str, password: bool) -> str:
    """What follows the journal of a host of scope ``system``, as root.

    :param units: as the fleet calls them, such as ``engine@0``.
    :param lines: at most so many of before.
    :param since: in the words of journalctl; empty for any time.
    :param cursor: of the last line that was read, to go on behind it; empty to begin.
    :param password: whether sudo's is the first line of standard input.
    """
    words = ["journalctl", "-q", "-f", "-a", "-o", "json", f"--output-fields={FIELDS}"]
    words += [f"--after-cursor={cursor}", "-n", "all"] if cursor else ["-n", str(lines), *(["--since", since] if since else [])]
    for unit in units:
        words += ["-u", f"ipyfleet-{fleet}-{unit}.service"]
    inner = WRAPPED.format(start=JOURNAL.format(command=shlex.join(words)))
    sudo = "sudo -S -p ''" if password else "sudo -n"
    quoted = shlex.quote(inner)
    drop = "read -r _; " if password else ""
    return f'if [ "$(id -u)" = 0 ]; then {drop}exec sh -c {quoted}; else exec {sudo} -- sh -c {quoted}; fi'


def files_script(fleet: str, units: Sequence[str], lines: int) -> str:
    """What follows the logs of supervisord's programs on a host of scope ``user``.

    :param lines: at most so many of before, of each.
    """
    start = ['run="$HOME/.local/share/ipyfleet/"' + shlex.quote(fleet) + "/run", "all="]
    for number, unit in enumerate(units):
        pipe = f'"$run/.follow-$$-{number}"'
        # through a pipe with a name, so that the process id of tail is known
        start += [
            f"rm -f {pipe}; mkfifo -m 600 {pipe} || exit 1",
            f'tail -n {lines} -F "$run"/{shlex.quote(unit)}.log >{pipe} 2>/dev/null 3<&- </dev/null & all="$all $!"',
            # the name is of no use any more once both ends are open
            f"{{ rm -f {pipe}; while IFS= read -r line; do printf '%s\\t%s\\n' {shlex.quote(unit)} \"$line\"; done; }}"
            f' <{pipe} 3<&- & first=$!; all="$all $!"',
        ]
    return WRAPPED.format(start="\n".join(start))


def read_journal(host: str, fleet: str, line: str) -> tuple[LogLine | None, str]:
    """A line of the journal, and its cursor; no line where it is none."""
    try:
        entry: Mapping[str, Any] = json.loads(line)
        stamp = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6).astimezone().isoformat(timespec="seconds")
    except (ValueError, KeyError, TypeError):
        return None, ""
    name = next((str(entry[key]) for key in OWNERS if entry.get(key)), "")
    unit = name.removeprefix(f"ipyfleet-{fleet}-").removesuffix(".service")
    who = entry.get("SYSLOG_IDENTIFIER") or "-"
    pid = f"[{entry['_PID']}]" if entry.get("_PID") else ""
    return LogLine(host, unit, f"{stamp} {who}{pid}: {text_of(entry.get('MESSAGE'))}"), str(entry.get("__CURSOR", ""))


def text_of(message: object) -> str:
    """The text of a message; journalctl gives bytes that are no text as numbers."""
    if isinstance(message, list):
        return bytes(each for each in message if isinstance(each, int) and 0 <= each < 256).decode("utf-8", "replace")
    return str(message or "")


def read_file(host: str, line: str) -> LogLine | None:
    """A line of a file, behind its unit."""
    unit, found, text = line.partition(MARK)
    return LogLine(host, unit, text) if found else None
