"""The server's parts that a conversation cannot be made to show."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from cctailscale.agents.hints import Hint
from cctailscale.server import Server, _push, faults_of
from cctailscale.teams.model import Blockers, TeamName


async def told() -> AsyncIterator[Hint]:
    while True:
        yield Hint("Message from ann.", {})


@pytest.mark.parametrize("end", ["send", "receive"])
async def test_a_conversation_that_ends_while_a_hint_is_on_its_way_is_no_defect(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    send, receive = anyio.create_memory_object_stream[Any](10)
    with send, receive:
        (send if end == "send" else receive).close()
        initialized = anyio.Event()
        initialized.set()
        server = SimpleNamespace(initialized=initialized, redacted=lambda value: value)
        with caplog.at_level(logging.INFO):
            await _push(cast(Server, server), told(), send)
    assert caplog.records == []


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
