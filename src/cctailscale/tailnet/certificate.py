"""Certificates: this node's own, which the node gets from an ACME authority, and what another host serves."""

import asyncio
import ssl
from datetime import UTC, datetime
from itertools import count

import anyio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from cctailscale.errors import (
    CcTailscaleError,
    CertificateUnavailable,
    LocalApiError,
    NodeClosed,
    PeerProtocolError,
    TimedOut,
    TlsError,
    plain,
)
from cctailscale.tailnet.attempt import Report
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.dial import Address, Dialer, literal_address
from cctailscale.tailnet.models import Status
from cctailscale.tailnet.peers import away, with_port
from cctailscale.tailnet.results import Certificate

HTTPS_PORT = 443
# How a certificate begins as PEM (RFC 7468).
BEGIN = b"-----BEGIN CERTIFICATE-----"
# For the handshakes with another host.
HANDSHAKE_SECONDS = 10.0
# How often a caller who waits for the authority is told so.
TELL_SECONDS = 5
# A certificate for a whole hosting service can have thousands of names.
MAX_NAMES = 50
# ipnlocal's own words when control has given the node no domain for certificates.
NOT_ENABLED = "does not support getting TLS certs"
# HTTP's status for a rate limit, which LocalAPI passes on from the certificate authority.
TOO_MANY_REQUESTS = 429


async def look(device: Device, domain: str | None, seconds: float, report: Report) -> Certificate:
    """This node's own certificate if `domain` is None or one of its names, else the one that `domain` serves.

    `seconds` bounds the first; the second has bounds of its own. Raises BadName, NoSuchName, CertificateUnavailable,
    TlsError, PeerProtocolError, and the errors of `Dialer.connect`.
    """
    status = await device.api.shared_status(peers=False)
    if domain is None or await _is_own(device, domain, status):
        found, _ = await _own(device, _own_domain(domain, status), seconds, report, with_key=False)
    else:
        await report(f"Asking {plain(domain)} for its certificate")
        found = await served(device.dialer, domain, await device.dialer.resolve(domain))
    found.notice = away(status)
    return found


async def own_pair(device: Device, domain: str | None, seconds: float, report: Report) -> tuple[Certificate, bytes]:
    """As `look`, for this node's own alone, with the private key and the chain as PEM, the key first."""
    status = await device.api.shared_status(peers=False)
    if domain is not None and not await _is_own(device, domain, status):
        raise CertificateUnavailable(
            domain,
            "only this node's own certificate can be saved",
            "The key of another host's certificate is at that host.",
            "Leave domain out, or save_to.",
        )
    return await _own(device, _own_domain(domain, status), seconds, report, with_key=True)


async def _is_own(device: Device, domain: str, status: Status) -> bool:
    if literal_address(domain) is None and not set(device.dialer.full_names(domain)).isdisjoint(status.cert_domains):
        return True
    return any(str(address) in status.tailscale_ips for address in await device.dialer.resolve(domain))


def _own_domain(domain: str | None, status: Status) -> str:
    """The name to ask for: the one that was given if it is among those for which there may be certificates."""
    if not status.cert_domains:
        raise not_enabled(status.me.name if status.me else "")
    bare = (domain or "").rstrip(".").lower()
    return bare if bare in status.cert_domains else status.cert_domains[0]


def described(data: bytes, host: str, served_by: str) -> Certificate:
    """The certificate in `data`: DER, or PEM, of which the first. Raises PeerProtocolError if it is neither."""
    try:
        load = x509.load_pem_x509_certificate if BEGIN in data else x509.load_der_x509_certificate
        certificate = load(data)
        return Certificate(
            host=plain(host),
            served_by=served_by,
            subject=_named(certificate.subject),
            names=_names(certificate)[:MAX_NAMES],
            issuer=_named(certificate.issuer),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            days_left=(certificate.not_valid_after_utc - datetime.now(UTC)).days,
            key_type=_key_type(certificate),
        )
    except (ValueError, x509.InvalidVersion) as error:
        raise PeerProtocolError(served_by, f"has a certificate that cannot be read: {error}") from error


async def _own(
    device: Device, domain: str, seconds: float, report: Report, *, with_key: bool
) -> tuple[Certificate, bytes]:
    """This node's certificate for `domain`, one of its names; the node gets one if it has none that is good."""
    async with anyio.create_task_group() as telling:
        telling.start_soon(_tell_of_waiting, domain, report)
        pem = await _pem(device, domain, seconds, with_key=with_key)
        telling.cancel_scope.cancel()
    if isinstance(pem, CcTailscaleError):  # raised here, since the task group would wrap it
        raise pem
    return described(pem[pem.find(BEGIN) :], domain, "this node"), pem


