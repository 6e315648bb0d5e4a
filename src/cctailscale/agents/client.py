"""What this agent asks of others: HTTP/1.1 over the tailnet, bounded in time, its answers held to the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

import aiohttp
import anyio

from cctailscale.agents.wire import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    PORT,
    AgentCard,
    Message,
    Receipt,
    Refusal,
)
from cctailscale.call import carried
from cctailscale.documents import MAX_DOCUMENT_BYTES
from cctailscale.errors import (
    AgentRefused,
    AnswerLost,
    BadDocument,
    ConnectionRefused,
    DialError,
    NoAgent,
    NodeClosed,
    TimedOut,
)

if TYPE_CHECKING:
    from cctailscale.tailnet.device import Device

D = TypeVar("D", AgentCard, Receipt, Refusal)

# A connection from the pool can have been closed at the other end at that very moment, or lead to a process that has
# been killed. All that is asked here can be asked again: a message is known by its id.
_BROKEN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError)
# An agent that has just joined is known to others some milliseconds before it listens. A device without one refuses
# each time, and costs the sum of these.
REFUSED_PAUSES_SECONDS = (0.05, 0.1, 0.35)


async def card_of(device: Device, address: str, seconds: float) -> AgentCard:
    """What the agent at `address` says about itself. Raises as `ask`."""
    return _read(AgentCard, address, await ask(device, address, "GET", "agent", None, seconds))


async def deliver(device: Device, address: str, message: Message, seconds: float) -> Receipt:
    """Has the agent at `address` store a message; a repeat gives the first receipt. Raises as `ask`.

    Where nothing listens it is tried again for half a second; `seconds` bound each try.
    """
    body = message.to_json()
    for pause in (*REFUSED_PAUSES_SECONDS, None):
        try:
            answer = await ask(device, address, "POST", "messages", body, seconds)
        except NoAgent as error:
            if pause is None or not isinstance(error.__cause__, ConnectionRefused):
                raise
            await anyio.sleep(pause)
        else:
            return _about(_read(Receipt, address, answer), message.id, address)
    raise AssertionError("the last try returns or raises")


async def receipt_of(device: Device, address: str, message_id: str, seconds: float) -> Receipt:
    """What became of a message that was delivered. Raises as `ask`."""
    answer = await ask(device, address, "GET", f"messages/{message_id}", None, seconds)
    return _about(_read(Receipt, address, answer), message_id, address)


async def ask(
    device: Device,
    address: str,
    method: Literal["GET", "POST"],
    path: str,
    body: bytes | None,
    seconds: float,
    max_bytes: int = MAX_DOCUMENT_BYTES,
) -> bytes:
    """The body of a successful answer, which has at most `max_bytes`. `path` follows on /v1/.

    Raises AgentRefused; NoAgent: nothing listens there, or it does not speak the protocol; AnswerLost, TimedOut,
    NotOnTailnet, Unreachable, NodeClosed, NodeFailed.
    """
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{PORT}/v1/{path}"
    try:
        with anyio.fail_after(seconds):
            return await _asked(device, url, method, body, address, max_bytes)
    except TimeoutError as error:
        raise TimedOut(address, seconds, "waiting for the agent") from error
    except ConnectionRefused as error:
        raise NoAgent(address, "nothing listens on its port for agents") from error
    except aiohttp.ClientResponseError as error:
        raise NoAgent(address, "what listens there does not speak HTTP") from error
    except aiohttp.ClientError as error:  # none of those that break a connection; aiohttp may think of more
        raise AnswerLost(address) from error
    except RuntimeError as error:  # aiohttp's, for a session that is closed
        if not device.dialer.http.closed:
            raise
        raise NodeClosed from error


async def _asked(device: Device, url: str, method: str, body: bytes | None, address: str, max_bytes: int) -> bytes:
    """The answer, asked for once more if the connection breaks. Raises AnswerLost if that does not help either."""
    try:
        return await _asked_once(device, url, method, body, address, max_bytes)
    except _BROKEN:
        try:
            return await _asked_once(device, url, method, body, address, max_bytes)
        except (DialError, *_BROKEN) as error:  # that nobody is there any more does not undo what the first has done
            raise AnswerLost(address) from error


async def _asked_once(device: Device, url: str, method: str, body: bytes | None, address: str, max_bytes: int) -> bytes:
    async with device.dialer.http.request(
        method,
        url,
        data=body,
        headers={"Content-Type": "application/json"} if body is not None else None,
        allow_redirects=False,
        auto_decompress=False,
        max_headers=MAX_HEADERS,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        read_bufsize=MAX_DOCUMENT_BYTES,
    ) as response:
        try:
            answer = await _body(response, address, max_bytes)
        finally:
            carried(len(body or b""), response.content.total_bytes)
    if response.status >= 400:
        refusal = _read(Refusal, address, answer)
        raise AgentRefused(address, response.status, refusal.error, refusal.message)
    if response.status not in (200, 202):
        raise NoAgent(address, f"what listens there answers {response.status}")
    return answer


async def _body(response: aiohttp.ClientResponse, address: str, max_bytes: int) -> bytes:
    """The answer, which has to be of the protocol's type and size; what is not is not read."""
    if response.content_type != "application/json" or "Content-Encoding" in response.headers:
        response.close()
        raise NoAgent(address, "what listens there is no agent")
    body = b""
    async for part in response.content.iter_any():
        body += part
        if len(body) > max_bytes:
            response.close()
            raise NoAgent(address, "its answer is too large for an agent's")
    return body


def _read(kind: type[D], address: str, answer: bytes) -> D:
    try:
        return kind.from_json(answer)
    except BadDocument as error:
        raise NoAgent(address, "its answer is not what the agents' protocol says") from error


def _about(receipt: Receipt, message_id: str, address: str) -> Receipt:
    if receipt.id != message_id:
        raise NoAgent(address, "its answer is about another message")
    return receipt
