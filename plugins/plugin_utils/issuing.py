# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet's authority and certificates as they are kept: made when there are none, renewed when they are due."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import (
    Request,
    issue,
    name_problems,
    reason_to_issue,
    renewed_authority,
    root,
    validity_problems,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.certificates import Certificate, CertificateProblem, Pair, read
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.secret_store import AUTHORITY, SecretStore, StoreError

DAYS, RENEW_BEFORE_DAYS = 398, 60


@dataclass(frozen=True)
class Issued:
    """A certificate that is good, and how it came about.

    :param pair: its key and itself.
    :param ca: the root certificate, PEM.
    :param reason: why it was issued now; empty when it was kept.
    :param renewed: whether the authority has a later end now.
    :param before: what the one that was there before says; None when there was none.
    :param warning: what is to be done about an authority that soon ends, and is none of ipyfleet's; mostly empty.
    """

    pair: Pair
    ca: str
    reason: str
    renewed: bool
    before: Certificate | None
    warning: str


def settings_problems(variables: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a host's variables of the role fleet_ca, a line each.

    :param variables: with the types of the role's specs.
    """
    yield from validity_problems(*validity(variables), prefix="fleet_ca_")
    yield from name_problems(variables.get("fleet_ca_names") or (), "fleet_ca_names")


def validity(variables: Mapping[str, Any]) -> tuple[int, int]:
    """How long a host's certificates are good for, and how long before their end they are renewed, in days."""
    before = variables.get("fleet_ca_renew_before_days", RENEW_BEFORE_DAYS)
    return int(variables.get("fleet_ca_days", DAYS)), int(before)


def authority_for(store: SecretStore, fleet: str, days: int, now: datetime, dry: bool = False) -> Pair:
    """A fleet's authority, with enough time left for a certificate of `days`.

    :param dry: keep nothing; one that is not there yet is thrown away.
    :raises StoreError: when it cannot be read or kept, or has ended.
    """
    found = store.create_authority(fleet, now, dry)
    renewed = renewed_authority(found, fleet, days, now)
    if renewed:
        store.keep_authority(renewed, dry)
    return renewed or found


def certificate_for(store: SecretStore, fleet: str, name: str, wanted: Request, now: datetime, dry: bool = False) -> Issued:
    """The certificate of a name: the one that is kept, or a new one when that is not good any more.

    :param fleet: the fleet's name.
    :param name: under which it is kept.
    :param dry: keep nothing.
    :raises StoreError: when something cannot be read or kept, or the authority has ended.
    """
    known = store.authority()
    authority = authority_for(store, fleet, wanted.days, now, dry)
    kept = store.certificate(name)
    path = store.folder / AUTHORITY
    try:
        reason = reason_to_issue(kept, authority, wanted, now)
        pair = issue(authority, wanted, now) if reason or kept is None else kept
    except CertificateProblem as problem:
        raise StoreError(f"{path}: {problem}") from problem
    if reason:
        store.keep_certificate(name, pair, dry)
    end = read(authority.certificate).not_after
    soon = (end - now).days < wanted.renew_before_days
    return Issued(
        pair=pair,
        ca=root(authority),
        reason=reason,
        renewed=known is not None and known != authority,
        before=read(kept.certificate) if kept else None,
        warning=f"{path}: the authority ends on {end:%Y-%m-%d}, and what it signs with it; put another one there" if soon else "",
    )
