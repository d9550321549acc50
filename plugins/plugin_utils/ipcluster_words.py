# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Words of command lines that stand in ipyparallel's configuration files: of ssh, ipcontroller and ipengine."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# options of ssh that take a value; those that a connection of Ansible's has a use for
WITH_VALUE = "BbcDEeFIiJLlmOopPQRSWw"
KEPT_WITH_VALUE = "BbcFIJmo"
KEPT_ALONE = "46CAaKk"
HOST_KEYS = "host keys are checked: log in once by hand, or put them into known_hosts"
# options of -o that switch off the check of host keys, whatever they are set to
UNCHECKED = ("userknownhostsfile", "globalknownhostsfile", "nohostauthenticationforlocalhost")
COMMANDS = ("localcommand", "permitlocalcommand", "remotecommand", "requesttty", "sessiontype")
VARIABLES = {"port": "ansible_port", "user": "ansible_user", "identityfile": "ansible_ssh_private_key_file"}
SHORT = {"p": "port", "l": "user", "i": "identityfile"}

# of what is kept: options by which ssh runs a command or loads a library, and those by which it reads a file of settings
RUN = {"I", "proxycommand", "knownhostscommand", "pkcs11provider", "securitykeyprovider", "xauthlocation", "match"}
READ = {"F", "include"}

# words of ipcontroller and ipengine, as Class.trait in today's names
COMMON = {
    "profile": "IPController.profile", "profile-dir": "ProfileDir.location", "ipython-dir": "IPController.ipython_dir",
    "cluster-id": "IPController.cluster_id", "work-dir": "IPController.work_dir", "log-url": "IPController.log_url",
    "log-to-file": "IPController.log_to_file", "clean-logs": "IPController.clean_logs", "ident": "Session.session",
    "user": "Session.username", "keyfile": "Session.keyfile", "packer": "Session.packer", "unpacker": "Session.unpacker",
}  # fmt: skip
CONTROLLER = {
    "ip": "IPController.ip", "location": "IPController.location", "ssh": "IPController.ssh_server",
    "enginessh": "IPController.engine_ssh_server", "reuse": "IPController.reuse_files", "restore": "IPController.restore_engines",
    "port": "IPController.regport", "ports": "IPController.ports", "transport": "IPController.transport", "hwm": "TaskScheduler.hwm",
    "scheme": "TaskScheduler.scheme_name", "ping": "HeartMonitor.period", "usethreads": "IPController.use_threads",
    "log-level": "IPController.log_level", "enable-curve": "IPController.enable_curve",
}  # fmt: skip
ENGINE = {
    "file": "IPEngine.url_file", "c": "IPEngine.startup_command", "s": "IPEngine.startup_script", "url": "IPEngine.registration_url",
    "ssh": "IPEngine.sshserver", "sshkey": "IPEngine.sshkey", "location": "IPEngine.location", "ip": "IPEngine.location",
    "timeout": "IPEngine.timeout", "mpi": "IPEngine.use_mpi", "log-level": "IPEngine.log_level",
}  # fmt: skip
NO_OPTION = "a word"
LEVELS = {"debug": 10, "quiet": 50}
DATABASES = ("dictdb", "sqlitedb", "mongodb", "nodb")


@dataclass
class Connection:
    """What arguments of ssh say of a connection.

    :param variables: Ansible's variables for it.
    :param left: words without a counterpart, and why.
    :param noted: words among the variables that do something on the machine that connects, and what.
    """

    variables: dict[str, Any] = field(default_factory=dict)
    left: list[tuple[str, str]] = field(default_factory=list)
    noted: list[tuple[str, str]] = field(default_factory=list)