async def _pem(device: Device, domain: str, seconds: float, *, with_key: bool) -> bytes | CcTailscaleError:
    try:
        return await device.api.certificate(domain, seconds, with_key=with_key)
    except LocalApiError as error:
        return unavailable(domain, error, seconds)
    except NodeClosed as error:
        return error


async def _tell_of_waiting(domain: str, report: Report) -> None:
    await report(f"Getting the certificate for {domain}")
    for waited in count(TELL_SECONDS, TELL_SECONDS):
        await anyio.sleep(TELL_SECONDS)
        await report(f"Waiting for the certificate authority ({waited} s)")


def unavailable(domain: str, error: LocalApiError, seconds: float) -> CcTailscaleError:
    """What a failed attempt to get the node's own certificate means."""
    if isinstance(error.__cause__, TimeoutError):
        return CertificateUnavailable(
            domain,
            f"the certificate authority did not finish within {seconds:g} s",
            "A first certificate takes some seconds; more when the authority is busy, or limits this tailnet's names.",
            "Call the tool again, once; if it takes as long, wait for some hours.",
        )
    if NOT_ENABLED in error.reason:
        return not_enabled(domain)
    if error.status == TOO_MANY_REQUESTS:
        return CertificateUnavailable(
            domain,
            error.reason,
            "The certificate authority limits how many certificates a name gets in a week.",
            "Wait until the limit is over, and keep the device (TS_EPHEMERAL=false) instead of making new ones.",
        )
    return CertificateUnavailable(
        domain,
        error.reason,
        "The node asks a certificate authority (Let's Encrypt) over the internet and proves its name through control.",
        "Check that this machine reaches the internet; then try again.",
    )


def not_enabled(domain: str) -> CertificateUnavailable:
    """HTTPS is off in the tailnet's settings, or control has no such thing (Headscale)."""
    return CertificateUnavailable(
        domain or "this node",
        "HTTPS is not enabled for this tailnet",
        "Only an admin can enable it. It publishes the names of devices with a certificate in a public log.",
        "An admin opens https://login.tailscale.com/admin/dns, turns on MagicDNS and then, under HTTPS Certificates, "
        "Enable HTTPS; then call the tool again. Headscale has no such certificates.",
    )


async def served(dialer: Dialer, host: str, addresses: list[Address]) -> Certificate:
    """The certificate that port 443 of `host` serves, trusted or not.

    Raises the errors of `Dialer.connect`, TlsError (no handshake at all), PeerProtocolError.
    """
    name = host.rstrip(".")
    try:
        with anyio.fail_after(HANDSHAKE_SECONDS):
            data = await _handshake(dialer, name, addresses, _any_certificate())
            problem = await _refusal(dialer, name, addresses)
    except TimeoutError as error:
        raise TimedOut(with_port(name, HTTPS_PORT), HANDSHAKE_SECONDS) from error
    seen = described(data, name, with_port(name, HTTPS_PORT))
    return seen.model_copy(update={"trusted": problem is None, "problem": problem})


async def _refusal(dialer: Dialer, name: str, addresses: list[Address]) -> str | None:
    """Why a handshake with what this machine trusts fails; None if it does not."""
    try:
        await _handshake(dialer, name, addresses, await dialer.tls())
    except TlsError as error:
        cause = error.__cause__
        return plain(getattr(cause, "verify_message", "") or str(cause))
    return None


async def _handshake(dialer: Dialer, name: str, addresses: list[Address], context: ssl.SSLContext) -> bytes:
    sock = await dialer.connect_first(addresses, HTTPS_PORT)
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=sock, ssl=context, server_hostname=name
        )
    except (OSError, EOFError) as error:  # ssl.SSLError is an OSError
        sock.close()
        raise TlsError(with_port(name, HTTPS_PORT), str(error) or type(error).__name__) from error
    except BaseException:
        sock.close()
        raise
    try:
        found: ssl.SSLObject = transport.get_extra_info("ssl_object")
        return found.getpeercert(binary_form=True) or b""
    finally:
        transport.abort()


def _any_certificate() -> ssl.SSLContext:
    """Takes any certificate: nothing is sent over such a connection, it is only looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _named(name: x509.Name) -> str:
    return plain(name.rfc4514_string()) or "(empty)"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return [plain(str(attribute.value)) for attribute in common]
    return [plain(str(getattr(name, "value", name))) for name in found]


def _key_type(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return "of another kind"
