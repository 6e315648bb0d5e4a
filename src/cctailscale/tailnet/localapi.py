"""The node's LocalAPI over its loopback port: one method an endpoint, typed answers.

The port serves a handful of endpoints only, which read and ping (`tailscale_loopback` in tailscale.h has the list).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import aiohttp
import anyio
from pydantic import BaseModel, ValidationError

from cctailscale.errors import LocalApiError, NodeClosed
from cctailscale.tailnet.binding import Loopback
from cctailscale.tailnet.models import DNSAnswer, FilterRule, FirstNotice, Lock, Notify, PingReply, Status

M = TypeVar("M", bound=BaseModel)

# It answers from memory, within a millisecond; `dns-query` may ask a resolver on the tailnet, which Go gives 5 s.
ANSWER_SECONDS = 15.0
# A status with all peers serves whoever asks within that time: at 2,000 peers it costs 60 ms.
SHARED_STATUS_SECONDS = 1.0
# 820 bytes a peer: enough for 80,000 peers.
MAX_ANSWER_BYTES = 64 << 20
# One line of the bus. A notice of peers can hold them all.
MAX_LINE_BYTES = 64 << 20

# ipn.NotifyWatchOpt: the state, login URL and health at once; no keys; no netmap, which at 10,000 peers is megabytes.
NOTIFY_INITIAL_STATE = 1 << 1
NOTIFY_INITIAL_NETMAP = 1 << 3
NOTIFY_NO_PRIVATE_KEYS = 1 << 4
NOTIFY_INITIAL_HEALTH = 1 << 7


class LocalAPI:
    """LocalAPI of one node. An async context manager: it owns its HTTP connections."""

    def __init__(self, loopback: Loopback) -> None:
        self._base = f"http://{loopback.host}:{loopback.port}/localapi/v0/"
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": aiohttp.encode_basic_auth("", loopback.api_password),
                "Sec-Tailscale": "localapi",
            },
            connector=aiohttp.TCPConnector(limit=16),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            read_bufsize=1 << 16,
        )
        self._sharing = anyio.Lock(fast_acquire=True)
        self._shared: dict[bool, Status] = {}

    async def __aenter__(self) -> "LocalAPI":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def status(self, *, peers: bool = True) -> Status:
        """`GET status`: this node, and with `peers` all others (820 bytes each on the wire)."""
        return await self._get(Status, "status", {} if peers else {"peers": "false"})

    async def shared_status(self, *, peers: bool = True) -> Status:
        """As `status`, at most a second old, and one question for all who ask at the same time."""
        async with self._sharing:
            if peers not in self._shared:
                self._shared[peers] = await self.status(peers=peers)
                # Not kept for longer: with many peers it is megabytes.
                asyncio.get_running_loop().call_later(SHARED_STATUS_SECONDS, self._shared.pop, peers, None)
            return self._shared[peers]

    async def ping(self, address: str, kind: str, seconds: float) -> PingReply | None:
        """`POST ping`: one ping of `kind` ("disco", "TSMP", "ICMP", "peerapi"); None if no reply came in time."""
        query = {"ip": address, "type": kind}
        try:
            return self._parse(PingReply, "ping", await self._read("ping", query, method="POST", seconds=seconds))
        except LocalApiError as error:
            if isinstance(error.__cause__, TimeoutError):
                return None
            raise

    async def filter_rules(self) -> list[FilterRule]:
        """What the policy lets others send to this node, from the network map that `watch-ipn-bus` begins with.

        The map has all peers (1 KB each). There is a smaller endpoint for the rules, `debug-packet-filter-rules`, which
        misses a change of the rules alone (Tailscale 1.102).
        """
        endpoint, query = "watch-ipn-bus", {"mask": str(NOTIFY_INITIAL_NETMAP)}
        with self._asking(endpoint):
            async with self._session.get(self._base + endpoint, params=query, read_bufsize=MAX_LINE_BYTES) as response:
                await self._check(response, endpoint)
                line = await response.content.readline()
        net_map = self._parse(FirstNotice, endpoint, line).net_map
        return net_map.packet_filter_rules if net_map else []

    async def certificate(self, domain: str, seconds: float, *, with_key: bool = False) -> bytes:
        """`GET cert/DOMAIN`: the chain for this node's own name as PEM, with the private key before it if asked.

        Unless the node has one that is good, it gets one from the certificate authority, which takes some seconds.
        """
        query = {"type": "pair" if with_key else "cert"}
        return await self._read(f"cert/{domain}", query, seconds=seconds)

    async def lock(self) -> Lock:
        """`GET tka/status`: whether tailnet lock is on and has this node's key signed."""
        return await self._get(Lock, "tka/status", {})

    async def dns_query(self, name: str, kind: str) -> DNSAnswer:
        """`GET dns-query`: `name` asked of the tailnet's DNS (MagicDNS, extra records, split-DNS routes)."""
        answer = await self._read("dns-query", {"name": name, "type": kind})
        try:
            return DNSAnswer.from_json(answer)
        except ValueError as error:  # no JSON, of another form, or no base64
            raise LocalApiError("dns-query", 200, "an answer of an unknown form") from error

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

    async def _read(
        self, endpoint: str, query: dict[str, str], *, method: str = "GET", seconds: float = ANSWER_SECONDS
    ) -> bytes:
        bound = aiohttp.ClientTimeout(total=seconds)
        with self._asking(endpoint):
            async with self._session.request(method, self._base + endpoint, params=query, timeout=bound) as response:
                await self._check(response, endpoint)
                return await self._body(response, endpoint)

    @contextmanager
    def _asking(self, endpoint: str) -> Iterator[None]:
        """Raises LocalApiError for what aiohttp raises; NodeClosed if the device was closed before the question."""
        try:
            yield
        except (aiohttp.ClientError, TimeoutError) as error:
            raise LocalApiError(endpoint, None, str(error) or type(error).__name__) from error
        except RuntimeError as error:  # aiohttp's, for a session that is closed
            if not self._session.closed:
                raise
            raise NodeClosed from error

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
