"""The node's LocalAPI over its loopback port: one method an endpoint, typed answers.

The port serves a handful of reading endpoints only (`tailscale_loopback` in tailscale.h has the list).
"""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from cctailscale.errors import LocalApiError
from cctailscale.tailnet.binding import Loopback
from cctailscale.tailnet.models import DNSAnswer, Lock, Notify, Status

M = TypeVar("M", bound=BaseModel)

# It answers from memory, within a millisecond; `dns-query` may ask a resolver on the tailnet, which Go gives 5 s.
ANSWER_SECONDS = 15.0
# 820 bytes a peer: enough for 80,000 peers.
MAX_ANSWER_BYTES = 64 << 20
# One line of the bus. A notice of peers can hold them all.
MAX_LINE_BYTES = 64 << 20

# ipn.NotifyWatchOpt: the state, login URL and health at once; no keys; no netmap, which at 10,000 peers is megabytes.
NOTIFY_INITIAL_STATE = 1 << 1
NOTIFY_NO_PRIVATE_KEYS = 1 << 4
NOTIFY_INITIAL_HEALTH = 1 << 7


class LocalAPI:
    """LocalAPI of one node. An async context manager: it owns its HTTP connections."""

    def __init__(self, loopback: Loopback) -> None:
        self._base = f"http://{loopback.host}:{loopback.port}/localapi/v0/"
        self._session = aiohttp.ClientSession(
            auth=aiohttp.BasicAuth("", loopback.api_password),
            headers={"Sec-Tailscale": "localapi"},
            connector=aiohttp.TCPConnector(limit=16),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            read_bufsize=1 << 16,
        )

    async def __aenter__(self) -> "LocalAPI":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def status(self, *, peers: bool = True) -> Status:
        """`GET status`: this node, and with `peers` all others (820 bytes each on the wire)."""
        return await self._get(Status, "status", {} if peers else {"peers": "false"})

    async def lock(self) -> Lock:
        """`GET tka/status`: whether tailnet lock is on and has this node's key signed."""
        return await self._get(Lock, "tka/status", {})

    async def dns_query(self, name: str, kind: str) -> DNSAnswer:
        """`GET dns-query`: `name` asked of the tailnet's DNS (MagicDNS, extra records, split-DNS routes)."""
        return DNSAnswer.from_json(await self._read("dns-query", {"name": name, "type": kind}))

    async def watch_ipn_bus(self) -> AsyncIterator[Notify]:
        """`GET watch-ipn-bus`: the state as it is now, then every change, until the node closes."""
        mask = NOTIFY_INITIAL_STATE | NOTIFY_NO_PRIVATE_KEYS | NOTIFY_INITIAL_HEALTH
        endless = aiohttp.ClientTimeout(total=None)
        async with self._session.get(
            self._base + "watch-ipn-bus", params={"mask": str(mask)}, timeout=endless, read_bufsize=MAX_LINE_BYTES
        ) as response:
            await self._check(response, "watch-ipn-bus")
            async for line in response.content:
                yield self._parse(Notify, "watch-ipn-bus", line)

    async def _get(self, model: type[M], endpoint: str, query: dict[str, str]) -> M:
        return self._parse(model, endpoint, await self._read(endpoint, query))

    async def _read(self, endpoint: str, query: dict[str, str]) -> bytes:
        try:
            async with self._session.get(self._base + endpoint, params=query) as response:
                await self._check(response, endpoint)
                return await self._body(response, endpoint)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise LocalApiError(endpoint, None, str(error) or type(error).__name__) from error

    @staticmethod
    async def _body(response: aiohttp.ClientResponse, endpoint: str) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise LocalApiError(endpoint, response.status, "the answer is too large")
            parts.append(part)
        return b"".join(parts)

    @staticmethod
    async def _check(response: aiohttp.ClientResponse, endpoint: str) -> None:
        if response.status != 200:
            raise LocalApiError(endpoint, response.status, (await response.content.read(1000)).decode(errors="replace"))

    @staticmethod
    def _parse(model: type[M], endpoint: str, answer: bytes) -> M:
        try:
            return model.model_validate_json(answer)
        except ValidationError as error:
            raise LocalApiError(
                endpoint, 200, f"an answer of an unknown form ({error.error_count()} faults)"
            ) from error
