"""One HTTP exchange with a host on the tailnet, with every limit that a hostile answer needs."""

import contextlib
import math
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import anyio
from aiohttp import hdrs
from aiohttp.http_exceptions import ContentLengthError, PayloadEncodingError
from yarl import URL

from cctailscale.call import carried
from cctailscale.errors import (
    BadHeader,
    BadName,
    BadUrl,
    NodeClosed,
    NoSuchName,
    PeerProtocolError,
    ResolverFailed,
    TimedOut,
    TlsError,
    Unreachable,
)
from cctailscale.tailnet.dial import Dialer, Exchange, following
from cctailscale.tailnet.straight import pieces

MAX_URL_CHARS = 8192
MAX_REQUEST_BYTES = 10 << 20
MAX_REQUEST_HEADERS = 100
MAX_REDIRECTS = 10
# Per header line and in number; a proxy that signs people in sends some large ones.
MAX_HEADER_BYTES = 16 << 10
# What the peer's bytes may grow to at a time when they are decompressed; a bomb grows by the factor 1,000.
READ_BYTES = 64 << 10
# The same for a body that is saved, as it is: with more at a time the disk and the network work side by side.
SAVE_READ_BYTES = 1 << 20
# What is read on either side of the part that is asked for, so that a secret that the cut goes through is known: the
# longest key (config.MAX_KEY_BYTES), each of its characters percent-encoded.
MARGIN_BYTES = 12 << 10
# How long it is waited for after the cut: a peer that sends slowly may not have more yet.
MARGIN_SECONDS = 0.2
# A peer that never stops sending is not to fill the disk for ever.
MAX_SAVED_BYTES = 64 << 30
# Set by HTTP itself: with others an answer, or the next request, could be smuggled (RFC 9112, 6.1 and 9.6).
OWNED_HEADERS = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade"}
)
USER_AGENT = "cc-tailscale"


