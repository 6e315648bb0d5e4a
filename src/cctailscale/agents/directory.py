"""Which agents there are: devices that look like one, asked whether they are.

A device is never taken for an agent because it is online: only what answered just now is listed as one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cctailscale.agents import client
from cctailscale.agents.policy import Policy, Principal, principal
from cctailscale.agents.together import together
from cctailscale.errors import AgentError, AgentRefused, DialError, LocalApiError, NodeError
from cctailscale.tailnet.peers import everybody

if TYPE_CHECKING:
    from cctailscale.agents.wire import AgentCard
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.models import Peer, Status

# What an agent's device is called unless its user chose another name (naming.hostname).
PREFIX = "cc-"
# An agent answers within milliseconds, one behind DERP within some hundred.
ANSWER_SECONDS = 2.0
# Beyond these the list of a large tailnet would take minutes; `to` reaches the others by name.
MAX_ASKED = 500


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An agent that answered. `card` is its own word; `may_message_us` is this agent's policy."""

    peer: Principal
    address: str
    card: AgentCard
    latency_ms: float
    may_message_us: bool


@dataclass(frozen=True, slots=True)
class Silent:
    """A device that looks like an agent's; `why` it is not known to be one that can be talked to."""

    peer: Principal
    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """All that were asked, in the order of their names. `skipped`: more looked like agents than are asked."""

    confirmed: list[Confirmed]
    silent: list[Silent]
    skipped: int


async def find(device: Device, policy: Policy, status: Status) -> Found:
    """Asks every online device of `status` that looks like an agent's. Raises NodeClosed, NodeFailed, TimedOut."""
    here = principal(await device.me())
    wanted = sorted(_candidates(status), key=lambda peer: peer.name)
    answers = await together(partial(_asked, device, policy, here), wanted[:MAX_ASKED])
    return Found(
        confirmed=sorted((one for one in answers if isinstance(one, Confirmed)), key=lambda one: one.peer.name),
        silent=sorted((one for one in answers if isinstance(one, Silent)), key=lambda one: one.peer.name),
        skipped=max(0, len(wanted) - MAX_ASKED),
    )


def _candidates(status: Status) -> list[Peer]:
    tags = set(status.me.tags) if status.me else set()
    return [
        peer
        for peer in everybody(status)
        if peer is not status.me
        and peer.online
        and peer.tailscale_ips
        and (peer.name.lower().startswith(PREFIX) or not tags.isdisjoint(peer.tags))
    ]


async def _asked(device: Device, policy: Policy, here: Principal, peer: Peer) -> Confirmed | Silent | None:
    """None for a device that has left meanwhile."""
    address = peer.tailscale_ips[0]
    asked = Principal(peer.id, peer.name, None, tuple(peer.tags))
    try:
        who = await device.whois(address)
        if who is None:
            return None
        asked = principal(who)
        began = time.perf_counter()
        card = await client.card_of(device, address, ANSWER_SECONDS)
        latency = round((time.perf_counter() - began) * 1000, 2)
    except AgentRefused as error:
        return Silent(asked, error.meaning)
    except (AgentError, DialError, LocalApiError, NodeError) as error:
        return Silent(asked, error.happened)
    return Confirmed(asked, address, card, latency, policy.decide(here, asked, "message") is None)
