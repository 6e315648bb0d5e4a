"""A watch over connections that end where no event tells of it: idle for an hour, or the peer has vanished."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.abc

from cctailscale.errors import CcTailscaleError

if TYPE_CHECKING:
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.dial import Address
    from cctailscale.tailnet.splice import Splice

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
# A peer that loses power or is killed sends nothing, not even a reset, and TCP finds out after minutes. One that falls
# silent in the midst of a transfer is looked for; one that has been silent for longer is not: its machine may sleep,
# and the connection outlives that.
SILENT_SECONDS = 0.5
SILENT_FOR_LONG_SECONDS = 30.0
PING_SECONDS = 0.7


class _Far(NamedTuple):
    """The far end of a connection, and the device through which it is reached."""

    device: Device
    addresses: tuple[Address, ...]


class Vigil:
    """Looks at connections four times a second, as long as there are any. `run` is its task."""

    def __init__(self) -> None:
        self._watched: dict[Splice, _Far] = {}
        self._begun = anyio.Event()
        self._looking: set[_Far] = set()

    def watch(self, splice: Splice, device: Device, addresses: list[Address]) -> None:
        """Takes a connection to the host that has `addresses` into the watch."""
        self._watched[splice] = _Far(device, tuple(addresses))
        self._begun.set()

    def forget(self, splice: Splice) -> None:
        """Lets go of a connection, which has ended."""
        del self._watched[splice]

    async def run(self) -> None:
        """Runs until cancelled."""
        async with anyio.create_task_group() as looks:
            while True:
                if not self._watched:
                    self._begun = anyio.Event()
                    await self._begun.wait()
                await anyio.sleep(LOOK_SECONDS)
                now = time.monotonic()
                for splice in self._watched:
                    splice.check(now)
                for far in {far for splice, far in self._watched.items() if _is_silent(splice, now)} - self._looking:
                    self._looking.add(far)
                    looks.start_soon(self._look_for, far)

    async def _look_for(self, far: _Far) -> None:
        try:
            if await _has_vanished(far):
                now = time.monotonic()
                for splice in [splice for splice, its in self._watched.items() if its == far]:
                    if _is_silent(splice, now):
                        splice.reset("the peer has vanished: control has lost it, and it answers no ping")
        except CcTailscaleError:  # the device closes
            log.debug("a silent peer cannot be looked for", exc_info=True)
        except Exception:  # a defect in here must not end the session
            log.exception("a silent peer could not be looked for")
        finally:
            self._looking.discard(far)


def _is_silent(splice: Splice, now: float) -> bool:
    return SILENT_SECONDS <= now - splice.moved_at <= SILENT_FOR_LONG_SECONDS


async def _has_vanished(far: _Far) -> bool:
    """Whether control says that the peer is offline and the peer itself says nothing either.

    Neither is enough: control may have lost a peer that is there, and a ping may get lost.
    """
    peers: dict[str, Address] = {}
    for address in far.addresses:
        known = await far.device.whois(str(address))
        if known is None or known.node.online is not False:
            return False  # a host behind a router, or a peer that is there
        peers.setdefault(known.node.stable_id, address)  # one ping is enough for all addresses of a device
    for address in peers.values():
        reply = await far.device.api.ping(str(address), "disco", PING_SECONDS)
        if reply is not None and not reply.error:
            return False
    return True
