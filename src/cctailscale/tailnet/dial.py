"""From a name to a connection: resolved by the tailnet's own DNS, pinned, and dialled through the node's guard.

The host's resolver is never asked and the host's network never used. What the guard (in Go) is given is an address;
it refuses what no peer and no accepted route owns, whatever a name, a URL or a redirect led to.
"""

import asyncio
import errno
import os
import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from weakref import WeakKeyDictionary

import aiohttp
import aiohttp.abc
import anyio
import anyio.to_thread
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rdtypes.ANY.CNAME  # this and the next two: dnspython would import them with the first answer
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import truststore
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
from python_socks.async_.asyncio import Proxy
from yarl import URL

from cctailscale.call import dialled
from cctailscale.errors import (
    BadName,
    CcTailscaleError,
    ConnectionRefused,
    LocalApiError,
    NodeClosed,
    NodeFailed,
    NoSuchName,
    NotOnTailnet,
    ResolverFailed,
    TimedOut,
    TlsError,
    Unreachable,
)
from cctailscale.tailnet.binding import Loopback
from cctailscale.tailnet.localapi import LocalAPI
from cctailscale.tailnet.peers import with_port

Address = IPv4Address | IPv6Address

# Without a bound of the caller's: as long as gVisor tries (its SYN retries end after about a minute).
CONNECT_SECONDS = 60.0
# A name has at most 253 characters (RFC 1035, 2.3.4), with a final dot 254.
MAX_NAME_CHARS = 254
# Answers of the guarded SOCKS server, see tailscale_loopback in tailscale.h.
SOCKS_NOT_ALLOWED, SOCKS_UNREACHABLE, SOCKS_REFUSED, SOCKS_TIMED_OUT = 2, 4, 5, 6
# Close with a reset: otherwise Go could not tell a connection that is given up from one that is half-closed.
LINGER_RESET: Final = struct.pack("ii", 1, 0)
# Connections of one fetching session; beyond it requests wait for a free one.
MAX_CONNECTIONS = 100
KEEP_ALIVE_SECONDS = 30.0

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(slots=True)
class Exchange:
    """Where an HTTP exchange is, for the texts of errors. `redirected`: a redirect led to `url`."""

    stage: str = "connecting"
    url: URL | None = None
    redirected: bool = False


# aiohttp would tell it by its traces, which take a twentieth of the time of a fetch.
_followed: ContextVar[Exchange | None] = ContextVar("followed", default=None)


@contextmanager
def following(exchange: Exchange) -> Iterator[None]:
    """Keeps `exchange` up to date with what the block does over a Dialer's `http`."""
    token = _followed.set(exchange)
    try:
        yield
    finally:
        _followed.reset(token)


def trusting(extra_ca: Path | None) -> ssl.SSLContext:
    """Trusts what the operating system trusts, and the certificates in `extra_ca`. Blocks. Raises TlsError."""
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if extra_ca is not None:
        try:
            context.load_verify_locations(extra_ca)
        except OSError as error:  # ssl.SSLError is one
            raise TlsError("any host", f"SSL_CERT_FILE ({extra_ca}) cannot be read: {error}") from error
    return context


