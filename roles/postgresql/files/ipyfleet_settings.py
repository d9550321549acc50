"""The configuration files of an embedded server as text, and its complaints about them, a line each."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ipyfleet_accounts import SUPERUSER, ident

INCLUDE = "include_if_exists = 'ipyfleet.conf'  # managed by ipyfleet"
MANAGED = "# Managed by ipyfleet: every start undoes changes made here\n"
# who may connect, the first line that fits decides: the account of the server as superuser over the
# socket, every other account by its password, and from this machine alone
HBA = f"""{MANAGED}local all {SUPERUSER} peer map=ipyfleet
local all all scram-sha-256
host all {SUPERUSER} all reject
host all all 127.0.0.1/32 scram-sha-256
"""
NOT_STARTED = "the server did not start: "
DEFAULTS = {"log_line_prefix": "'%m [%p] %q%u@%d '", "password_encryption": "'scram-sha-256'"}


def conf_text(wanted: Mapping[str, str]) -> str:
    """Settings as PostgreSQL reads them.

    :param wanted: values as they are written, by setting.
    """
    return MANAGED + "".join(f"{name} = {value}\n" for name, value in {**DEFAULTS, **wanted}.items())


def ident_text(account: str) -> str:
    """The map by which an account of the system is superuser of the server."""
    return f"{MANAGED}ipyfleet {ident(account)} {SUPERUSER}\n"


def refusal(log: str) -> str:
    """Why a server did not start, from its log: the settings that it names, a line each, or else its first complaint."""
    named = re.findall(r"^.*?(?:LOG|FATAL|ERROR):\s+(.*parameter \"([\w.]+)\".*)$", log, re.MULTILINE)
    if named:
        return "\n".join(f"postgresql_settings.{name}: {without_place(text)}" for text, name in dict.fromkeys(named))
    return f"{NOT_STARTED}{first_error(log)}"


def without_place(text: str) -> str:
    """A message without the file and line, which are those of a generated file."""
    return re.sub(r' in file ".*?" line \d+', "", text)


def first_error(text: str) -> str:
    """The first complaint in a program's output, in one line, without the time; its last line when there is none."""
    found = re.search(r"^.*?(?:FATAL|PANIC|ERROR|error):\s+(.*)$", text, re.MULTILINE)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return found[1].strip() if found else lines[-1] if lines else "no message"
