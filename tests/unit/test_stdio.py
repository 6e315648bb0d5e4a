"""The two ends of the wire, with real pipes."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.stdio import MAX_LINE_BYTES, NO_ID, TOO_LONG, Lines, Wire, _has_no_sound_id, _of_whole_characters

BOUND_SECONDS = 10
OVER = TOO_LONG.decode()


class Stdin:
    """`lines` of one end of a pipe; the other end is written with `say` and closed with `end`."""

    def __init__(self, lines: Lines, writer: asyncio.StreamWriter, ended: anyio.Event) -> None:
        self.lines = lines
        self.ended = ended
        self._writer = writer

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()

    def end(self) -> None:
        self._writer.close()

    async def heard(self) -> list[str]:
        return [line async for line in self.lines]


async def end_to_write(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(fd, "wb", 0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def end_to_read(fd: int, limit: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader(limit=limit)
    protocol = asyncio.StreamReaderProtocol(reader)
    pipe = os.fdopen(fd, "rb", 0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    return reader, transport


@contextlib.asynccontextmanager
async def opened(limit: int = MAX_LINE_BYTES) -> AsyncIterator[Stdin]:
    readable, writable = os.pipe()
    writer = await end_to_write(writable)
    reader, transport = await end_to_read(readable, limit)
    ended = anyio.Event()
    async with asyncio.timeout(BOUND_SECONDS):
        yield Stdin(Lines(reader, ended), writer, ended)
    writer.close()
    transport.close()
    await asyncio.sleep(0)  # lets the transports close their pipes


async def test_each_line_comes_as_it_was_sent() -> None:
    async with opened() as stdin:
        await stdin.say(b'{"a":1}\n{"b":', b'"\xc3\xa4"}\n')
        stdin.end()
        assert await stdin.heard() == ['{"a":1}\n', '{"b":"ä"}\n']


async def test_the_end_of_input_ends_the_lines_and_is_told() -> None:
    async with opened() as stdin:
        assert not stdin.ended.is_set()
        stdin.end()
        assert await stdin.heard() == []
        assert stdin.ended.is_set()


async def test_half_a_line_at_the_end_is_a_line() -> None:
    async with opened() as stdin:
        await stdin.say(b"whole\nhalf")
        stdin.end()
        assert await stdin.heard() == ["whole\n", "half"]


async def test_blank_lines_are_passed_over() -> None:
    async with opened() as stdin:
        await stdin.say(b"\n  \r\n\na\n\n")
        stdin.end()
        assert await stdin.heard() == ["a\n"]


async def test_bytes_that_are_no_utf8_do_not_end_the_conversation() -> None:
    async with opened() as stdin:
        await stdin.say(b"\xff\xfe\x80\nnext\n")
        stdin.end()
        assert await stdin.heard() == ["\ufffd\ufffd\ufffd\n", "next\n"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "method", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(message=JSON, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_a_request_is_taken_off_the_wire_only_if_its_own_id_is_none(
    message: Any, indent: int | None, ascii_only: bool
) -> None:
    line = json.dumps(message, indent=indent, ensure_ascii=ascii_only)
    odd = (
        isinstance(message, dict)
        and {"id", "method"} <= message.keys()
        and (isinstance(message["id"], bool) or not isinstance(message["id"], int | str))
    )
    assert _has_no_sound_id(line) is odd


async def test_a_request_without_a_sound_id_is_given_to_the_parser_as_no_message() -> None:
    async with opened() as stdin:
        await stdin.say(b'{"id":null,"method":"x"}\n{"id":7,"method":"x"}\n')
        stdin.end()
        assert await stdin.heard() == [NO_ID, '{"id":7,"method":"x"}\n']


@given(st.text(alphabet=st.sampled_from('\ud83d\ude00\ud800\udfff\\"ud8a\n😀é')))
def test_half_a_character_becomes_a_sign_for_it_and_all_else_stays(text: str) -> None:
    line = json.dumps({"text": text})
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert json.loads(_of_whole_characters(line)) == {"text": whole}


@pytest.mark.parametrize("excess", [1, 2, 100, 4096, 100_000, 5_000_000])
async def test_a_line_over_the_limit_costs_itself_and_not_the_next(excess: int) -> None:
    limit = 1 << 20
    async with opened(limit) as stdin, anyio.create_task_group() as tasks:
        tasks.start_soon(stdin.say, b"a" * (limit + excess) + b"\nnext\nlast\n")
        heard = [await anext(stdin.lines) for _ in range(3)]
        assert heard == [OVER, "next\n", "last\n"]


async def test_a_line_of_exactly_the_limit_is_read() -> None:
    limit = 1 << 20
    async with opened(limit) as stdin, anyio.create_task_group() as tasks:
        tasks.start_soon(stdin.say, b"a" * limit + b"\nnext\n")
        assert await anext(stdin.lines) == "a" * limit + "\n"
        assert await anext(stdin.lines) == "next\n"


async def test_a_line_over_the_limit_that_the_end_cuts_off_is_told_once() -> None:
    async with opened(1000) as stdin:
        await stdin.say(b"a" * 3000)
        stdin.end()
        assert await stdin.heard() == [OVER]


async def test_a_reader_that_does_not_read_holds_the_writer_up_and_loses_nothing() -> None:
    readable, writable = os.pipe()
    writer = await end_to_write(writable)
    wire = Wire(writer)
    text = "x" * (1 << 20) + "\n"  # sixteen times what a pipe holds
    flushed = asyncio.create_task(write(wire, text))
    done, _ = await asyncio.wait([flushed], timeout=0.1)
    assert not done
    reader, transport = await end_to_read(readable, limit=len(text))
    async with asyncio.timeout(BOUND_SECONDS):
        assert await reader.readline() == text.encode()
        await flushed
    writer.close()
    transport.close()
    await asyncio.sleep(0)


async def write(wire: Wire, text: str) -> None:
    await wire.write(text)
    await wire.flush()


async def test_a_reader_that_has_gone_is_no_error() -> None:
    readable, writable = os.pipe()
    writer = await end_to_write(writable)
    os.close(readable)
    async with asyncio.timeout(BOUND_SECONDS):
        for _ in range(5):
            await write(Wire(writer), "x" * 100_000)
    writer.close()
    await asyncio.sleep(0)


# What `wire` does to descriptors 0, 1 and 2 can only be seen in a process of its own.
ECHO = """
import os, sys, anyio
from cctailscale import stdio

