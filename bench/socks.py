"""A request through a SOCKS port with as little around it as can be: what the tool's way is compared to."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

CONNECT_SECONDS = 30.0
READ_BYTES = 1 << 20
WRITE_BYTES = 256 << 10
HTTP = 80


def connect(helper: Mapping[str, Any], host: str, port: int) -> socket.socket:
    """A blocking connection through the helper's SOCKS5 port (RFC 1928, 1929), which resolves the name."""
    proxy_host, _, proxy_port = helper["socks"].rpartition(":")
    sock = socket.create_connection((proxy_host, int(proxy_port)), CONNECT_SECONDS)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        user, password, name = (text.encode() for text in (helper["user"], helper["password"], host))
        sock.sendall(b"\x05\x01\x02")
        _expect(_exactly(sock, 2), b"\x05\x02")
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        _expect(_exactly(sock, 2), b"\x01\x00")
        sock.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
        reply = _exactly(sock, 4)
        _expect(reply[:2], b"\x05\x00")
        rest = {1: 4, 4: 16}.get(reply[3])
        _exactly(sock, (rest if rest is not None else _exactly(sock, 1)[0]) + 2)
    except BaseException:
        sock.close()
        raise
    return sock


def download(helper: Mapping[str, Any], host: str, count: int) -> float:
    """Seconds for `count` bytes of a peer's page through the helper, connection included."""
    began = time.perf_counter()
    with connect(helper, host, HTTP) as sock:
        received = get(sock, host, f"/bytes?n={count}")
    if received != count:
        raise RuntimeError(f"{received} bytes came, not {count}")
    return time.perf_counter() - began


def upload(helper: Mapping[str, Any], host: str, count: int) -> float:
    """Seconds for `count` bytes to a peer through the helper, connection and the peer's receipt included."""
    began = time.perf_counter()
    with connect(helper, host, HTTP) as sock:
        post(sock, host, "/upload", count)
    return time.perf_counter() - began


def post(sock: socket.socket, host: str, path: str, count: int) -> None:
    """One POST of `count` zeros on a connection that stays."""
    sock.sendall(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {count}\r\n\r\n".encode())
    piece = bytes(WRITE_BYTES)
    for begin in range(0, count, WRITE_BYTES):
        sock.sendall(piece[: count - begin])
    _answer(sock)


def get(sock: socket.socket, host: str, path: str) -> int:
    """One GET on a connection that stays; the number of bytes of its body, which is read and dropped."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return _answer(sock)


def _answer(sock: socket.socket) -> int:
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(65536)
        if not part:
            raise ConnectionError("the connection ended within the headers")
        head += part
    lines, _, begun = head.partition(b"\r\n\r\n")
    if not lines.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"an unexpected answer: {lines[:100]!r}")
    fields = dict(line.lower().split(b": ", 1) for line in lines.split(b"\r\n")[1:])
    length = int(fields[b"content-length"])
    left = length - len(begun)
    buffer = bytearray(min(READ_BYTES, max(left, 1)))
    while left > 0:
        count = sock.recv_into(buffer, min(left, len(buffer)))
        if not count:
            raise ConnectionError("the connection ended within the body")
        left -= count
    return length


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionError("the SOCKS server hung up")
        data += part
    return data


def _expect(got: bytes, wanted: bytes) -> None:
    if got != wanted:
        raise ConnectionError(f"the SOCKS server answered {got!r} and not {wanted!r}")