class Dialer:
    """Connections to the tailnet through one node.

    `magic_dns_suffix` completes short names; it is known once the node runs. `http` is a session whose connections
    all go through here; it remembers no cookies. An async context manager: it owns that session.
    """

    def __init__(self, loopback: Loopback, api: LocalAPI, extra_ca: Path | None = None) -> None:
        self._loopback = loopback
        self._api = api
        self._extra_ca = extra_ca
        self._tls: ssl.SSLContext | None = None
        self.magic_dns_suffix = ""
        self.targets: WeakKeyDictionary[socket.socket, str] = WeakKeyDictionary()  # "ip:port" of each connection
        self.http = aiohttp.ClientSession(
            connector=_TailnetConnector(self),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),  # each exchange has a bound of its own
            trust_env=False,  # HTTPS_PROXY is for control and DERP
        )

    async def __aenter__(self) -> "Dialer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()

    async def tls(self) -> ssl.SSLContext:
        """Trusts what the operating system trusts, and the certificates in `extra_ca`. Raises TlsError."""
        if self._tls is None:
            self._tls = await anyio.to_thread.run_sync(trusting, self._extra_ca)
        return self._tls

    async def resolve(self, host: str) -> list[Address]:
        """The addresses of a name (short, full, with a final dot) or of an address, IPv4 first.

        Raises BadName, NoSuchName, ResolverFailed, LocalApiError, NodeClosed.
        """
        literal = literal_address(host)
        if literal is not None:
            return [literal]
        for full in self.full_names(host):
            found = await self._lookup(full)
            if found:
                return found
        raise NoSuchName(host)

    def full_names(self, host: str) -> list[str]:
        """What a name may stand for, in the order in which to ask: "web" is "web.tail1234.ts.net" first.

        Raises BadName.
        """
        name = _ascii_name(host)
        bare = name.rstrip(".")
        if "." in bare or name.endswith(".") or not self.magic_dns_suffix:
            return [bare]
        return [f"{bare}.{self.magic_dns_suffix}", bare]

    async def _lookup(self, name: str) -> list[Address]:
        answers: dict[str, list[Address]] = {"A": [], "AAAA": []}
        failures: list[CcTailscaleError] = []

        async def ask(kind: str) -> None:
            try:
                answers[kind] = await self._ask(name, kind)
            except (LocalApiError, NodeClosed, ResolverFailed) as error:  # a task group would wrap it
                failures.append(error)

        async with anyio.create_task_group() as both:
            both.start_soon(ask, "A")
            both.start_soon(ask, "AAAA")
        found = answers["A"] + answers["AAAA"]
        if failures and not found:  # some resolvers fail at AAAA alone
            raise failures[0]
        return found

    async def _ask(self, name: str, kind: str) -> list[Address]:
        try:
            answer = await self._api.dns_query(name, kind)
            message = dns.message.from_wire(answer.message)
        except LocalApiError as error:
            if error.status is None:
                raise
            return []  # no resolver for this name: to whoever asked it does not exist
        except dns.exception.DNSException:
            return []
        rcode = message.rcode()
        if answer.resolvers and rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            resolvers = [str(resolver.get("Addr", "")) for resolver in answer.resolvers]
            raise ResolverFailed(name, resolvers, dns.rcode.to_text(rcode))
        if rcode != dns.rcode.NOERROR:
            return []
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        return [
            ip_address(record.address) for records in message.answer if records.rdtype in kinds for record in records
        ]

    async def connect(self, address: Address, port: int, seconds: float = CONNECT_SECONDS) -> socket.socket:
        """A connected, non-blocking socket to `port` of `address` on the tailnet.

        Raises NotOnTailnet, ConnectionRefused, Unreachable, TimedOut, NodeClosed, NodeFailed.
        """
        proxy = Proxy(
            ProxyType.SOCKS5,
            self._loopback.host,
            self._loopback.port,
            username="tsnet",
            password=self._loopback.socks_password,
            rdns=True,  # never resolve here; the server refuses names
        )
        target = with_port(str(address), port)
        dialled(target)
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise NotOnTailnet(target, "an address with a zone belongs to one link")
        try:
            sock = await proxy.connect(str(address), port, timeout=seconds)
        except ProxyTimeoutError as error:
            raise TimedOut(target, seconds) from error
        except ProxyConnectionError as error:
            if error.errno == errno.ECONNREFUSED:
                raise NodeClosed from error
            raise NodeFailed(f"no connection to it can be opened ({os.strerror(error.errno or 0)})") from error
        except ProxyError as error:
            raise _refusal(error.error_code, target, seconds) from error
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self.targets[sock] = target
        return sock

    async def connect_first(self, addresses: list[Address], port: int) -> socket.socket:
        """As `connect`, to the first address that takes the connection; the error is the first address's."""
        first: CcTailscaleError | None = None
        for address in addresses:
            try:
                return await self.connect(address, port)
            except (NotOnTailnet, ConnectionRefused, Unreachable) as error:
                first = first or error
        raise first or NodeFailed("a name without an address was dialled")


