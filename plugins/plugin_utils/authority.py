# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet's own certificate authority: what it signs, and whether that is still good.

Nothing here reads or writes files, or asks for the time: keys and certificates are PEM text, and the
present is a parameter, UTC.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.certificates import (
    CertificateProblem,
    Pair,
    SigningKey,
    extension,
    fits,
    load_certificates,
    load_key,
    pem_certificates,
    pem_key,
    read,
    signed_by,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS = 3650
MAX_DAYS = 1825  # half of the authority's, so that a new one outlives what it signs
_YEAR = 365
_SKEW = timedelta(hours=1)  # clocks of hosts may be behind
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_COMMON_NAME = 64
_USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Request:
    """What a certificate is wanted to be.

    :param kind: ``server`` or ``client``.
    :param common_name: the subject's name; of a client certificate, the account.
    :param dns: DNS names, sorted.
    :param ips: IP addresses, sorted.
    :param days: how long it is good for, in days.
    :param renew_before_days: how long before its end it is replaced, in days.
    """

    kind: str
    common_name: str
    dns: tuple[str, ...]
    ips: tuple[str, ...]
    days: int
    renew_before_days: int


def request(kind: str, common_name: str, names: Sequence[str], days: int, renew_before_days: int) -> Request:
    """Check what is wanted of a certificate.

    :param common_name: empty for the first of the names.
    :param names: DNS names and IP addresses; each counts once.
    :raises CertificateProblem: naming what cannot be.
    """
    for problem in (*name_problems(names, "dns"), *validity_problems(days, renew_before_days)):
        raise CertificateProblem(problem)
    if kind == "server" and not names:
        raise CertificateProblem("dns: expected at least one name of the server, got none")
    if kind == "client" and not common_name:
        raise CertificateProblem("common_name: expected the account that the certificate is for, got none")
    if len(common_name) > _COMMON_NAME:
        raise CertificateProblem(f"common_name: expected at most {_COMMON_NAME} characters, got {len(common_name)}")
    ips = {name: str(ipaddress.ip_address(name)) for name in names if _is_address(name)}
    dns = {name.lower() for name in names if name not in ips}
    # a longer name has no room there, and nobody looks for it where there are alternative names
    subject = common_name or names[0][:_COMMON_NAME]
    return Request(kind, subject, tuple(sorted(dns)), tuple(sorted(set(ips.values()))), days, renew_before_days)


def name_problems(names: Sequence[str], key: str) -> Iterator[str]:
    """What is wrong with names of a server, a line each.

    :param key: where they were set.
    """
    for name in names:
        # a dotted number that is no address is a mistyped one
        if not _is_address(name) and (not _DNS.fullmatch(name) or re.fullmatch(r"[0-9]+(\.[0-9]+)+", name)):
            yield f"{key}: expected a DNS name or an IP address, got {name!r}"


def validity_problems(days: int, renew_before_days: int, prefix: str = "") -> Iterator[str]:
    """What is wrong with how long a certificate is to be good for.

    :param prefix: of the names under which the two were set.
    """
    if not 1 <= days <= MAX_DAYS:
        yield f"{prefix}days: expected 1 to {MAX_DAYS}, got {days}"
    elif not 0 <= renew_before_days < days:
        yield f"{prefix}renew_before_days: expected 0 to {days - 1}, less than {prefix}days, got {renew_before_days}"


def new_authority(fleet: str, now: datetime) -> Pair:
    """Make an authority for a fleet: a key of the curve P-256, and a certificate that is signed with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(pem_key(key), pem_certificates([_self_signed(key, _authority_name(fleet), now)]))


def renewed_authority(authority: Pair, fleet: str, days: int, now: datetime) -> Pair | None:
    """The same authority with a later end; None while it outlives a certificate of `days`, and a year.

    Its key and name stay, so that what it has signed is good under the new certificate too. An
    authority that is not of ipyfleet's making is never renewed.
    """
    certificate = load_certificates(authority.certificate)[0]
    left = certificate.not_valid_after_utc - now
    if left >= timedelta(days=max(_YEAR, days)) or certificate.subject != _authority_name(fleet):
        return None
    return Pair(authority.key, pem_certificates([_self_signed(load_key(authority.key), certificate.subject, now)]))


def is_of_fleet(authority: Pair, fleet: str) -> bool:
    """Whether an authority is of ipyfleet's making, for this fleet."""
    return load_certificates(authority.certificate)[0].subject == _authority_name(fleet)


def check_authority(authority: Pair) -> None:
    """Check that a pair is an authority: one of a fleet's own, or of another making with its chain up to the root.

    :raises CertificateProblem: saying what else it is.
    """
    chain = load_certificates(authority.certificate)
    if not fits(authority):
        raise CertificateProblem("expected a key that fits its certificate, got another one")
    for certificate, signer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        subject = certificate.subject.rfc4514_string()
        constraints = extension(certificate, x509.BasicConstraints)
        if not (constraints and constraints.ca):
            raise CertificateProblem(f"expected the certificate of an authority, got that of {subject}")
        if not signed_by(certificate, signer):
            wanted = "the root's certificate as the last" if certificate is chain[-1] else "each certificate to be signed by the next"
            raise CertificateProblem(f"expected {wanted}, got that of {subject}, signed by {certificate.issuer.rfc4514_string()}")


def last_day(authority: Pair, wanted: Request, now: datetime) -> datetime:
    """When a certificate that the authority signs now would end: no later than the authority.

    :raises CertificateProblem: when the authority has ended.
    """
    end = load_certificates(authority.certificate)[0].not_valid_after_utc
    if end <= now:
        raise CertificateProblem(f"expected an authority that is good today, got one that ended on {end:%Y-%m-%d}")
    return min(now + timedelta(days=wanted.days), end)


def issue(authority: Pair, wanted: Request, now: datetime) -> Pair:
    """Make a key and have the authority sign a certificate for it.

    :returns: the pair; what is between the certificate and the authority's root follows it.
    :raises CertificateProblem: when the authority has ended.
    """
    chain = load_certificates(authority.certificate)
    key, signing = ec.generate_private_key(ec.SECP256R1()), load_key(authority.key)
    builder = _builder(_subject(wanted.common_name), chain[0].subject, now, last_day(authority, wanted, now))
    builder = builder.public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_USES[wanted.kind]]), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(_signers_identifier(chain[0], signing), critical=False)
    names = [*map(x509.DNSName, wanted.dns), *(x509.IPAddress(ipaddress.ip_address(each)) for each in wanted.ips)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signing, _digest(signing))
    return Pair(pem_key(key), pem_certificates([certificate, *chain[:-1]]))