async def main():
    ended = anyio.Event()
    async with stdio.wire(ended) as (lines, out):
        print("a stray print", flush=True)
        os.write(1, b"a stray write\\n")
        assert os.read(0, 10) == b""
        async for line in lines:
            await out.write("heard " + line)
            await out.flush()
        assert ended.is_set()

anyio.run(main)
"""


def test_nobody_else_can_write_to_the_wire_or_read_from_it() -> None:
    run = subprocess.run([sys.executable, "-c", ECHO], input=b"one\ntwo\n", capture_output=True, timeout=30)
    assert run.returncode == 0, run.stderr.decode()
    assert run.stdout == b"heard one\nheard two\n"
    assert run.stderr == b"a stray print\na stray write\n"


def test_files_do_in_place_of_pipes(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"one\ntwo\n")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as sink:
        run = subprocess.run(
            [sys.executable, "-c", ECHO], stdin=source, stdout=sink, stderr=subprocess.PIPE, timeout=30
        )
    assert run.returncode == 0, run.stderr.decode()
    assert (tmp_path / "out").read_bytes() == b"heard one\nheard two\n"


def test_one_socket_for_both_ways_does_as_well_and_loses_nothing_when_it_is_full() -> None:
    """As of socat, inetd and systemd."""
    line = b"x" * (4 << 20) + b"\n"  # more than the socket holds
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    with (
        ours,
        subprocess.Popen([sys.executable, "-c", ECHO], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as run,
    ):
        theirs.close()
        with ours.makefile("rwb") as client:
            client.write(line)
            client.flush()
            assert client.readline() == b"heard " + line
            ours.shutdown(socket.SHUT_WR)
        _, errors = run.communicate(timeout=30)
    assert run.returncode == 0, errors.decode()


def test_dev_null_is_an_end_of_input() -> None:
    run = subprocess.run([sys.executable, "-c", ECHO], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert (run.returncode, run.stdout) == (0, b"")