def _refusal(code: int | None, target: str, seconds: float) -> CcTailscaleError:
    if code == SOCKS_NOT_ALLOWED:
        return NotOnTailnet(target)
    if code == SOCKS_UNREACHABLE:
        return Unreachable(target)
    if code == SOCKS_REFUSED:
        return ConnectionRefused(target)
    if code == SOCKS_TIMED_OUT:
        return TimedOut(target, seconds)
    return NodeFailed(f"its SOCKS server answered {code} for {target}")


def literal_address(host: str) -> Address | None:
    """The address that `host` is, in the usual forms only: decimal and octal ones are names, which nobody has.

    One with a zone (fe80::1%eth0) belongs to a link of this machine, and is no form of an address on the tailnet.
    """
    try:
        return None if "%" in host else ip_address(host.strip("[]"))
    except ValueError:
        return None


def _ascii_name(host: str) -> str:
    """`host` as DNS has it (IDNA for other scripts). Raises BadName for what cannot be a name."""
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise BadName(host) from error
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_NAME_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadName(host)
    return name


class _Resolver(aiohttp.abc.AbstractResolver):
    """The tailnet's DNS for aiohttp."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - aiohttp's signature
    ) -> list[aiohttp.abc.ResolveResult]:
        exchange = _followed.get() or Exchange()
        exchange.stage = "looking the name up"
        addresses = await self._dialer.resolve(host)
        exchange.stage = "connecting"
        return [
            {
                "hostname": host,
                "host": str(address),
                "port": port,
                "family": socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class _TailnetConnector(aiohttp.TCPConnector):
    """aiohttp's connections, made by a Dialer to the addresses that its resolver gave.

    aiohttp-socks would do it too, but verifies TLS against the address that was dialled and not against the name. What
    is overridden is the same method as there; tests/integration notice when aiohttp changes it.
    """

    def __init__(self, dialer: Dialer) -> None:
        super().__init__(
            resolver=_Resolver(dialer),
            use_dns_cache=False,  # a device's address must not outlive its name
            limit=MAX_CONNECTIONS,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )
        self._dialer = dialer
        self._targets: WeakKeyDictionary[asyncio.Protocol, str] = WeakKeyDictionary()

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> Connection:  # noqa: ANN401 - aiohttp's signature
        """As aiohttp's, which may give a connection that another call has dialled: this call uses it as well."""
        exchange = _followed.get() or Exchange()
        exchange.stage = "connecting"
        exchange.redirected |= exchange.url not in (None, req.url)  # the same one: aiohttp tries once more
        exchange.url = req.url
        connection = await super().connect(req, *args, **kwargs)
        exchange.stage = "waiting for the answer"
        if connection.protocol is not None:
            dialled(self._targets[connection.protocol])
        return connection

    async def _wrap_create_connection(
        self,
        *args: Any,  # noqa: ANN401 - aiohttp's signature
        addr_infos: list[Any],
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
        client_error: type[Exception] = aiohttp.ClientConnectorError,
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        addresses = [ip_address(info[4][0]) for info in addr_infos]
        sock = await self._dialer.connect_first(addresses, addr_infos[0][4][1])
        addr_infos.clear()  # all were tried: aiohttp is not to begin again
        try:
            transport, protocol = await self._wrap_existing_connection(
                *args, req=req, timeout=timeout, client_error=client_error, sock=sock, **kwargs
            )
        except BaseException:
            sock.close()
            raise
        self._targets[protocol] = self._dialer.targets[sock]
        return transport, protocol
