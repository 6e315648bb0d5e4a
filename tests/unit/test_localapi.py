"""LocalAPI where a node cannot be made to behave like that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cctailscale.errors import NodeClosed
from cctailscale.tailnet.binding import Loopback
from cctailscale.tailnet.localapi import LocalAPI

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
