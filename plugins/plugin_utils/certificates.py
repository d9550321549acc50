# Copyright: ipyfleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys and certificates as PEM text: what they say, and whether they belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
Kind = TypeVar("Kind", bound=x509.ExtensionType)


class CertificateProblem(Exception):
    """What is wrong with a certificate, a key or a request, in one line: expected ..., got ..."""


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate.

    :param key: the key, PEM, not encrypted; it is left out where the object is shown.
    :param certificate: the certificate, PEM; those of its signers may follow.
    """

    key: str = field(repr=False)
    certificate: str


@dataclass(frozen=True)
class Certificate:
    """What a certificate says.

    :param common_name: the subject's name; empty when it has none.
    :param dns: DNS names, sorted.
    :param ips: IP addresses, sorted.
    :param uses: extended key usages, as dotted numbers, sorted.
    :param serial: serial number in hexadecimal, as openssl shows it.
    :param fingerprint: SHA-256 of the certificate, in hexadecimal.
    :param not_after: when it ends, UTC.
    """

    common_name: str
    dns: tuple[str, ...]
    ips: tuple[str, ...]
    uses: tuple[str, ...]
    serial: str
    fingerprint: str
    not_after: datetime


def read(certificate: str) -> Certificate:
    """What a certificate says; of several, the first.

    :raises CertificateProblem: when it is none.
    """
    found = load_certificates(certificate)[0]
    names = extension(found, x509.SubjectAlternativeName)
    uses = extension(found, x509.ExtendedKeyUsage)
    common = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        common_name=str(common[0].value) if common else "",
        dns=tuple(sorted(names.get_values_for_type(x509.DNSName))) if names else (),
        ips=tuple(sorted(map(str, names.get_values_for_type(x509.IPAddress)))) if names else (),
        uses=tuple(sorted(each.dotted_string for each in uses)) if uses else (),
        serial=found.serial_number.to_bytes((found.serial_number.bit_length() + 7) // 8, "big").hex().upper(),
        fingerprint=found.fingerprint(hashes.SHA256()).hex(),
        not_after=found.not_valid_after_utc,
    )


def fits(pair: Pair) -> bool:
    """Whether a key and a certificate belong together.

    :raises CertificateProblem: when one of them cannot be read.
    """
    return load_certificates(pair.certificate)[0].public_key() == load_key(pair.key).public_key()


def signed_by(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    """Whether the signer's name and key are those that a certificate was signed with."""
    try:
        certificate.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def extension(certificate: x509.Certificate, kind: type[Kind]) -> Kind | None:
    """An extension of a certificate; None when it has none of that kind."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def load_certificates(pem: str) -> list[x509.Certificate]:
    """The certificates in a text, at least one.

    :raises CertificateProblem: when there is none.
    """
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise CertificateProblem("expected a certificate in PEM, got something else") from error


def load_key(pem: str) -> SigningKey:
    """The key in a text.

    :raises CertificateProblem: when it is none that could sign, or is encrypted.
    """
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except TypeError as error:
        raise CertificateProblem("expected a key without a password, got an encrypted one; encrypt the file with ansible-vault") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateProblem("expected a private key in PEM, got something else") from error
    if not isinstance(key, SigningKey):
        raise CertificateProblem("expected an elliptic or RSA key, got another kind")
    return key


def pem_certificates(certificates: Sequence[x509.Certificate]) -> str:
    """Certificates as text, in their order."""
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def pem_key(key: SigningKey) -> str:
    """A key as text, not encrypted."""
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
