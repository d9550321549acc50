"""A fleet's certificate authority, and what it signs."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.authority import (
    Request,
    check_authority,
    issue,
    new_authority,
    reason_to_issue,
    renewed_authority,
    request,
    root,
)
from ansible_collections.ipyfleet.cluster.plugins.plugin_utils.certificates import CertificateProblem, Pair, fits, read
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
LAB = new_authority("lab", NOW)
SERVER = request("server", "", ["db", "db.example.org", "10.0.0.7"], 398, 60)
CLIENT = request("client", "lab", [], 398, 60)


def days(count: float) -> datetime:
    return NOW + timedelta(days=count)


def certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def verify(pair: Pair, trusted: str, name: str, when: datetime) -> None:
    """What a client that verifies in full does; raises `verification.VerificationError`."""
    leaf, *between = certificates(pair.certificate)
    policy = verification.PolicyBuilder().store(verification.Store(certificates(trusted))).time(when)
    try:
        subject: verification.Subject = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    policy.build_server_verifier(subject).verify(leaf, between)


@pytest.mark.parametrize("name", ["db", "db.example.org", "10.0.0.7"])
def test_a_server_is_verified_by_each_of_its_names(name: str) -> None:
    verify(issue(LAB, SERVER, NOW), root(LAB), name, NOW)


@pytest.mark.parametrize(
    ("trusted", "name", "when"),
    [
        (LAB, "other", NOW),
        (LAB, "10.0.0.8", NOW),
        (new_authority("lab", NOW), "db", NOW),
        (LAB, "db", days(399)),
        (LAB, "db", days(-1)),
    ],
    ids=["another name", "another address", "another authority of that name", "after its end", "before its time"],
)
def test_a_server_is_verified_by_nothing_else(trusted: Pair, name: str, when: datetime) -> None:
    with pytest.raises(verification.VerificationError):
        verify(issue(LAB, SERVER, NOW), root(trusted), name, when)


def test_hosts_whose_clock_is_behind_take_a_new_certificate() -> None:
    verify(issue(LAB, SERVER, NOW), root(LAB), "db", NOW - timedelta(minutes=59))


def test_a_server_is_no_authority() -> None:
    """Whoever has its key cannot sign for other names."""
    server = issue(LAB, SERVER, NOW)
    false = issue(Pair(server.key, server.certificate), request("server", "", ["bank"], 30, 5), NOW)
    chained = Pair(false.key, false.certificate + server.certificate)
    with pytest.raises(verification.VerificationError):
        verify(chained, root(LAB), "bank", NOW)


def test_what_a_server_certificate_says() -> None:
    pair = issue(LAB, SERVER, NOW)
    found = read(pair.certificate)
    assert (found.common_name, found.dns, found.ips) == ("db", ("db", "db.example.org"), ("10.0.0.7",))
    assert found.uses == ("1.3.6.1.5.5.7.3.1",)
    assert found.not_after == days(398)
    assert int(found.serial, 16) == certificates(pair.certificate)[0].serial_number
    assert len(found.serial) % 2 == 0
    assert fits(pair)
    assert "PRIVATE" not in repr(pair)


def test_what_a_client_certificate_says() -> None:
    pair = issue(LAB, CLIENT, NOW)
    found = read(pair.certificate)
    assert (found.common_name, found.dns, found.ips, found.uses) == ("lab", (), (), ("1.3.6.1.5.5.7.3.2",))
    certificates(pair.certificate)[0].verify_directly_issued_by(certificates(LAB.certificate)[0])


def test_a_client_certificate_is_not_good_for_a_server() -> None:
    pair = issue(LAB, request("client", "lab", ["db"], 398, 60), NOW)
    with pytest.raises(verification.VerificationError):
        verify(pair, root(LAB), "db", NOW)


def test_serial_numbers_differ() -> None:
    assert len({read(issue(LAB, SERVER, NOW).certificate).serial for _ in range(5)}) == 5


def test_names_in_another_order_or_case_are_the_same() -> None:
    again = request("server", "db", ["10.0.0.7", "DB.example.org", "db", "db"], 398, 60)
    assert again == SERVER


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("server", "", [], 398, 60), "dns: expected at least one name of the server, got none"),
        (("server", "", ["two words"], 398, 60), "dns: expected a DNS name or an IP address, got 'two words'"),
        (("server", "", ["*.example.org"], 398, 60), "dns: expected a DNS name or an IP address, got '*.example.org'"),
        (("server", "", ["10.0.0.777"], 398, 60), "dns: expected a DNS name or an IP address, got '10.0.0.777'"),
        (("server", "", ["fe80::1%eth0"], 398, 60), "dns: expected a DNS name or an IP address, got 'fe80::1%eth0'"),
        (("server", "", ["db\n"], 398, 60), "dns: expected a DNS name or an IP address, got 'db\\n'"),
        (("client", "", ["db"], 398, 60), "common_name: expected the account that the certificate is for, got none"),
        (("client", "x" * 65, [], 398, 60), "common_name: expected at most 64 characters, got 65"),
        (("server", "", ["db"], 0, 0), "days: expected 1 to 1825, got 0"),
        (("server", "", ["db"], 4000, 60), "days: expected 1 to 1825, got 4000"),
        (("server", "", ["db"], 30, 30), "renew_before_days: expected 0 to 29, less than days, got 30"),
        (("server", "", ["db"], 30, -1), "renew_before_days: expected 0 to 29, less than days, got -1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: tuple[str, str, list[str], int, int], expected: str) -> None:
    with pytest.raises(CertificateProblem) as caught:
        request(*arguments)
    assert str(caught.value) == expected


def test_a_name_that_is_longer_than_a_subject_can_be() -> None:
    name = "a" * 60 + "." + "b" * 60
    pair = issue(LAB, request("server", "", [name], 398, 60), NOW)
    verify(pair, root(LAB), name, NOW)


# -- whether one that is kept is good


def test_a_good_one_is_kept() -> None:
    pair = issue(LAB, SERVER, NOW)
    assert reason_to_issue(pair, LAB, SERVER, NOW) == ""
    assert reason_to_issue(pair, LAB, SERVER, days(337)) == ""


@pytest.mark.parametrize(
    ("change", "when", "expected"),
    [
        ({}, days(338), "it ends on 2027-11-03"),
        ({}, days(400), "it ended on 2027-11-03"),
        ({"renew_before_days": 397}, days(1), "it ends on 2027-11-03"),
        ({"dns": ("db",)}, NOW, "its names were db, db.example.org, 10.0.0.7, and are to be db, 10.0.0.7"),
        ({"ips": ()}, NOW, "its names were db, db.example.org, 10.0.0.7, and are to be db, db.example.org"),
        ({"common_name": "other"}, NOW, "it was for db, and is to be for the server other"),
        ({"kind": "client"}, NOW, "it was for db, and is to be for the client db"),
    ],
)
def test_why_a_new_one_is_needed(change: dict[str, object], when: datetime, expected: str) -> None:
    wanted: Request = replace(SERVER, **change)  # type: ignore[arg-type]  # by name
    assert reason_to_issue(issue(LAB, SERVER, NOW), LAB, wanted, when) == expected


def test_one_of_another_authority_or_with_another_key_is_replaced() -> None:
    pair = issue(LAB, SERVER, NOW)
    assert reason_to_issue(None, LAB, SERVER, NOW) == "there was none"
    assert reason_to_issue(pair, new_authority("lab", NOW), SERVER, NOW) == "another authority signed it"
    assert reason_to_issue(replace(pair, key=issue(LAB, SERVER, NOW).key), LAB, SERVER, NOW) == "its key was another one's"


def test_other_days_wait_for_the_next_renewal() -> None:
    """A change of `days` alone restarts and reloads nothing."""
    assert reason_to_issue(issue(LAB, SERVER, NOW), LAB, replace(SERVER, days=30, renew_before_days=10), NOW) == ""


# -- the authority


def test_an_authority_is_renewed_before_its_last_year() -> None:
    assert renewed_authority(LAB, "lab", 90, days(3284)) is None
    renewed = renewed_authority(LAB, "lab", 90, days(3286))
    assert renewed is not None
    assert read(renewed.certificate).not_after == days(3286 + 3650)


def test_an_authority_is_renewed_before_it_would_cut_short_what_it_signs() -> None:
    assert renewed_authority(LAB, "lab", 398, days(3251)) is None
    assert renewed_authority(LAB, "lab", 398, days(3253)) is not None
    assert renewed_authority(new_authority("lab", NOW), "lab", 1825, NOW) is None


def test_hosts_with_the_old_or_the_new_authority_take_servers_of_both() -> None:
    later = days(3300)
    renewed = renewed_authority(LAB, "lab", 398, later)
    assert renewed is not None
    old = issue(LAB, SERVER, days(3250))
    assert reason_to_issue(old, renewed, SERVER, later) == ""
    verify(old, root(renewed), "db", later)
    verify(issue(renewed, SERVER, later), root(LAB), "db", later)


def test_an_authority_that_has_ended_signs_nothing() -> None:
    with pytest.raises(CertificateProblem, match=r"^expected an authority that is good today, got one that ended on 2036-09-28$"):
        issue(LAB, SERVER, days(3651))


def signed(key: rsa.RSAPrivateKey, subject: str, by: rsa.RSAPrivateKey, issuer: str, *, end: datetime, ca: bool = True) -> str:
    """A certificate as an organisation's own authority might make it."""
    signer, named = (x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)]) for name in (issuer, subject))
    builder = x509.CertificateBuilder(signer, named, key.public_key(), x509.random_serial_number(), days(-1), end)
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
    certificate = builder.add_extension(identifier, critical=False).sign(by, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden).decode()


