"""How long a member that is not heard of keeps its claims. In memory, by clocks that are given; waits for nothing.

A lease is a duration: it goes by the monotonic clock, and no member's clock counts. Whoever was asleep itself, or
stopped, has not listened meanwhile: every lease begins anew then, as after a start, and no member has less time than
it needs to find its lead again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

# A device that was replaced needs a moment until the new one is there and brings its token. Its claims wait for it.
GRACE_SECONDS = 10.0
# After a start or a sleep, how ever short a lease is. A member that misses its lead looks for it everywhere (6 s: see
# agents/leadway.py), pauses for a third of a lease, and looks again.
RETURN_SECONDS = 15.0
# How often somebody looks, and how much later than that is more than a busy machine: a sleep, or a stop.
TICK_SECONDS = 1.0
LATE_SECONDS = 2.0

NOT_HEARD = "not heard of for {seconds:g} s"
DEVICE_LEFT = "device has left the tailnet"


class Leases:
    """`seconds` long each. `clock` is monotonic; `wall` goes on while the machine sleeps, which tells that it did."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.seconds = seconds
        self._clock = clock
        self._wall = wall
        self._heard: dict[str, float] = {}
        self._absent: dict[str, float] = {}  # since when
        self._looked = (clock(), wall())

    def heard(self, member: str) -> None:
        """The member is alive now."""
        self._heard[member] = self._clock()
        self._absent.pop(member, None)

    def lapsed(self, devices: Mapping[str, str], present: Collection[str] | None) -> dict[str, str]:
        """Of these members (id to node id) those that have no lease any more, and why. To be called each tick.

        `present`: the node ids that are on the tailnet; None where that is not known. Who is new here has a full lease.
        """
        if self._was_away():
            self._heard.clear()
            self._absent.clear()
        now = self._clock()
        begun = now + max(0.0, RETURN_SECONDS - self.seconds)
        self._heard = {member: self._heard.get(member, begun) for member in devices}
        self._absent = {
            member: self._absent.get(member, now)
            for member, node_id in devices.items()
            if present is not None and node_id not in present
        }
        reasons = {
            member: NOT_HEARD.format(seconds=self.seconds)
            for member, heard in self._heard.items()
            if now - heard > self.seconds
        }
        return reasons | {member: DEVICE_LEFT for member, since in self._absent.items() if now - since > GRACE_SECONDS}

    def _was_away(self) -> bool:
        """Whether this process did not run, or the machine slept, since the last look."""
        (clock, wall), self._looked = self._looked, (self._clock(), self._wall())
        passed, shown = self._looked[0] - clock, self._looked[1] - wall
        return passed > TICK_SECONDS + LATE_SECONDS or abs(shown - passed) > LATE_SECONDS
