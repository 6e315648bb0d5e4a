"""One question to the control server over plain HTTP, as the node's first one: does it answer, and what time has it."""

import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # not in typeshed

import aiohttp
import anyio.to_thread

from cctailscale.config import Settings
from cctailscale.errors import ControlUnreachable
from cctailscale.tailnet.dial import trusting

# controlclient.loadServerPubKeys asks for this first; Headscale has it too. The version changes what it answers, not
# whether it does.
KEY_PATH = "/key?v=100"
# A server that is at its end, or a proxy that does not reach it.
BROKEN = 500


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    """That control answered, after how many ms; `ahead_seconds`: this machine's clock less control's, if it told."""

    milliseconds: float
    ahead_seconds: float | None


async def ask(settings: Settings, seconds: float) -> ControlAnswer:
    """Asks the control server for its public key. Raises ControlUnreachable, TlsError."""
    url = settings.control_url
    tls = await anyio.to_thread.run_sync(trusting, settings.ssl_cert_file)
    bound = aiohttp.ClientTimeout(total=seconds)
    began, sent_at = time.perf_counter(), time.time()
    try:
        async with (
            aiohttp.ClientSession(timeout=bound, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(f"{url}{KEY_PATH}", ssl=tls, proxy=_proxy(settings), allow_redirects=False) as response,
        ):
            passed = time.perf_counter() - began
            if response.status >= BROKEN:
                raise ControlUnreachable(url, f"HTTP {response.status}")
            ahead = clock_ahead(response.headers.get("Date", ""), sent_at + passed / 2)
            return ControlAnswer(round(passed * 1000, 1), ahead)
    except TimeoutError as error:
        raise ControlUnreachable(url, f"nothing within {seconds:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ControlUnreachable(url, str(error)) from error


def clock_ahead(date: str, now: float) -> float | None:
    """How far `now` (seconds since the epoch) is ahead of an HTTP Date (RFC 9110, 5.6.7), which has whole seconds.

    None for what is no date; 0 for less than a second.
    """
    try:
        told = parsedate_to_datetime(date)
    except ValueError:
        return None
    told = told if told.tzinfo else told.replace(tzinfo=UTC)
    ahead = now - (told.timestamp() + 0.5)  # cut off, not rounded: half a second earlier on average
    return 0.0 if abs(ahead) < 1 else round(ahead, 1)


def _proxy(settings: Settings) -> str | None:
    """The proxy that Go takes for that URL: HTTPS_PROXY, unless NO_PROXY has the host."""
    control = urlsplit(settings.control_url)
    if control.scheme != "https" or settings.https_proxy is None:
        return None
    if proxy_bypass_environment(control.hostname or "", {"no": settings.no_proxy or ""}):
        return None
    proxy = settings.https_proxy.get_secret_value()
    return proxy if "://" in proxy else f"http://{proxy}"
