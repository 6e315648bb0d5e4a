"""The token bucket, with a clock of the test's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.agents import rate as limiting
from cctailscale.agents.rate import BURST, MESSAGES_PER_MINUTE, Rate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(rate: Rate, sender: str, times: int) -> int:
    return sum(rate.take(sender) == 0 for _ in range(times))


def test_a_burst_passes_and_then_one_a_second() -> None:
    clock = Clock()
    rate = Rate(clock=clock)
    assert taken(rate, "a", 2 * BURST) == BURST
    assert rate.take("a") == 60 / MESSAGES_PER_MINUTE
    clock.now += 0.25
    assert rate.take("a") == 0.75
    clock.now += 0.75
    assert taken(rate, "a", 5) == 1
    clock.now += 3600
    assert taken(rate, "a", 2 * BURST) == BURST


def test_a_refused_one_costs_nothing() -> None:
    clock = Clock()
    rate = Rate(clock=clock)
    taken(rate, "a", 1000)
    clock.now += 1
    assert rate.take("a") == 0


def test_senders_do_not_share() -> None:
    rate = Rate(clock=Clock())
    taken(rate, "a", 2 * BURST)
    assert taken(rate, "b", 2 * BURST) == BURST


def test_no_more_senders_are_kept_than_there_may_be_and_those_that_sent_most_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limiting, "MAX_SENDERS", 3)
    rate = Rate(clock=Clock())
    taken(rate, "greedy", BURST)
    for number in range(100):
        rate.take(f"sender {number}")
    assert len(rate._full_at) == 3
    assert rate.take("greedy") > 0


def test_who_has_a_full_bucket_again_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiting, "MAX_SENDERS", 2)
    clock = Clock()
    rate = Rate(clock=clock)
    rate.take("a")
    rate.take("b")
    clock.now += 1
    rate.take("c")
    assert list(rate._full_at) == ["c"]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2400)), max_size=200),
    st.sampled_from([1, 6, 60, 240]),
    st.integers(1, 30),
)
def test_it_is_a_bucket_that_is_refilled(steps: list[tuple[str, int]], per_minute: int, burst: int) -> None:
    """Times are multiples of 1/1024 s, so that the model's sums are exact."""
    clock = Clock()
    rate = Rate(per_minute, burst, clock)
    tokens: dict[str, float] = dict.fromkeys("ab", burst)
    for sender, pause in steps:
        clock.now += pause / 1024
        tokens = {who: min(burst, left + pause / 1024 * per_minute / 60) for who, left in tokens.items()}
        wait = rate.take(sender)
        assert wait == pytest.approx(max(0, (1 - tokens[sender]) * 60 / per_minute), abs=1e-6)
        if wait == 0:
            tokens[sender] -= 1
