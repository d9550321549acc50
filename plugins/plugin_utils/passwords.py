# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Passwords that operators set for accounts of the database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

# as PostgreSQL keeps passwords: who connects needs what it was made of
_VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:.+|md5[0-9a-f]{32}")


def problems(given: Mapping[str, object], client: str) -> Iterator[str]:
    """What is wrong with given passwords, a line each, none of which shows one.

    :param given: passwords by account.
    :param client: the account that engines and clients connect as, whose password they need to know.
    """
    for user, password in given.items():
        where = f"postgresql_users: password of {user}: expected"
        if not isinstance(password, str):
            yield f"{where} text, got {type(password).__name__}; put it in quotes"
        elif not password:
            yield f"{where} text, got an empty one; leave it out, and one is made"
        elif any(ord(character) < 32 for character in password):
            yield f"{where} one line of text, got one with a control character"
        elif user == client and _VERIFIER.fullmatch(password):
            yield f"{where} the password itself, because clients need it, got a verifier"
