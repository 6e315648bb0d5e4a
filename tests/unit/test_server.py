"""The server's parts that a conversation cannot be made to show."""

from __future__ import annotations

import asyncio
import io
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification
from pydantic import BaseModel, ConfigDict, ValidationError

from cctailscale.agents.hints import Hint
from cctailscale.server import Server, _push, _ToClient, faults_of
from cctailscale.stdio import Wire
from cctailscale.teams.model import Blockers, TeamName


async def told() -> AsyncIterator[Hint]:
    for _ in range(3):
        yield Hint("Message from ann.", {})


@asynccontextmanager
async def to_client() -> AsyncIterator[tuple[_ToClient, asyncio.WriteTransport, io.FileIO]]:
    """The server's end of a pipe, as asyncio has it, and the client's, which nobody reads."""
    readable, writable = os.pipe()
    loop = asyncio.get_running_loop()
    with os.fdopen(readable, "rb", 0) as client:
        pipe = os.fdopen(writable, "wb", 0)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
        try:
            yield _ToClient(Wire(asyncio.StreamWriter(transport, protocol, None, loop))), transport, client
        finally:
            if not transport.is_closing():
                transport.abort()
            await anyio.lowlevel.checkpoint()


async def test_a_conversation_that_ends_while_a_hint_is_on_its_way_is_no_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    initialized = anyio.Event()
    initialized.set()
    server = SimpleNamespace(initialized=initialized, redacted=lambda value: value)
    async with to_client() as (client, _, reading):
        reading.close()
        with caplog.at_level(logging.INFO):
            await _push(cast(Server, server), told(), client)
    assert caplog.records == []


async def test_what_a_client_neither_reads_nor_waits_for_does_not_pile_up() -> None:
    message = SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="x", params={"text": "x" * (1 << 20)}))
    async with to_client() as (client, transport, _):
        for _ in range(20):
            with anyio.move_on_after(0.01):
                await client.send(message)
        assert transport.get_write_buffer_size() < 2 << 20


def test_the_sdks_own_middleware_is_the_two_that_are_left_out() -> None:
    """A version with a third may need it."""
    names = [type(each).__name__ for each in MCPServer("any").middleware]
    assert names == ["OpenTelemetryMiddleware", "RequestStateBoundary"]


def test_what_is_wrong_with_a_text_is_said_in_its_characters_and_without_pydantics_words() -> None:
    class Arguments(BaseModel):
        name: TeamName
        ids: Blockers = ()

    for name, said in (
        ("", "name: should have at least 1 character, not 0"),
        ("x" * 65, "name: should have at most 64 characters, not 65"),
        ("a\nb", "name: has a control character or a line break"),
    ):
        with pytest.raises(ValidationError) as raised:
            Arguments.model_validate({"name": name})
        assert faults_of(raised.value) == [said]
    with pytest.raises(ValidationError) as raised:
        Arguments.model_validate({"name": "x", "ids": [f"task-{number}" for number in range(1, 102)]})
    assert faults_of(raised.value) == ["ids: tuple should have at most 100 items after validation, not 101"]


def test_what_is_no_parameter_is_named_on_one_line() -> None:
    class Arguments(BaseModel):
        model_config = ConfigDict(extra="forbid")

    with pytest.raises(ValidationError) as raised:
        Arguments.model_validate({"x\r\n\x1b[2J\u202ey": 1})
    assert faults_of(raised.value) == ["x [2J y: is not a parameter of it"]
