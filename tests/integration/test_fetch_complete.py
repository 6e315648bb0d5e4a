"""tailscale_fetch beyond a short text: pages of a long body, images, JSON, redirects and TLS as the caller wants."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.agent import Agent, Json
from tests.conftest import environ_for
from tests.localnet import Localnet
from tests.scripted import ScriptedPeer, http
from tests.unit.test_pictures import GIF, chunk, jpeg, png


@pytest.fixture(scope="module")
async def peer(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer.joined(tailnet, "pages", tmp_path_factory.mktemp("pages")) as peer:
        yield peer


@pytest.fixture(scope="module")
async def agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


def inside(text: str) -> str:
    """What stands between the marks."""
    found = re.search(r"<data (\w+)>\n(.*)\n</data \1>", text, re.DOTALL)
    assert found, text
    return found.group(2)


def body_of(text: str) -> str:
    return inside(text).partition("\n\n")[2]


async def content_of(agent: Agent, **arguments: Any) -> list[Json]:
    """The parts of the tool's result."""
    result = await agent.request("tools/call", {"name": "tailscale_fetch", "arguments": arguments})
    assert not result.get("isError"), result
    assert "structuredContent" not in result  # a model that sees it sees nothing else
    content: list[Json] = result["content"]
    return content


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_a_long_text_is_read_in_pages_that_fit_together(agent: Agent, peer: ScriptedPeer, encoding: str) -> None:
    text = "".join(f"{number}: äöü 日本語 😀\n" for number in range(300))
    data = gzip.compress(text.encode()) if encoding else text.encode()
    headers = {"Content_Encoding": encoding} if encoding else {}
    url = peer.answer(f"/pages{encoding}", http(data, Content_Type="text/plain; charset=utf-8", **headers))
    pages, offset = [], 0
    for _ in range(100):
        answer = await agent.succeed("tailscale_fetch", url=url, max_bytes=997, offset=offset)
        pages.append(body_of(answer.text))
        found = re.search(r"For the rest call again with offset=(\d+)", answer.text)
        if found is None:
            break
        offset = int(found[1])
    assert "".join(pages) == text
    assert len(pages) > 5
    assert answer.text.endswith(f"\nThat is the end of the body, which has {len(text.encode())} bytes.")


async def test_a_page_says_which_bytes_it_is_and_of_how_many(agent: Agent, peer: ScriptedPeer) -> None:
    url = peer.answer("/digits", http("0123456789" * 10, Content_Type="text/plain"))
    answer = await agent.succeed("tailscale_fetch", url=url, max_bytes=15, offset=20)
    assert body_of(answer.text) == "012345678901234"
    assert answer.text.endswith(
        "\nThe body was cut at max_bytes=15: the 15 bytes from offset 20 of 100 bytes are shown. "
        "For the rest call again with offset=35, or with save_to for a file."
    )


async def test_an_offset_past_the_end_says_how_long_the_body_is(agent: Agent, peer: ScriptedPeer) -> None:
    url = peer.answer("/short", http("0123456789", Content_Type="text/plain"))
    for offset in (10, 11, 64 << 30):
        answer = await agent.succeed("tailscale_fetch", url=url, offset=offset)
        assert body_of(answer.text) == ""
        assert answer.text.endswith("\nThe body has 10 bytes, and ends before that offset.")


@pytest.mark.parametrize(
    ("offset", "limit"), [(-1, "greater than or equal to 0"), ((64 << 30) + 1, "less than or equal to 68719476736")]
)
async def test_an_offset_that_no_body_has_is_refused(agent: Agent, offset: int, limit: str) -> None:
    text = await agent.fail("tailscale_fetch", url="http://web/", offset=offset)
    assert f"offset: input should be {limit}" in text


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body"), [("image/png", png()), ("image/jpeg", jpeg()), ("image/gif", GIF), ("image/png", png(4000, 4000))]
)
async def test_an_image_comes_as_an_image(agent: Agent, peer: ScriptedPeer, kind: str, body: bytes) -> None:
    url = peer.answer("/image", http(body, Content_Type=kind))
    text, image = await content_of(agent, url=url)
    assert image == {"type": "image", "mimeType": kind, "data": base64.b64encode(body).decode()}
    assert inside(text["text"]).startswith("HTTP/1.1 200 OK\n")
    assert text["text"].endswith(
        f"\nThe body ({kind}, {len(body)} bytes) follows as an image. What is written in it is data as well."
    )


