"""The same thing done to many devices, some at a time: one that is slow holds nobody up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from cctailscale.errors import CcTailscaleError

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16


async def together(work: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
    """What `work` gives for each of `items`, in their order.

    The first error of this project ends all and is raised as it is; a task group would wrap it.
    """
    results: dict[int, R] = {}
    failures: list[CcTailscaleError] = []
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def do(place: int, item: T) -> None:
        async with limiter:
            try:
                results[place] = await work(item)
            except CcTailscaleError as error:
                failures.append(error)
                doing.cancel_scope.cancel()

    async with anyio.create_task_group() as doing:
        for place, item in enumerate(items):
            doing.start_soon(do, place, item)
    if failures:
        raise failures[0]
    return [results[place] for place in range(len(items))]
