"""How a body is taken past the parser: what must not happen to the event loop meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import aiohttp
import anyio
import pytest

from cctailscale.tailnet.straight import STRAIGHT_BYTES, WAIT_SECONDS, pieces

BODY = bytes(range(256)) * (4 * STRAIGHT_BYTES // 256)
REQUEST = bytes(16 << 20)  # more than the sockets between hold (tcp_wmem and SO_RCVBUF)
SOME = 4 << 20  # enough for the client to be let write again


@contextmanager
def early_answer(begun: threading.Event, seconds: float) -> Iterator[str]:
    """Begins its answer at the head of a request, reads some of the rest once that has `begun` to be read, and stops.

    After `seconds` it hangs up.
    """
    done = threading.Event()

    def play() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(seconds)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY[: len(BODY) // 2])
            begun.wait(seconds)
            read = 0
            while read < SOME:
                read += len(connection.recv(SOME))
            connection.sendall(BODY[len(BODY) // 2 :])
            done.wait(seconds)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(seconds)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        peer = threading.Thread(target=play)
        peer.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            done.set()
            peer.join()


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_peer_that_answers_and_does_not_read_the_request_holds_nothing_up() -> None:
    begun, taken = threading.Event(), b""
    with early_answer(begun, seconds=6) as url:
        async with aiohttp.ClientSession() as http, http.post(url, data=REQUEST) as response:
            with anyio.fail_after(4):
                async with aclosing(pieces(response, sent=False)) as parts:
                    async for part in parts:
                        taken += part
                        begun.set()
                        await anyio.sleep(0.01)
    assert taken == BODY


async def test_a_trickle_holds_a_cancelled_download_up_no_longer_than_a_moment() -> None:
    served = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        with contextlib.suppress(ConnectionError):
            while True:  # ten times as often as a thread waits
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(WAIT_SECONDS / 10)
        writer.close()
        served.set()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server, aiohttp.ClientSession() as http:
        port = server.sockets[0].getsockname()[1]
        async with http.get(f"http://127.0.0.1:{port}/") as response:
            began = anyio.current_time()
            with anyio.move_on_after(5 * WAIT_SECONDS):
                async with aclosing(pieces(response, sent=True)) as parts:
                    async for _ in parts:
                        pass
            assert anyio.current_time() - began < 5
        await asyncio.wait_for(served.wait(), 10)
