"""The child of `bench.driver`: a process with a node and no MCP, which moves what its parent asks for.

It reads commands from stdin, one JSON object a line, {"do": "http", "raw" or "upload", "bytes": N}, and answers
each with {"seconds": S}. The first line that it writes is {"joined": true}. It logs out at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time

from bench import socks
from cctailscale.config import load_settings
from cctailscale.redact import Redactor
from cctailscale.tailnet.attempt import unheard
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.fetch import READ_BYTES
from cctailscale.tailnet.node import Node

PEER = "web"
PORT = 80
LOGOUT_SECONDS = 5.0


async def serve() -> None:
    loaded = load_settings(os.environ)
    async with Node.opened(loaded, Redactor(*loaded.settings.secrets())) as node:
        device = await node.device(unheard)
        print(json.dumps({"joined": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            move = {"http": _over_http, "raw": _over_a_socket, "upload": _up_a_socket}[command["do"]]
            began = time.perf_counter()
            moved = await move(device, command["bytes"])
            seconds = time.perf_counter() - began
            if moved != command["bytes"]:
                raise RuntimeError(f"{moved} bytes came, not {command['bytes']}")
            print(json.dumps({"seconds": seconds}), flush=True)
        await node.stop(LOGOUT_SECONDS)


async def _over_http(device: Device, count: int) -> int:
    """As tailscale_fetch reads it, without its limit."""
    received = 0
    url = f"http://{PEER}/bytes?n={count}"
    async with device.dialer.http.get(url, read_bufsize=READ_BYTES, ssl=await device.dialer.tls()) as response:
        response.raise_for_status()
        async for part in response.content.iter_any():
            received += len(part)
    return received


async def _over_a_socket(device: Device, count: int) -> int:
    """Without aiohttp: what the node itself can do."""
    with await _connected(device) as sock:
        return await asyncio.to_thread(socks.get, sock, PEER, f"/bytes?n={count}")


async def _up_a_socket(device: Device, count: int) -> int:
    with await _connected(device) as sock:
        await asyncio.to_thread(socks.post, sock, PEER, "/upload", count)
    return count


async def _connected(device: Device) -> socket.socket:
    address = (await device.dialer.resolve(PEER))[0]
    sock = await device.dialer.connect(address, PORT)
    sock.setblocking(True)
    return sock


if __name__ == "__main__":
    asyncio.run(serve())
