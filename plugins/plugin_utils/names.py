# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Host names as people write them: ranges, `user@host`, and the nearest word to a typo."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable

from ansible.errors import AnsibleError
from ansible.plugins.inventory import expand_hostname_range

# What may stand in an inventory host name: DNS names, IPv4 and IPv6 addresses, aliases.
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
RANGE = re.compile(r"\[[A-Za-z0-9]*:[A-Za-z0-9]+(:[0-9]+)?\]")


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The word of `known` that `word` was most likely meant to be, if any comes near.

    :param likeness: how alike they must be, from 0 (not at all) to 1 (the same).
    """
    found = difflib.get_close_matches(word, sorted(known), n=1, cutoff=likeness)
    return found[0] if found else None


def is_loopback(name: str) -> bool:
    """Whether a name or address is one that every machine has for itself."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        first, _, rest = name.lower().partition(".")
        return first in ("localhost", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback") or rest == "localhost"
    return address.is_loopback


def split_user(pattern: str) -> tuple[str | None, str]:
    """Split `user@host` into its parts; without a user the first is None."""
    user, at, host = pattern.rpartition("@")
    return (user, host) if at else (None, pattern)


def expand(pattern: str) -> list[str]:
    """Host names that a pattern such as ``node[01:08]`` stands for, in order.

    :raises ValueError: saying what was expected, when it stands for none.
    """
    if not pattern:
        raise ValueError("a host name")
    if "[" not in pattern and "]" not in pattern:
        if not HOST.fullmatch(pattern):
            raise ValueError("a host name of letters, digits, dots and dashes")
        return [pattern]
    rest = RANGE.sub("0", pattern)
    if "[" in rest or "]" in rest:
        raise ValueError("a range such as node[01:08]")
    try:
        hosts: list[str] = expand_hostname_range(pattern)
    except (AnsibleError, ValueError) as error:
        raise ValueError(f"a range such as node[01:08] ({error})") from error
    if not hosts:
        raise ValueError("a range that begins before it ends, such as node[01:08]")
    if not all(HOST.fullmatch(host) for host in hosts):
        raise ValueError("a host name of letters, digits, dots and dashes")
    return hosts
