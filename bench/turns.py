"""Ways to do the same, measured in turns: so that a machine that is slow for a while slows all of them."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence

Way = Callable[[], Awaitable[Sequence[float]]]
Samples = dict[str, list[Sequence[float]]]


async def in_turns(ways: Mapping[str, Way], rounds: int) -> Samples:
    """What each way gives, by round: forwards in one round, backwards in the next. One round before only warms up."""
    samples: Samples = {name: [] for name in ways}
    for number in range(1 + rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            measured = await ways[name]()
            if number:
                samples[name].append(measured)
    return samples


def flat(batches: Sequence[Sequence[float]]) -> list[float]:
    """Every sample of every round."""
    return [sample for batch in batches for sample in batch]


def medians(batches: Sequence[Sequence[float]]) -> list[float]:
    """One number a round."""
    return [statistics.median(batch) for batch in batches]
