"""How often each sender may send."""

from __future__ import annotations

import time
from collections.abc import Callable

# A message is something to read and to think about; a person or an agent that sends one a second is not listened to.
MESSAGES_PER_MINUTE = 60
# A broadcast, or an answer in several parts.
BURST = 20
# Each takes a hundred bytes. Only peers that the policy lets in get here.
MAX_SENDERS = 1000


class Rate:
    """A token bucket for each sender: `burst` tokens, refilled at `per_minute`.

    Kept as the time at which the sender's bucket will be full (GCRA), so that a sender whose bucket is full takes no
    room. With more than `MAX_SENDERS` who are not, the fullest bucket is forgotten. `clock` is in seconds and never
    goes back.
    """

    def __init__(
        self,
        per_minute: float = MESSAGES_PER_MINUTE,
        burst: int = BURST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refill = 60 / per_minute  # seconds a token
        self._burst = burst
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def take(self, sender: str) -> float:
        """Takes a token and gives 0.0; without one, the seconds until there is."""
        now = self._clock()
        full_at = max(now, self._full_at.get(sender, now))
        wait = full_at - now - (self._burst - 1) * self._refill
        if wait > 0:
            return wait
        self._full_at[sender] = full_at + self._refill
        if len(self._full_at) > MAX_SENDERS:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        self._full_at = {sender: full_at for sender, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) > MAX_SENDERS:
            del self._full_at[min(self._full_at, key=self._full_at.__getitem__)]
