"""HTTPS_PROXY serves control and DERP; a fetch never goes by it, and the node's log goes nowhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.agent import Agent
from tests.localnet import Localnet

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
# Reserved (RFC 2606): no such host exists, so that only the proxy can have been asked for it.
CONTROL = "control.example.invalid"


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy that refuses everything; its URL, and the first line of each request that it got."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            asked.append((await reader.readline()).decode().strip())
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_a_fetch_ignores_the_proxy_and_no_log_is_uploaded(tailnet: Localnet, environ: dict[str, str]) -> None:
    async with proxy() as (url, asked), Agent.started(environ | dict.fromkeys(PROXY_VARIABLES, url)) as agent:
        answer = await agent.succeed("tailscale_fetch", url="http://web/")
        assert f"Hello from web.{tailnet.magic_dns_suffix}" in answer.text
        assert await agent.stop() == 0
        assert asked == []


async def test_control_is_reached_through_the_proxy(environ: dict[str, str]) -> None:
    environ |= {"TS_CONTROL_URL": f"https://{CONTROL}", "TS_JOIN_TIMEOUT": "5"}
    async with proxy() as (url, asked), Agent.started(environ | {"HTTPS_PROXY": url}) as agent:
        text = await agent.fail("tailscale_fetch", url="http://web/")
        assert f"The control server https://{CONTROL} gave no answer" in text
        assert asked
        assert {line.split()[1] for line in asked} <= {f"{CONTROL}:443", f"{CONTROL}:80", f"http://{CONTROL}/key"}