TOP, MIDDLE = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
TOP_PEM = signed(TOP, "Top", TOP, "Top", end=days(2000))
MIDDLE_PEM = signed(MIDDLE, "Middle", TOP, "Top", end=days(100))


def test_an_authority_of_another_making_signs_with_its_chain() -> None:
    own = Pair(pem(MIDDLE), MIDDLE_PEM + TOP_PEM)
    check_authority(own)
    assert root(own) == TOP_PEM
    pair = issue(own, SERVER, NOW)
    assert pair.certificate.endswith(MIDDLE_PEM)
    check = certificates(pair.certificate)
    check[0].verify_directly_issued_by(check[1])
    check[1].verify_directly_issued_by(certificates(root(own))[0])


def test_an_authority_of_another_making_is_not_renewed_and_ends_what_it_signs() -> None:
    own = Pair(pem(MIDDLE), MIDDLE_PEM + TOP_PEM)
    assert renewed_authority(own, "lab", 398, NOW) is None
    pair = issue(own, SERVER, NOW)
    assert read(pair.certificate).not_after == days(100)
    # a new one would end no later, so that none is made in every run
    assert reason_to_issue(pair, own, SERVER, days(50)) == ""


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        (Pair("", LAB.certificate), "expected a private key in PEM, got something else"),
        (Pair(LAB.key, "x"), "expected a certificate in PEM, got something else"),
        (Pair(new_authority("x", NOW).key, LAB.certificate), "expected a key that fits its certificate, got another one"),
        (issue(LAB, SERVER, NOW), "expected the certificate of an authority, got that of CN=db"),
        (
            Pair(pem(MIDDLE, b"x"), MIDDLE_PEM),
            "expected a key without a password, got an encrypted one; encrypt the file with ansible-vault",
        ),
        (Pair(pem(MIDDLE), MIDDLE_PEM), "expected the root's certificate as the last, got that of O=Middle, signed by O=Top"),
        (
            Pair(pem(MIDDLE), MIDDLE_PEM + LAB.certificate),
            "expected each certificate to be signed by the next, got that of O=Middle, signed by O=Top",
        ),
    ],
    ids=["no key", "no certificate", "another key", "a server", "encrypted", "no root", "another root"],
)
def test_what_is_no_authority_is_refused_in_one_line(authority: Pair, expected: str) -> None:
    with pytest.raises(CertificateProblem) as caught:
        check_authority(authority)
    assert str(caught.value) == expected