@dataclass(frozen=True, slots=True)
class Request:
    """What to send, and what of the answer to read: `max_bytes` of its body after the first `offset`, decompressed.

    `seconds` bounds the whole exchange, redirects and body included; with a sink it bounds silence. An image is read
    up to `max_image_bytes`, if those are more.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    seconds: float = 30.0
    max_bytes: int = 100_000
    offset: int = 0
    max_image_bytes: int = 0
    follow_redirects: bool = True
    verify_tls: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is what was read of it; `complete` says whether it goes to the end.

    `passed` is how many bytes before it were passed over: the offset, or all that there were if they are fewer.
    `saved` says that the body went to the sink, and not here. `around` is what stood right before and after `body`, as
    far as it was read: it is not to be shown, but tells what is cut.
    """

    url: str
    hops: tuple[str, ...]
    version: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    complete: bool
    declared_bytes: int | None
    passed: int = 0
    saved: bool = False
    around: tuple[bytes, bytes] = (b"", b"")

    def header(self, name: str) -> str:
        """The first value of a header, or ""."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class Sink(Protocol):
    """Where a body goes that is not to be held in memory."""

    async def expect(self, count: int) -> None:
        """Is told how many bytes are to come, if the peer says so."""

    async def write(self, data: bytes) -> None:
        """Takes the next bytes."""


async def fetch(dialer: Dialer, request: Request, sink: Sink | None = None) -> Answer:
    """Sends `request` through `dialer`, follows redirects through the same guard, and reads what fits.

    With `sink`, the body of an answer with a status of success goes there, all of it. Raises what the sink raises;
    BadUrl, BadHeader, BadName, NoSuchName, ResolverFailed, NotOnTailnet, ConnectionRefused, Unreachable, TimedOut,
    TlsError, PeerProtocolError, NodeClosed.
    """
    url = checked_url(request.url)
    headers = _checked_headers(request)
    if sink is not None and not any(name.lower() == "accept-encoding" for name in headers):
        headers[hdrs.ACCEPT_ENCODING] = "identity"  # a file is to be as it is there
    exchange = Exchange()
    try:
        with following(exchange), anyio.fail_after(request.seconds) as bound:
            return await _exchange(dialer, request, url, headers, exchange, sink, bound)
    except TimeoutError as error:
        raise TimedOut(request.url, request.seconds, exchange.stage) from error
    except (BadName, NoSuchName, ResolverFailed) as error:
        if exchange.redirected:
            raise NoSuchName(error.target, request.url) from error
        raise
    except aiohttp.TooManyRedirects as error:
        raise PeerProtocolError(request.url, f"redirects in a circle, or more than {MAX_REDIRECTS} times") from error
    except aiohttp.NonHttpUrlClientError as error:
        raise BadUrl(request.url, "redirects to something that is no http or https URL") from error
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise TlsError(request.url, _tls_reason(error)) from error
    except aiohttp.InvalidURL as error:
        problem = "has, or leads to, a host that is neither a name nor an address in its usual form"
        raise BadUrl(request.url, problem) from error
    except aiohttp.ClientResponseError as error:
        raise PeerProtocolError(request.url, f"sent an answer that is not HTTP ({_parser_reason(error)})") from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
        raise PeerProtocolError(request.url, _payload_problem(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(request.url, f"the connection broke: {error}") from error


async def _exchange(
    dialer: Dialer,
    request: Request,
    url: URL,
    headers: Mapping[str, str],
    exchange: Exchange,
    sink: Sink | None,
    bound: anyio.CancelScope,
) -> Answer:
    tls = await _tls(dialer, url) if request.verify_tls else False
    if dialer.http.closed:  # aiohttp would raise a RuntimeError
        raise NodeClosed
    async with dialer.http.request(
        request.method,
        url,
        headers=headers,
        data=request.body,
        allow_redirects=request.follow_redirects,
        max_redirects=MAX_REDIRECTS,
        ssl=tls,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        read_bufsize=READ_BYTES if sink is None else SAVE_READ_BYTES,
    ) as response:
        exchange.stage = "reading the body"
        body, passed, complete, around = b"", 0, True, (b"", b"")
        saved = sink is not None and 200 <= response.status < 300
        try:
            if sink is not None and saved:
                await _save(response, request, sink, bound)
            else:
                body, passed, complete, around = await _read(response, request.offset, _limit(request, response))
        finally:
            carried(len(request.body or b""), response.content.total_bytes)
        version = response.version
        answer = Answer(
            url=str(response.url),
            hops=tuple(str(hop.url) for hop in response.history),
            version=f"HTTP/{version.major}.{version.minor}" if version else "HTTP/1.1",
            status=response.status,
            reason=response.reason or "",
            headers=tuple(response.headers.items()),
            body=body,
            complete=complete,
            declared_bytes=response.content_length,
            passed=passed,
            saved=saved,
            around=around,
        )
        if not complete:
            response.close()  # the rest is not wanted: nothing is drained, the connection is not kept
        return answer


async def _tls(dialer: Dialer, url: URL) -> ssl.SSLContext:
    """What to trust, for http too: a redirect can lead to https."""
    try:
        return await dialer.tls()
    except TlsError:
        if url.scheme == "https":
            raise
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody


def _limit(request: Request, response: aiohttp.ClientResponse) -> int:
    if response.content_type.startswith("image/") and request.offset == 0:
        return max(request.max_bytes, request.max_image_bytes)
    return request.max_bytes


async def _read(
    response: aiohttp.ClientResponse, offset: int, max_bytes: int
) -> tuple[bytes, int, bool, tuple[bytes, bytes]]:
    """At most `max_bytes` after `offset`; how many were passed over; whether that is the end; what is around it."""
    parts: list[bytes] = []
    before, left, lead = offset, max_bytes, b""
    pieces = response.content.iter_any()
    async for part in pieces:
        skipped, piece = part[:before], part[before:]
        before -= len(skipped)
        lead = (lead + skipped[-MARGIN_BYTES:])[-MARGIN_BYTES:]
        if len(piece) > left:
            parts.append(piece[:left])
            return b"".join(parts), offset, False, (lead, await _margin(pieces, piece[left:]))
        parts.append(piece)
        left -= len(piece)
    return b"".join(parts), offset - before, True, (lead, b"")


async def _margin(pieces: AsyncIterator[bytes], begun: bytes) -> bytes:
    """What comes after the cut, as far as it comes soon. It is not shown, and may break off."""
    with contextlib.suppress(aiohttp.ClientError), anyio.move_on_after(MARGIN_SECONDS):
        async for piece in pieces:
            begun += piece
            if len(begun) >= MARGIN_BYTES:
                break
    return begun[:MARGIN_BYTES]


async def _save(response: aiohttp.ClientResponse, request: Request, sink: Sink, bound: anyio.CancelScope) -> None:
    """Hands the body to `sink`. Each piece has the whole of the time; what the sink takes does not count."""
    declared = response.content_length
    if declared is not None and hdrs.CONTENT_ENCODING not in response.headers:
        await sink.expect(declared)
    size = 0
    bound.deadline = anyio.current_time() + request.seconds
    async with contextlib.aclosing(pieces(response, sent=request.body is None)) as parts:
        async for part in parts:
            size += len(part)
            if size > MAX_SAVED_BYTES:
                raise PeerProtocolError(request.url, f"sends more than {MAX_SAVED_BYTES >> 30} GiB")
            bound.deadline = math.inf
            await sink.write(part)
            bound.deadline = anyio.current_time() + request.seconds


def checked_url(text: str) -> URL:
    """The URL, if it is an http or https one with a host. Raises BadUrl."""
    if len(text) > MAX_URL_CHARS:
        raise BadUrl(text[:200], f"has more than {MAX_URL_CHARS} characters")
    if " " in text or not text.isprintable():
        raise BadUrl(text, "holds blanks or control characters")
    try:
        parts = urlsplit(text)
        if parts.scheme.lower() not in ("http", "https"):
            raise BadUrl(text, f"is not an http or https URL (its scheme is {parts.scheme or 'missing'})")
        if not parts.hostname:
            raise BadUrl(text, "has no host")
        if parts.port == 0:
            raise BadUrl(text, "has the port 0")
        return URL(text)
    except ValueError as error:
        raise BadUrl(text, f"cannot be read ({error})") from error


def _checked_headers(request: Request) -> dict[str, str]:
    if len(request.headers) > MAX_REQUEST_HEADERS:
        raise BadHeader(request.url, "…", f"is one of more than {MAX_REQUEST_HEADERS}")
    for name, value in request.headers.items():
        if name.lower() in OWNED_HEADERS or name.lower().startswith("proxy-"):
            raise BadHeader(request.url, name, "is set by HTTP itself")
        if not name or not all(c.isalnum() or c in "!#$%&'*+-.^_`|~" for c in name) or not name.isascii():
            raise BadHeader(request.url, name, "is not a header name (RFC 9110, 5.6.2)")
        if any(c in "\r\n\0" for c in value):
            raise BadHeader(request.url, name, "has a line break in its value")
    if request.body is not None and len(request.body) > MAX_REQUEST_BYTES:
        raise BadHeader(request.url, hdrs.CONTENT_LENGTH, f"would be more than {MAX_REQUEST_BYTES} bytes")
    given = {name.lower() for name in request.headers}
    defaults = {hdrs.USER_AGENT: USER_AGENT, hdrs.ACCEPT: "*/*"}
    if request.body is not None:
        defaults[hdrs.CONTENT_TYPE] = "text/plain; charset=utf-8"
    return {name: value for name, value in defaults.items() if name.lower() not in given} | dict(request.headers)


def _parser_reason(error: aiohttp.ClientResponseError) -> str:
    """What the parser did not like. It quotes the peer after that, which has no place outside of a fence."""
    said = re.match(r"[A-Za-z0-9 -]*", error.message)
    return said.group().strip() if said else ""


def _payload_problem(error: aiohttp.ClientError) -> str:
    cause = error.__cause__
    broken_off = isinstance(cause, ContentLengthError) or "Not enough data" in str(cause)
    if isinstance(cause, PayloadEncodingError) and not broken_off:
        return "sent a body that cannot be decoded"
    return "closed the connection before its answer was complete"


def _tls_reason(error: aiohttp.ClientConnectorError) -> str:
    cause = getattr(error, "certificate_error", None) or error.os_error
    return str(getattr(cause, "verify_message", "") or cause)
