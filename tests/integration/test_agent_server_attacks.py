"""What a peer that means harm can send to an agent's server, though it may talk to it; over a real tailnet."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from cctailscale.agents import connection
from cctailscale.documents import MAX_DOCUMENT_BYTES
from cctailscale.tailnet import listener as listening
from tests.callers import Answerer, Line, Stage, answering, line, message, posted, request, until_known

SOON = 2.0


@pytest.fixture(scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage.opened(tmp_path_factory.mktemp("devices")) as stage:
        yield stage


@pytest.fixture
async def agent(stage: Stage, tmp_path: Path) -> AsyncIterator[Answerer]:
    async with answering(await stage.device("agent"), tmp_path) as agent:
        yield agent


@pytest.fixture
async def wire(stage: Stage, agent: Answerer) -> AsyncIterator[Line]:
    """A connection of a peer that may send messages."""
    async with line(await stage.device("friend"), agent) as wire:
        yield wire


# ---- what is no sound request ----------------------------------------------------------------------------------------

BODY = b'{"id":"a","subject":"s","body":"b","sent":"2026-01-01T00:00:00Z"}'
LENGTH = f"Content-Length: {len(BODY)}"
JSON = "Content-Type: application/json"
CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"

SMUGGLED = {
    "both lengths": (JSON, LENGTH, "Transfer-Encoding: chunked"),
    "both lengths, the other way round": (JSON, "Transfer-Encoding: chunked", LENGTH),
    "two lengths": (JSON, LENGTH, "Content-Length: 5"),
    "the same length twice": (JSON, LENGTH, LENGTH),
    "a list of lengths": (JSON, "Content-Length: 5, 5"),
    "a length with a sign": (JSON, f"Content-Length: +{len(BODY)}"),
    "a hexadecimal length": (JSON, f"Content-Length: {len(BODY):#x}"),
    "a negative length": (JSON, "Content-Length: -1"),
    "an unknown coding": (JSON, "Transfer-Encoding: xchunked"),
    "two codings": (JSON, "Transfer-Encoding: chunked, identity"),
    "a coding twice": (JSON, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "a space before the colon": (JSON, LENGTH.replace(":", " :")),
    "a folded header": (JSON, "X-A: b\r\n folded", LENGTH),
    "a NUL in a header": (JSON, "X-A: b\0c", LENGTH),
    "a lone line feed": (JSON, "X-A: b\nX-B: c", LENGTH),
    "a lone carriage return": (JSON, "X-A: b\rX-B: c", LENGTH),
    "two hosts": (JSON, "Host: other", LENGTH),
}


@pytest.mark.parametrize("headers", SMUGGLED.values(), ids=SMUGGLED.keys())
@pytest.mark.parametrize("body", [BODY, CHUNKED], ids=["plain", "chunked"])
async def test_a_request_that_two_servers_could_read_differently_is_refused_and_its_connection_ends(
    agent: Answerer, wire: Line, headers: tuple[str, ...], body: bytes
) -> None:
    head = "\r\n".join(("POST /v1/messages HTTP/1.1", f"Host: {agent.name}", *headers, "", ""))
    answer = await wire.ask(head.encode("latin-1") + body + posted(agent, message("smuggled")))
    assert (answer.status, answer.error) == (400, "bad_request")
    assert "Python" not in answer.headers["server"]
    assert await wire.ended() == b""
    assert await agent.stored() == []


@pytest.mark.parametrize("coding", ["chunked", "gzip, chunked", "Chunked"])
async def test_a_body_without_a_length_is_refused(agent: Answerer, wire: Line, coding: str) -> None:
    head = f"POST /v1/messages HTTP/1.1\r\nHost: {agent.name}\r\n{JSON}\r\nTransfer-Encoding: {coding}\r\n\r\n"
    answer = await wire.ask(head.encode(), CHUNKED)
    assert (answer.status, answer.error) == (411, "length_required")
    assert await agent.stored() == []


@pytest.mark.parametrize(
    "opening",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\x05\x01\x00", id="SOCKS"),
        pytest.param(b"GET /v1/agent HTTP/9.9\r\nHost: agent\r\n\r\n", id="an unknown HTTP"),
        pytest.param(b"GET /v1/agent HTTP/1.1\r\n\r\n", id="without a host"),
        pytest.param(b"G\0T /v1/agent HTTP/1.1\r\nHost: agent\r\n\r\n", id="a NUL in the method"),
        pytest.param(b"GET /v1/a gent HTTP/1.1\r\nHost: agent\r\n\r\n", id="a space in the path"),
    ],
)
async def test_what_is_no_http_is_told_so_and_not_quoted(agent: Answerer, wire: Line, opening: bytes) -> None:
    answer = await wire.ask(opening)
    assert (answer.status, answer.error) == (400, "bad_request")
    assert answer.json["message"] == "That is not sound HTTP/1.1, or passes a limit of it."
    assert await wire.ended() == b""


# ---- what is not for us ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost", "127.0.0.1", "[::1]:9321", "100.64.0.99", "agent.evil.example", "friend",
        "agent.tail1234.ts.net.evil.example", "xagent.tail1234.ts.net", "agent@evil.example", "agent:evil",
        "agent:9321:1", "agent/", "http://agent", "[100.64.0.1", ".", "agent..tail1234.ts.net", "-agent", "agent\xa0",
    ],
)  # fmt: skip
async def test_a_request_under_another_name_is_not_answered(agent: Answerer, wire: Line, host: str) -> None:
    answer = await wire.get("/v1/agent", Host=host)
    assert (answer.status, answer.error) == (421, "wrong_host")
    assert (await wire.get("/v1/agent")).status == 200


async def test_each_form_of_this_node_s_names_and_addresses_is_answered(agent: Answerer, wire: Line) -> None:
    ipv4, ipv6 = agent.addresses
    names = ("agent", "AGENT", "agent.", agent.name, f"{agent.name.upper()}.", f"{agent.name}:9321")
    for host in (*names, ipv4, f"{ipv4}:80", f"[{ipv6}]", f"[{ipv6.upper()}]:9321"):
        assert (await wire.get("/v1/agent", Host=host)).status == 200, host


@pytest.mark.parametrize(
    "header",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://agent:9321"},
        {"Sec_Fetch_Site": "none"},
    ],
    ids=str,
)
async def test_a_browser_s_page_is_turned_away(agent: Answerer, wire: Line, header: dict[str, str]) -> None:
    for answer in (await wire.get("/v1/agent", **header), await wire.post(BODY, **header)):
        assert (answer.status, answer.error) == (403, "cross_origin")
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert await agent.stored() == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"}, {"Content_Type": ""}, {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "multipart/form-data; boundary=x"}, {"Content_Type": "application/json; charset=utf-16"},
        {"Content_Type": "application/json+x"}, {"Content_Encoding": "gzip"}, {"Content_Type": "\xff; charset=\xff"},
    ],
    ids=str,
)  # fmt: skip
async def test_a_body_of_another_type_is_refused(agent: Answerer, wire: Line, headers: dict[str, str]) -> None:
    body = gzip.compress(BODY) if "Content_Encoding" in headers else BODY
    answer = await wire.post(body, **headers)
    assert (answer.status, answer.error) == (415, "wrong_type")
    assert (await wire.post(BODY, Content_Type="Application/JSON; charset=UTF-8")).status == 202
    assert len(await agent.stored()) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1", "/v1/", "/v1/agent/", "//v1/agent", "/v1//agent", "/v1/../v1/agent", "/%76%31/agent", "/v1/Agent",
        "http://agent/v1/agent", "/v1/messages", "/v1/messages/", "/v1/messages/a/b", "/v1/messages/" + "a" * 65,
        "/v1/agent%00",
    ],
)  # fmt: skip
async def test_a_path_that_is_none_is_refused_however_it_is_written(agent: Answerer, wire: Line, path: str) -> None:
    answer = await wire.get(path)
    assert (answer.status, answer.error) == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "POST", "CONNECT"])
async def test_a_method_that_is_none_is_refused(agent: Answerer, wire: Line, method: str) -> None:
    path = f"{agent.name}:80" if method == "CONNECT" else "/v1/agent"
    answer = await wire.ask(request(method, path, b"", {"Host": agent.name}))
    assert (answer.status, answer.error) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v2/agent", "/v0/agent", "/v2", "/v999999999/messages"])
async def test_an_unknown_version_is_told_what_is_spoken(agent: Answerer, wire: Line, path: str) -> None:
    answer = await wire.get(path)
    assert (answer.status, answer.error) == (404, "unknown_version")
    assert answer.json["spoken"] == [1]


async def test_several_requests_at_once_are_answered_in_their_order(agent: Answerer, wire: Line) -> None:
    one, two = message("one"), message("two")
    wire.send(posted(agent, one) + posted(agent, two) + request("GET", "/v1/agent", None, {"Host": agent.name}))
    answers = [await wire.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [202, 202, 200]
    assert [answer.json.get("id") for answer in answers] == [one.id, two.id, None]


# ---- what is too much ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 60_000, id="deep lists"),
        pytest.param(b'{"a":' * 10_000, id="deep objects"),
        pytest.param(BODY.replace(b'"b"', b"[" * 500 + b"]" * 500), id="a deep field"),
        pytest.param(BODY.replace(b'"b"', b'"\xff\xfe"'), id="no UTF-8"),
        pytest.param(BODY.replace(b'"b"', b'"\xed\xa0\x80"'), id="a surrogate in UTF-8"),
        pytest.param(BODY.replace(b'"b"', b'"\\ud800"'), id="half a pair"),
        pytest.param(BODY.replace(b'"b"', b"NaN"), id="not a number"),
        pytest.param(BODY.replace(b'"b"', b"1" * 5_000), id="a number of 5,000 digits"),
        pytest.param(BODY.replace(b'"s"', b'"s\\n"'), id="a subject of two lines"),
        pytest.param(BODY + BODY, id="two documents"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xef\xbb\xbf" + BODY, id="a byte order mark"),
    ],
)
async def test_a_document_that_is_not_sound_is_refused_and_not_quoted(agent: Answerer, wire: Line, body: bytes) -> None:
    began = time.monotonic()
    answer = await wire.post(body)
    assert time.monotonic() - began < SOON
    assert (answer.status, answer.error) == (400, "bad_document")
    assert await agent.stored() == []
    assert (await wire.post(BODY)).status == 202  # the connection goes on


async def test_a_large_body_is_refused_before_it_is_sent(agent: Answerer, wire: Line) -> None:
    wire.send(request("POST", "/v1/messages", None, {"Host": agent.name, "Content-Length": "10000000"}))
    answer = await wire.answer()
    assert (answer.status, answer.error) == (413, "too_large")
    assert await wire.ended() == b""


async def test_one_byte_too_many_is_refused_and_the_largest_message_is_not(agent: Answerer, wire: Line) -> None:
    room = MAX_DOCUMENT_BYTES - len(message("").to_json())
    assert (await wire.post(message("x" * room))).status == 202
    answer = await wire.post(message("x" * room).to_json() + b" ")
    assert (answer.status, answer.error) == (413, "too_large")


async def test_a_body_of_10_mb_and_one_without_end_are_refused_while_they_are_sent(
    agent: Answerer, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.3)
    for size in (10_000_000, 10**15):
        async with line(await stage.device("friend"), agent) as wire:
            wire.send(request("POST", "/v1/messages", None, {"Host": agent.name, "Content-Length": str(size)}))
            sending = asyncio.ensure_future(_sent(wire, size))
            answer = await wire.answer()
            assert (answer.status, answer.error) == (413, "too_large")
            with anyio.fail_after(SOON):
                await sending
    assert await agent.stored() == []


async def _sent(wire: Line, size: int) -> None:
    """Sends a body until it is there in full, or nobody takes it any more."""
    part = b"x" * 65_536
    try:
        for _ in range(0, size, len(part)):
            wire.send(part)
            await wire.writer.drain()
    except ConnectionError:
        pass


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X-A: b\r\n" * 100_000, id="100,000 headers"),
        pytest.param(b"X-A: b\r\n" * 40, id="40 headers"),
        pytest.param(b"X-A: " + b"b" * 1_000_000, id="a header of 1 MB"),
        pytest.param(b"b" * 1_000_000, id="a header's name of 1 MB"),
    ],
)
async def test_too_many_or_too_large_headers_are_refused_at_once(agent: Answerer, wire: Line, head: bytes) -> None:
    began = time.monotonic()
    wire.send(f"GET /v1/agent HTTP/1.1\r\nHost: {agent.name}\r\n".encode() + head + b"\r\n\r\n")
    answer = await wire.ended()
    assert time.monotonic() - began < SOON
    # The end of the connection may overtake the answer while there is more to send.
    assert answer.startswith(b"HTTP/1.0 400 ") or (answer == b"" and len(head) > 100_000)


async def test_a_target_without_end_is_refused(agent: Answerer, wire: Line) -> None:
    wire.send(b"GET /" + b"a" * 1_000_000)
    assert (await wire.ended())[:13] in (b"HTTP/1.0 400 ", b"")


async def test_more_connections_than_an_address_may_have_are_closed_at_once_and_others_get_in(
    agent: Answerer, stage: Stage
) -> None:
    friend, pal = await stage.device("friend"), await stage.device("pal")
    await until_known(agent.device, pal)
    outcomes: list[int] = []
    all_there, seen = anyio.Event(), anyio.Event()

    async def holds() -> None:
        async with line(friend, agent) as wire:
            try:
                outcomes.append((await wire.get("/v1/agent")).status)
            except (ConnectionError, asyncio.IncompleteReadError):
                outcomes.append(0)
            if len(outcomes) == listening.MAX_PER_ADDRESS + 5:
                all_there.set()
            await seen.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(listening.MAX_PER_ADDRESS + 5):
            tasks.start_soon(holds)
        await all_there.wait()
        async with line(pal, agent) as other:
            assert (await other.get("/v1/agent")).status == 200
        seen.set()
    assert sorted(outcomes) == [0] * 5 + [200] * listening.MAX_PER_ADDRESS
    assert agent.listener.turned_away == 5


# ---- what takes too long ---------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s are 0.2 s, and 60 s are 0.4 s."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(connection, "NEXT_REQUEST_SECONDS", 0.4)


async def drips(wire: Line, data: bytes, seconds: float = 0.02) -> None:
    """Sends byte by byte, as long as somebody takes it."""
    try:
        for byte in data:
            wire.send(bytes([byte]))
            await wire.writer.drain()
            await asyncio.sleep(seconds)
    except ConnectionError:
        pass


async def gone(wire: Line, agent: Answerer) -> None:
    """Returns once the connection has ended, without an answer, and the server has let go of it."""
    with anyio.fail_after(SOON):
        assert await wire.ended() == b""
        while agent.listener.connections:  # noqa: ASYNC110 - nothing tells of it
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    "silent_after", [0, 20, -30, -1], ids=["nothing", "the first line", "a part", "all but a byte"]
)
async def test_a_request_that_stops_in_its_midst_is_reset(
    hasty: None, agent: Answerer, wire: Line, silent_after: int
) -> None:
    wire.send(posted(agent, message())[:silent_after])
    await gone(wire, agent)
    assert await agent.stored() == []


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_a_request_that_comes_byte_by_byte_is_reset_though_it_never_stops(
    hasty: None, agent: Answerer, wire: Line, part: str
) -> None:
    whole = posted(agent, message("x" * 1000))
    start = 10 if part == "headers" else whole.index(b"\r\n\r\n") + 10
    wire.send(whole[:start])
    sending = asyncio.ensure_future(drips(wire, whole[start:]))
    await gone(wire, agent)
    await sending
    assert await agent.stored() == []


async def test_the_second_request_of_a_connection_has_no_more_time(hasty: None, agent: Answerer, wire: Line) -> None:
    assert (await wire.get("/v1/agent")).status == 200
    began = time.monotonic()
    wire.send(posted(agent, message())[:50])
    await gone(wire, agent)
    assert time.monotonic() - began < 0.4


async def test_a_connection_that_is_kept_for_nothing_is_closed(hasty: None, agent: Answerer, wire: Line) -> None:
    assert (await wire.get("/v1/agent")).status == 200
    await anyio.sleep(0.3)  # longer than a request may take
    assert (await wire.get("/v1/agent")).status == 200
    await gone(wire, agent)


async def test_who_asks_and_never_reads_is_reset(hasty: None, agent: Answerer, wire: Line) -> None:
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    asking = request("GET", "/v1/agent", None, {"Host": agent.name}) * 100

    async def asks() -> None:
        try:
            while True:
                wire.send(asking)
                await wire.writer.drain()
        except ConnectionError:
            pass

    with anyio.fail_after(10):
        await asks()
        while agent.listener.connections:  # noqa: ASYNC110 - nothing tells of it
            await anyio.sleep(0.01)
