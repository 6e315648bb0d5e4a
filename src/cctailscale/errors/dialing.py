"""Why one address on the tailnet could not be reached or used."""

# The names are the field's words for what happened; "Error" at the end of each would say nothing more.
# ruff: noqa: N818

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from cctailscale.errors.text import MAX_ADDRESS_CHARS, CcTailscaleError, plain, shown_address


class DialError(CcTailscaleError):
    """One attempt to reach one `target` (URL or host:port, shown without credentials) failed."""

    def __init__(self, target: str, happened: str, meaning: str, next_step: str) -> None:
        self.target = target
        super().__init__(happened, meaning, next_step)


class BadUrl(DialError):
    """`url` cannot be asked for; `problem` follows on it ("has no host")."""

    def __init__(self, url: str, problem: str) -> None:
        target = shown_address(url)
        super().__init__(
            target,
            f"The URL {target} {plain(problem).rstrip('.')}.",
            "Nothing was sent.",
            "Give an http or https URL with a host on the tailnet, such as http://web:8080/health.",
        )


class BadHeader(DialError):
    """The request header `name` cannot be sent; `problem` follows on it ("is set by HTTP itself")."""

    def __init__(self, url: str, name: str, problem: str) -> None:
        self.name = plain(name, 80)
        super().__init__(
            shown_address(url),
            f"The header {self.name} {plain(problem).rstrip('.')}.",
            "Nothing was sent.",
            "Leave it out, or correct it, and call again.",
        )


class BadName(DialError):
    """`host` is in no form that a tool takes; `problem` follows on it ("has a space in it")."""

    def __init__(self, host: str, problem: str = "is neither a name nor an address in its usual form") -> None:
        target = plain(host, MAX_ADDRESS_CHARS)
        super().__init__(
            target,
            f"{target or 'An empty text'} {plain(problem).rstrip('.')}.",
            "Nothing was sent.",
            "Give a short name (web), a full name (web.tail1234.ts.net), an IPv4 address (100.64.0.1) "
            "or an IPv6 address (fd7a:115c:a1e0::1).",
        )


class NoSuchName(DialError):
    """The tailnet's own DNS has no address for `name`.

    With `redirected_from`, the URL whose redirects led there, the name is the word of a peer, and is not shown.
    """

    def __init__(self, name: str, redirected_from: str | None = None) -> None:
        target = plain(name, MAX_ADDRESS_CHARS) if redirected_from is None else shown_address(redirected_from)
        super().__init__(
            target,
            f"The tailnet has no name {target}."
            if redirected_from is None
            else f"{target} redirects to a name that the tailnet does not have.",
            "Only the tailnet's own DNS is asked (MagicDNS and its split-DNS routes), never this machine's resolver.",
            "Check the spelling, or give the peer's 100.x address.",
        )


class ResolverFailed(DialError):
    """Whether there is `name` is not known: `resolvers`, to which the tailnet's DNS sends such names, said `rcode`."""

    def __init__(self, name: str, resolvers: Sequence[str], rcode: str) -> None:
        target = plain(name, MAX_ADDRESS_CHARS)
        super().__init__(
            target,
            f"The name {target} could not be looked up: {plain(' and '.join(resolvers))} said {plain(rcode)}.",
            "The tailnet's DNS sends such names there, and it did not answer: whether the name exists is not known.",
            "Check that the resolver is online, or give the host's address.",
        )


class NoSuchDevice(DialError):
    """No device of the tailnet has the address of `target`; `behind` is the subnet router in front of it, if any."""

    def __init__(self, target: str, behind: str = "") -> None:
        shown = shown_address(target)
        router = plain(behind)
        super().__init__(
            shown,
            f"No device of this tailnet has the address {shown}.",
            f"It is behind the subnet router {router}: hosts there are no devices of the tailnet."
            if router
            else "The tailnet knows its own devices only, not public addresses nor hosts of other networks.",
            f"Ask about {router} instead."
            if router
            else "Give a device's name or its 100.x or fd7a: address; tailscale_devices lists them.",
        )


class NotOnTailnet(DialError):
    """The guard refused `target`: no peer and no accepted route owns its address. `reason` says more."""

    def __init__(self, target: str, reason: str = "") -> None:
        shown = shown_address(target)
        why = f" ({plain(reason).rstrip('.')})" if reason else ""
        super().__init__(
            shown,
            f"{shown} is not on the tailnet{why}.",
            "No peer and no accepted subnet route owns that address, so nothing was sent.",
            "Use a device of the tailnet; for hosts behind a subnet router, have its route approved.",
        )


class ConnectionRefused(DialError):
    """The peer answered that nothing listens at `target` (a TCP reset)."""

    def __init__(self, target: str) -> None:
        shown = shown_address(target)
        super().__init__(
            shown,
            f"{shown} refused the connection.",
            "The device is reachable, but nothing listens on that port.",
            "Check the port, and that the service listens on the tailnet address and not on 127.0.0.1 alone.",
        )


class Unreachable(DialError):
    """There is no path to `target`; `reason` is what the network said."""

    def __init__(self, target: str, reason: str = "") -> None:
        shown = shown_address(target)
        why = f" ({plain(reason).rstrip('.')})" if reason else ""
        super().__init__(
            shown,
            f"There is no path to {shown}{why}.",
            "The device, or the subnet router in front of it, is offline.",
            "See with tailscale_status whether this node is healthy, and try again once the device is back.",
        )


class TimedOut(DialError):
    """No answer from `target` within `seconds`; `stage` says during what.

    It is one of `_STAGES`, or another one of a connection that stands ("reading the body").
    """

    _STAGES: ClassVar = {
        "connecting": (
            "The device is offline, or the tailnet's access rules drop the traffic: a drop looks the same.",
            "Check that the device is online and that the policy allows this port; then try again.",
        ),
        "looking the name up": (
            "The resolver to which the tailnet's DNS sends such names did not answer, so nothing was sent to the host.",
            "Check that the resolver is online (tailscale_dns_lookup names it), or give the host's address.",
        ),
    }

    def __init__(self, target: str, seconds: float, stage: str = "connecting") -> None:
        self.seconds = seconds
        self.stage = stage
        shown = shown_address(target)
        meaning, next_step = self._STAGES.get(
            stage,
            (
                "The connection stands, but the service is slow or stuck.",
                "Try again with a larger timeout, or look at the service.",
            ),
        )
        super().__init__(shown, f"{shown} gave no answer within {seconds:g} s ({stage}).", meaning, next_step)


class TlsError(DialError):
    """TLS with `target` failed for `reason` (the verifier's or the peer's)."""

    def __init__(self, target: str, reason: str) -> None:
        shown = shown_address(target)
        super().__init__(
            shown,
            f"No secure connection to {shown}: {plain(reason).rstrip('.')}.",
            "The certificate is not trusted, does not fit the name or has expired, or the port does not speak TLS.",
            "Use the device's full MagicDNS name; for a private CA, set SSL_CERT_FILE to its certificate.",
        )


class PeerProtocolError(DialError):
    """The answer of `target` cannot be used; `problem` follows on it ("sent more than 64 KiB of headers")."""

    def __init__(self, target: str, problem: str) -> None:
        shown = shown_address(target)
        super().__init__(
            shown,
            f"{shown} {plain(problem).rstrip('.')}.",
            "That is not a sound HTTP answer, so it was dropped.",
            "Check that the port speaks HTTP and that the URL and scheme are right.",
        )
