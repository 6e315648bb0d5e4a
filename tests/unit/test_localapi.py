"""LocalAPI where a node cannot be made to behave like that."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cctailscale.errors import LocalApiError, NodeClosed
from cctailscale.tailnet import peers
from cctailscale.tailnet.binding import Loopback
from cctailscale.tailnet.dnsquery import read
from cctailscale.tailnet.localapi import LocalAPI
from cctailscale.tailnet.models import DNSAnswer, FirstNotice, Lock, Notify, PingReply, Status
from tests import schemas

CALLS: dict[str, Callable[[LocalAPI], Awaitable[Any]]] = {
    "status": lambda api: api.status(),
    "shared status": lambda api: api.shared_status(),
    "ping": lambda api: api.ping("100.64.0.1", "disco", 1),
    "filter rules": lambda api: api.filter_rules(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_that_comes_after_the_end_is_told_that_the_node_is_closed(
    call: Callable[[LocalAPI], Awaitable[Any]],
) -> None:
    async with LocalAPI(Loopback("127.0.0.1", 9, "", "")) as api:
        pass
    with pytest.raises(NodeClosed):
        await call(api)


ANSWERS: dict[type[BaseModel], Callable[[Any], object]] = {
    FirstNotice: lambda notice: notice.net_map and notice.net_map.packet_filter_rules,
    Lock: repr,
    Notify: repr,
    PingReply: repr,
    Status: lambda status: (peers.away(status), peers.page(status, "", False, 10, None)),
}


def answers(model: type[BaseModel]) -> st.SearchStrategy[bytes]:
    """Documents of the form that it has, spoilt in one place, or none at all."""
    schema = model.model_json_schema()
    sound = schemas.fitting(schema)
    spoilt = st.builds(
        lambda one, name, value: {**one, name: value}, sound, st.sampled_from([*schema["properties"]]), schemas.ANYTHING
    )
    documents = st.one_of(sound, spoilt, schemas.ANYTHING).map(lambda one: json.dumps(one).encode())
    return st.one_of(documents, st.binary(max_size=40))


@pytest.mark.parametrize("model", ANSWERS, ids=[model.__name__ for model in ANSWERS])
@given(data=st.data())
def test_any_answer_is_read_or_said_to_have_an_unknown_form(model: type[BaseModel], data: st.DataObject) -> None:
    with suppress(LocalApiError):
        ANSWERS[model](LocalAPI._parse(model, "status", data.draw(answers(model))))


@given(answers(DNSAnswer))
def test_any_answer_about_a_name_is_read_or_said_to_have_an_unknown_form(answer: bytes) -> None:
    class Answers(LocalAPI):
        def __init__(self) -> None:
            pass

        async def _read(self, *_: object, **__: object) -> bytes:
            return answer

    async def ask() -> None:
        with suppress(LocalApiError):
            read("x.example", "A", await Answers().dns_query("x.example", "A"), "tail1234.ts.net")

    anyio.run(ask)
