"""Certificates read, and what a failure to get one means."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.errors import CertificateUnavailable, LocalApiError, PeerProtocolError
from cctailscale.tailnet.certificate import MAX_NAMES, described, unavailable

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
EC = ec.generate_private_key(ec.SECP256R1())


def certificate(
    key: Key = EC, names: list[x509.GeneralName] | None = None, days: float = 30, subject: str = "web.example"
) -> x509.Certificate:
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "An Authority")])
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), 7)
    builder = builder.not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=days, hours=1))
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def der(one: x509.Certificate) -> bytes:
    return one.public_bytes(serialization.Encoding.DER)


def test_a_certificate_is_described_by_its_names_issuer_validity_and_key() -> None:
    names = [
        x509.DNSName("web.example"),
        x509.DNSName("*.web.example"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
    ]
    one = certificate(names=names)
    found = described(der(one), "web.example", "web.example:443")
    assert found.model_dump() == {
        "host": "web.example",
        "served_by": "web.example:443",
        "subject": "CN=web.example",
        "names": ["web.example", "*.web.example", "192.0.2.1"],
        "issuer": "O=An Authority",
        "not_before": one.not_valid_before_utc,
        "not_after": one.not_valid_after_utc,
        "days_left": 30,
        "key_type": "ECDSA secp256r1",
    }


def test_of_a_chain_as_pem_the_first_certificate_counts() -> None:
    chain = [certificate(subject="leaf"), certificate(subject="authority")]
    pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
    assert described(pem, "x", "y").subject == "CN=leaf"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "ECDSA secp384r1"),
        (rsa.generate_private_key(65537, 2048), "RSA 2048"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_the_kind_of_key_is_named(key: Key, kind: str) -> None:
    assert described(der(certificate(key)), "x", "y").key_type == kind


def test_a_certificate_without_alternative_names_is_good_for_its_common_name() -> None:
    assert described(der(certificate()), "x", "y").names == ["web.example"]


def test_an_expired_certificate_has_negative_days_left() -> None:
    assert described(der(certificate(days=-3)), "x", "y").days_left == -3


def test_of_a_thousand_names_the_first_are_shown() -> None:
    found = described(der(certificate(names=[x509.DNSName(f"n{n}.example") for n in range(1000)])), "x", "y")
    assert len(found.names) == MAX_NAMES


def test_what_a_peer_put_into_a_name_is_one_printable_line() -> None:
    assert described(der(certificate(subject="a\x1b[2Jb\nc")), "x", "y").subject.isprintable()


@given(st.binary(max_size=300))
def test_what_is_no_certificate_is_said_to_be_none(garbage: bytes) -> None:
    with pytest.raises(PeerProtocolError, match=r"^web:443 has a certificate that cannot be read: "):
        described(garbage, "web", "web:443")


def failed(status: int | None, reason: str, cause: BaseException | None = None) -> str:
    error = LocalApiError("cert/x", status, reason)
    error.__cause__ = cause
    found = unavailable("me.tail1234.ts.net", error, 45)
    assert isinstance(found, CertificateUnavailable)
    return str(found)


def test_where_https_is_not_enabled_the_admin_s_step_is_named() -> None:
    text = failed(500, "your Tailscale account does not support getting TLS certs")
    assert text.startswith("There is no certificate for me.tail1234.ts.net: HTTPS is not enabled for this tailnet.")
    assert "https://login.tailscale.com/admin/dns" in text
    assert "Enable HTTPS" in text


def test_an_authority_that_takes_too_long_is_told_from_one_that_refuses() -> None:
    assert "the certificate authority did not finish within 45 s." in failed(None, "TimeoutError", TimeoutError())
    text = failed(500, "acme: order is invalid")
    assert "acme: order is invalid. The node asks a certificate authority" in text


def test_a_rate_limit_says_that_waiting_helps() -> None:
    assert "Wait until the limit is over" in failed(429, "too many certificates already issued")


def test_the_reason_is_data_and_cannot_hold_lines() -> None:
    assert failed(500, "a\nb\x1b[31m").isprintable()