def root(authority: Pair) -> str:
    """What those who verify need: the last of the authority's certificates, which for a fleet's own is the only one."""
    return pem_certificates(load_certificates(authority.certificate)[-1:])


def reason_to_issue(kept: Pair | None, authority: Pair, wanted: Request, now: datetime) -> str:
    """Why a new certificate is needed; empty when the one that is kept is good.

    One that is due is kept as long as the authority's own end allows for no later one.

    :raises CertificateProblem: when the one that is kept cannot be read, or the authority has ended.
    """
    latest = last_day(authority, wanted, now)
    if kept is None:
        return "there was none"
    there = read(kept.certificate)
    if (there.dns, there.ips) != (wanted.dns, wanted.ips):
        return f"its names were {_listed(there.dns, there.ips)}, and are to be {_listed(wanted.dns, wanted.ips)}"
    if there.common_name != wanted.common_name or there.uses != (_USES[wanted.kind].dotted_string,):
        return f"it was for {there.common_name or 'nobody'}, and is to be for the {wanted.kind} {wanted.common_name}"
    if not fits(kept):
        return "its key was another one's"
    if not signed_by(load_certificates(kept.certificate)[0], load_certificates(authority.certificate)[0]):
        return "another authority signed it"
    if there.not_after - now <= timedelta(days=wanted.renew_before_days) and there.not_after < latest:
        return f"it {'ends' if there.not_after > now else 'ended'} on {there.not_after:%Y-%m-%d}"
    return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    # an interface is of no meaning on other hosts
    return "%" not in name


def _authority_name(fleet: str) -> x509.Name:
    return _subject(f"ipyfleet {fleet}")


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, now: datetime, end: datetime) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _SKEW).not_valid_after(end)


def _self_signed(key: SigningKey, subject: x509.Name, now: datetime) -> x509.Certificate:
    builder = _builder(subject, subject, now, now + timedelta(days=AUTHORITY_DAYS)).public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, _digest(key))


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    """An authority's key signs certificates and their revocations, any other's what a handshake asks for."""
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    bits = dict.fromkeys((*names, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    used = ("key_cert_sign", "crl_sign") if authority else ("digital_signature",)
    return x509.KeyUsage(**bits | dict.fromkeys(used, True))


def _signers_identifier(signer: x509.Certificate, key: SigningKey) -> x509.AuthorityKeyIdentifier:
    own = extension(signer, x509.SubjectKeyIdentifier)
    if own:
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _digest(key: SigningKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _listed(dns: Sequence[str], ips: Sequence[str]) -> str:
    return ", ".join([*dns, *ips]) or "none"
