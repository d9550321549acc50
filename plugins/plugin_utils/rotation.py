# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""New keys instead of those that a fleet has.

What was is kept in ``rotating.json`` beside the new, until every host has the new. A rotation that was cut short is gone on
with by the same keys: making others once more would leave some hosts with the first, some with the second, some with the third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import is_of_fleet
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import (
    AUTHORITY,
    CERTIFICATES,
    LOGINS,
    NOTEBOOK,
    PASSWORDS,
    SECRETS,
    SecretStore,
    StoreError,
)

PENDING = "rotating.json"
# files by what is asked for; what is not there is not needed
KINDS = {"hub-key": (SECRETS, LOGINS), "certificates": (AUTHORITY, CERTIFICATES), "passwords": (PASSWORDS, NOTEBOOK)}
WORDS = (*KINDS, "all")


def kinds_of(given: object) -> list[str]:
    """What is asked for, of a list or of words with commas between them.

    :raises ValueError: when a word is none of `WORDS`.
    """
    words = [str(each).strip() for each in (given if isinstance(given, (list, tuple)) else str(given or "").split(","))]
    wrong = [word for word in words if word not in WORDS]
    if wrong or not words:
        raise ValueError(f"rotate_what: expected {', '.join(WORDS[:-1])} or {WORDS[-1]}, got {', '.join(wrong) or 'nothing'}")
    return list(KINDS) if "all" in words else list(dict.fromkeys(words))


class Rotation:
    """New keys of one fleet.

    :param store: its keys.
    :param fleet: its name.
    """

    def __init__(self, store: SecretStore, fleet: str) -> None:
        self.store = store
        self.fleet = fleet

    def pending(self) -> dict[str, Any]:
        """What a rotation that was not finished has replaced, by file; empty when there is none."""
        return dict(self.store.read_private(PENDING) or {})

    def carry_out(self, kinds: Iterable[str], settled: bool, now: datetime, dry: bool = False) -> tuple[list[str], bool]:
        """Replace what is asked for; returns the files, and whether it goes on with keys that were made before.

        :param settled: whether every host has the keys that are there now, so that a rotation that was not finished is over.
        :param dry: replace nothing.
        :raises StoreError: when there is nothing to replace, or a file cannot be read or written.
        """
        before = {} if settled else self.pending()
        wanted = [name for kind in kinds for name in KINDS[kind] if (self.store.folder / name).exists()]
        wanted = [name for name in wanted if name != AUTHORITY or self.is_own_authority()]
        if not wanted and not before:
            raise StoreError(f"rotate_what: expected something that fleet {self.fleet} has, got {', '.join(kinds)}")
        old = before | {name: dict(self.store.read_private(name) or {}) for name in wanted if name not in before}
        if dry:
            return wanted, bool(before)
        # first what is to be replaced: cut short behind that, it is replaced in the next run
        self.store.write(PENDING, old)
        for name, content in old.items():
            if dict(self.store.read_private(name) or {}) == content:
                self.replace(name, content, now)
        return sorted(old), bool(before)

    def replace(self, name: str, content: Mapping[str, Any], now: datetime) -> None:
        """Put something new into a file; that of certificates is emptied, as hosts ask for theirs."""
        make: dict[str, Callable[[], object]] = {
            SECRETS: self.store.create_secrets,
            LOGINS: self.store.create_login_key,
            NOTEBOOK: self.store.create_token,
            AUTHORITY: lambda: self.store.create_authority(self.fleet, now),
            PASSWORDS: lambda: self.store.create_passwords(list(content), {}),
            CERTIFICATES: lambda: self.store.write(CERTIFICATES, {}),
        }
        if name != CERTIFICATES:
            self.store.discard(name)
        make[name]()

    def is_own_authority(self) -> bool:
        """Whether the authority is of ipyfleet's making; another one is replaced by who made it."""
        found = self.store.authority()
        return found is not None and is_of_fleet(found, self.fleet)

    def finish(self) -> None:
        """Forget what was replaced: every host has the new."""
        (self.store.folder / PENDING).unlink(missing_ok=True)
