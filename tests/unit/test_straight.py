"""How a body is taken past the parser: what must not happen to the event loop meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import aiohttp
import anyio
import pytest

from cctailscale.tailnet.straight import STRAIGHT_BYTES, pieces

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