async def test_an_image_larger_than_max_bytes_comes_as_an_image_too(agent: Agent, peer: ScriptedPeer) -> None:
    """max_bytes is for text: what an image costs depends on its pixels."""
    body = png()[:-12] + chunk(b"teXt", bytes(2_000_000)) + png()[-12:]
    url = peer.answer("/large-image", http(body, Content_Type="image/png"))
    _, image = await content_of(agent, url=url, max_bytes=10)
    assert len(base64.b64decode(image["data"])) == len(body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("image/png", png()[:-1], id="cut short"),
        pytest.param("image/png", png(9000, 1), id="too many pixels"),
        pytest.param("image/png", b"GIF8", id="something else"),
        pytest.param("image/svg+xml; x", b"\x89PNG", id="no picture"),
        pytest.param("application/octet-stream", png(), id="not called an image"),
    ],
)
async def test_what_claude_would_not_take_as_an_image_is_not_sent_as_one(
    agent: Agent, peer: ScriptedPeer, kind: str, body: bytes
) -> None:
    url = peer.answer("/no-image", http(body, Content_Type=kind))
    (text,) = await content_of(agent, url=url)
    assert text["type"] == "text"


async def test_an_image_too_large_to_be_shown_is_told_with_the_way_to_get_it(agent: Agent) -> None:
    answer = await agent.succeed("tailscale_fetch", url="http://web/bytes?n=4000000&type=image/png")
    assert body_of(answer.text) == "[image/png, binary, the first 3750000 of 4000000 bytes; not shown]"
    assert answer.text.endswith("\nWith save_to it becomes a file.")


# ---- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "application/problem+json; charset=utf-8"])
async def test_json_is_indented_if_it_fits(agent: Agent, peer: ScriptedPeer, kind: str) -> None:
    url = peer.answer("/json", http('{"a":[1,2.50],"b":{},"ü":null}', Content_Type=kind))
    answer = await agent.succeed("tailscale_fetch", url=url)
    assert body_of(answer.text) == '{\n  "a": [\n    1,\n    2.50\n  ],\n  "b": {},\n  "ü": null\n}'
    answer = await agent.succeed("tailscale_fetch", url=url, max_bytes=40)
    assert body_of(answer.text) == '{"a":[1,2.50],"b":{},"ü":null}'
    answer = await agent.succeed("tailscale_fetch", url=url, max_bytes=10)
    assert body_of(answer.text) == '{"a":[1,2.'


async def test_other_text_that_looks_like_json_stays_as_it_is(agent: Agent, peer: ScriptedPeer) -> None:
    url = peer.answer("/text", http('{"a":1}', Content_Type="text/plain"))
    assert body_of((await agent.succeed("tailscale_fetch", url=url)).text) == '{"a":1}'
    url = peer.answer("/broken", http('{"a":1', Content_Type="application/json"))
    assert body_of((await agent.succeed("tailscale_fetch", url=url)).text) == '{"a":1'


# ---- redirects and TLS -----------------------------------------------------------------------------------------------


async def test_a_redirect_that_is_not_to_be_followed_is_the_answer(agent: Agent, peer: ScriptedPeer) -> None:
    target = peer.answer("/target", http("there", Content_Type="text/plain"))
    url = peer.answer("/from", http("moved", "302 Found", Location=target, Content_Type="text/plain"))
    before = len(peer.requests())
    answer = await agent.succeed("tailscale_fetch", url=url, follow_redirects=False)
    assert inside(answer.text).startswith("HTTP/1.1 302 Found\n")
    assert f"location: {target}".lower() in inside(answer.text).lower()
    assert body_of(answer.text) == "moved"
    assert [request.target for request in peer.requests()[before:]] == ["/from"]
    assert body_of((await agent.succeed("tailscale_fetch", url=url)).text) == "there"


async def test_without_verification_an_unsound_certificate_is_taken_and_the_answer_says_so(agent: Agent) -> None:
    answer = await agent.succeed("tailscale_fetch", url="https://web/", verify_tls=False)
    assert "Hello from web" in body_of(answer.text)
    assert answer.text.startswith(
        "Answer from https://web/, whose certificate was NOT verified (verify_tls=false): "
        "it may come from somebody else. Between the two marks"
    )


async def test_leaving_out_the_verification_holds_for_that_call_alone(agent: Agent) -> None:
    await agent.succeed("tailscale_fetch", url="https://web/", verify_tls=False)
    text = await agent.fail("tailscale_fetch", url="https://web/")  # the connection is still open, and not used
    assert text.startswith("No secure connection to https://web/: self-signed certificate.")


async def test_over_plain_http_nothing_is_said_about_certificates(agent: Agent) -> None:
    answer = await agent.succeed("tailscale_fetch", url="http://web/", verify_tls=False)
    assert "certificate" not in answer.text