def as_words(value: Any) -> list[str] | None:
    """Arguments as words, from a list of them or one text; None when they are neither."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError:
            return None
    if isinstance(value, (list, tuple)) and all(isinstance(each, (str, int)) and not isinstance(each, bool) for each in value):
        return [str(each) for each in value]
    return None


def no_words(value: Any) -> str:
    """What is wrong with arguments that are no words; their text may be a secret."""
    kind = "a text with a quote that does not end" if isinstance(value, str) else f"something else in a {type(value).__name__}"
    return f"expected a list of words, got {kind}"


def connection(words: Sequence[str]) -> Connection:
    """Arguments of ssh as Ansible's variables."""
    found = Connection()
    kept: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not re.fullmatch(r"-[A-Za-z0-9].*", word, re.DOTALL):
            found.left.append((word, "no option of ssh"))
        elif word[1] in WITH_VALUE:
            value = word[2:] or (rest.pop(0) if rest else "")
            _with_value(found, kept, word[1], value)
        else:
            useful = "".join(letter for letter in word[1:] if letter in KEPT_ALONE)
            kept += [f"-{useful}"] if useful else []
            if len(useful) < len(word) - 1:
                found.left.append((word, "of no use to connections of Ansible's"))
    if kept:
        found.variables["ansible_ssh_common_args"] = shlex.join(kept)
    return found


def _with_value(found: Connection, kept: list[str], letter: str, value: str) -> None:
    name, text = SHORT.get(letter, ""), value
    if letter == "o":
        name, _, text = (part.strip() for part in re.sub(r"\s*[=\s]\s*", "=", value.strip(), count=1).partition("="))
    lower = name.lower()
    variable = VARIABLES.get(lower)
    if variable and variable not in found.variables:
        found.variables[variable] = int(text) if lower == "port" and text.isdecimal() else text
    elif lower in UNCHECKED or (lower == "stricthostkeychecking" and text.lower() not in ("yes", "ask")):
        found.left.append((f"-{letter} {value}", HOST_KEYS))
    elif (letter in KEPT_WITH_VALUE and lower not in COMMANDS) or letter == "i":
        kept += [f"-{letter}", value]
        for does, options_ in (("runs this", RUN), ("reads this file", READ)):
            if letter in options_ or lower in options_:
                found.noted.append((f"-{letter} {value}", f"ssh {does} on the machine that you deploy from"))
    else:
        found.left.append((f"-{letter} {value}", "of no use to connections of Ansible's"))


def options(words: Sequence[str], known: Mapping[str, str]) -> tuple[list[tuple[str, str, Any]], list[str]]:
    """Settings that arguments of ipcontroller or ipengine make: the word, ``Class.trait``, its value; and words that make none.

    The latter have no values with them, which may be secrets.

    :param known: `CONTROLLER` or `ENGINE`.
    """
    found: list[tuple[str, str, Any]] = []
    unknown: list[str] = []
    program = "IPController" if known is CONTROLLER else "IPEngine"
    rest = list(words)
    while rest:
        word = rest.pop(0)
        match = re.fullmatch(r"--?([A-Za-z][\w.-]*)(=(.*))?", word, re.DOTALL)
        if not match:
            unknown.append(re.split(r"[=:\s]", word)[0] if word.startswith("-") else NO_OPTION)
            continue
        name, given, text = match.groups()
        short = name.replace("_", "-") if "." not in name else name
        trait = known.get(short) or COMMON.get(short) or (name if re.fullmatch(r"[A-Z]\w*\.\w+", name) else "")
        if short in LEVELS:
            found.append((word, f"{program}.log_level", LEVELS[short]))
        elif short in DATABASES and known is CONTROLLER:
            found.append((word, "IPController.db_class", short))
        elif not trait:
            unknown.append(word.partition("=")[0])
            if given is None and rest and not rest[0].startswith("-"):
                rest.pop(0)
        elif given:
            found.append((f"--{name}", trait, plain(text)))
        elif rest and not rest[0].startswith("-"):
            found.append((word, trait, plain(rest.pop(0))))
        else:
            found.append((word, trait, True))
    return found, unknown


def plain(text: str) -> Any:
    """The value of an option: of Python's if it is written so, else the text, without quotes that were for a shell."""
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text.strip("'\"") if re.fullmatch(r"(['\"]).*\1", text, re.DOTALL) else text
