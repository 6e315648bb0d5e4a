"""One HTTP exchange with a host on the tailnet, with every limit that a hostile answer needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp
import anyio
from aiohttp import hdrs
from yarl import URL

from cctailscale.errors import BadHeader, BadUrl, PeerProtocolError, TimedOut, TlsError, Unreachable
from cctailscale.tailnet.dial import Dialer

MAX_URL_CHARS = 8192
MAX_REQUEST_BYTES = 10 << 20
MAX_REQUEST_HEADERS = 100
MAX_REDIRECTS = 10
# Per header line and in number; a proxy that signs people in sends some large ones.
MAX_HEADER_BYTES = 16 << 10
# What the peer's bytes may grow to at a time when they are decompressed; a bomb grows by the factor 1,000.
READ_BYTES = 64 << 10
# Set by HTTP itself: with others an answer, or the next request, could be smuggled (RFC 9112, 6.1 and 9.6).
OWNED_HEADERS = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
    | {"upgrade"}
)
USER_AGENT = "cc-tailscale"


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `seconds` bounds the whole exchange, redirects and body included."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    seconds: float = 30.0
    max_bytes: int = 100_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` has at most `max_bytes` bytes, decompressed; `complete` says whether that is all of it."""

    url: str
    hops: tuple[str, ...]
    version: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    complete: bool
    declared_bytes: int | None

    def header(self, name: str) -> str:
        """The first value of a header, or ""."""
        return next((value for key, value in self.headers if key.lower() == name), "")


async def fetch(dialer: Dialer, request: Request) -> Answer:
    """Sends `request` through `dialer`, follows redirects through the same guard, and reads what fits.

    Raises BadUrl, BadHeader, NoSuchName, NotOnTailnet, ConnectionRefused, Unreachable, TimedOut, TlsError,
    PeerProtocolError.
    """
    url = checked_url(request.url)
    headers = _checked_headers(request)
    progress = SimpleNamespace(stage="connecting")
    try:
        with anyio.fail_after(request.seconds):
            return await _exchange(dialer, request, url, headers, progress)
    except TimeoutError as error:
        raise TimedOut(request.url, request.seconds, progress.stage) from error
    except aiohttp.TooManyRedirects as error:
        raise PeerProtocolError(request.url, f"redirects in a circle, or more than {MAX_REDIRECTS} times") from error
    except aiohttp.NonHttpUrlClientError as error:
        raise BadUrl(str(error), "is where a redirect leads, and is no http or https URL") from error
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        raise TlsError(request.url, _tls_reason(error)) from error
    except aiohttp.InvalidURL as error:
        problem = "has, or leads to, a host that is neither a name nor an address in its usual form"
        raise BadUrl(request.url, problem) from error
    except aiohttp.ClientResponseError as error:
        raise PeerProtocolError(request.url, f"sent an answer that is not HTTP ({error.message})") from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
        raise PeerProtocolError(request.url, "closed the connection before its answer was complete") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(request.url, f"the connection broke: {error}") from error


async def _exchange(
    dialer: Dialer, request: Request, url: URL, headers: Mapping[str, str], progress: SimpleNamespace
) -> Answer:
    async with dialer.http.request(
        request.method,
        url,
        headers=headers,
        data=request.body,
        max_redirects=MAX_REDIRECTS,
        ssl=await dialer.tls(),  # also for http: a redirect can lead to https
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        read_bufsize=READ_BYTES,
        trace_request_ctx=progress,
    ) as response:
        progress.stage = "reading the body"
        body, complete = await _read(response, request.max_bytes)
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
        )
        if not complete:
            response.close()  # the rest is not wanted: nothing is drained, the connection is not kept
        return answer


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> tuple[bytes, bool]:
    parts: list[bytes] = []
    left = max_bytes
    async for part in response.content.iter_any():
        if len(part) > left:
            parts.append(part[:left])
            return b"".join(parts), False
        parts.append(part)
        left -= len(part)
    return b"".join(parts), True


def checked_url(text: str) -> URL:
    """The URL, if it is an http or https one with a host. Raises BadUrl."""
    if len(text) > MAX_URL_CHARS:
        raise BadUrl(text[:200], f"has more than {MAX_URL_CHARS} characters")
    if any(c.isspace() or not c.isprintable() for c in text):
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


def _tls_reason(error: aiohttp.ClientConnectorError) -> str:
    cause = getattr(error, "certificate_error", None) or error.os_error
    return str(getattr(cause, "verify_message", "") or cause)
