"""One message to one or many: who is meant, what became of each copy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from cctailscale.agents import client
from cctailscale.agents.results import Outcome
from cctailscale.agents.together import together
from cctailscale.errors import (
    AgentError,
    AgentRefused,
    AnswerLost,
    BadName,
    CcTailscaleError,
    DialError,
    NoAgent,
    NoSuchDevice,
    NoSuchName,
    TimedOut,
    plain,
)
from cctailscale.tailnet.identify import owner_of
from cctailscale.tailnet.peers import split_port

if TYPE_CHECKING:
    from cctailscale.agents.inbox import Inbox
    from cctailscale.agents.wire import Message, Receipt
    from cctailscale.tailnet.device import Device

log = logging.getLogger(__name__)

# A message is stored within milliseconds; a path that has to be found first takes a second or two. To an agent that was
# killed and is back it can take WireGuard 15 s to give the old session up (KeepaliveTimeout + RekeyTimeout).
DELIVER_SECONDS = 20.0
# For a device that control says is offline: it may be reached all the same, while control is away.
OFFLINE_SECONDS = 2.0

# By the code of wire.Refusal.
_REFUSALS: dict[str, Outcome] = {
    "refused": "refused",
    "too_many": "rate limited",
    "inbox_full": "inbox full",
    "inbox_unusable": "inbox full",
    "too_large": "too large",
}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A device that a message is for. `online`: what control says; None: it does not."""

    node_id: str
    name: str
    address: str
    online: bool | None


@dataclass(frozen=True, slots=True)
class Copy:
    """What became of one recipient's copy. `to` is the device's name, or what was written where there is none."""

    to: str
    outcome: Outcome
    delivered: datetime | None = None
    explanation: str | None = None


async def recipients(device: Device, names: Sequence[str]) -> tuple[list[Recipient], list[Copy]]:
    """The devices that are meant, each once, and what cannot be meant: no such device, or this one.

    Raises LocalApiError, NodeClosed, NodeFailed.
    """
    meant: dict[str, Recipient] = {}
    nobody: list[Copy] = []
    me = await device.me()
    # Some at a time, since the DNS server of a private zone may be slow.
    for one in await together(partial(_looked_up, device), list(dict.fromkeys(names))):
        if isinstance(one, Copy):
            nobody.append(one)
        elif me is not None and one.node_id == me.node.stable_id:
            nobody.append(Copy(one.name, "failed", explanation="That is this agent itself."))
        else:
            meant.setdefault(one.node_id, one)
    return list(meant.values()), nobody


async def _looked_up(device: Device, name: str) -> Recipient | Copy:
    try:
        return await recipient(device, name)
    except (BadName, NoSuchName, NoSuchDevice) as error:
        return Copy(plain(name), "no such device", explanation=str(error))


async def recipient(device: Device, name: str) -> Recipient:
    """The device that a name or an address means, as `Dialer.resolve` and WhoIs have it.

    Raises BadName, NoSuchName, NoSuchDevice, ResolverFailed, LocalApiError, NodeClosed, NodeFailed.
    """
    addresses = [str(address) for address in await device.dialer.resolve(split_port(name))]
    who = await owner_of(device, addresses)
    if who is None:
        raise NoSuchDevice(addresses[0])
    address = (who.node.ips or addresses)[0]
    return Recipient(who.node.stable_id, plain(who.node.name), address, who.node.online)


async def send(device: Device, inbox: Inbox, message: Message, to: Sequence[Recipient]) -> tuple[str, list[Copy]]:
    """Delivers to all, some at a time; the thread, and what became of each copy, in the order of `to`.

    Raises BadDocument, InboxUnusable: before anything has gone out.
    """
    thread = await inbox.sending(message, {one.node_id: one.name for one in to})

    async def deliver(one: Recipient) -> Copy:
        answer = await _delivered(device, message, one)
        if isinstance(answer, Copy):
            return answer
        await _noted(inbox, one, answer)
        return Copy(one.name, "delivered", answer.delivered)

    return thread, await together(deliver, to)


async def _noted(inbox: Inbox, one: Recipient, receipt: Receipt) -> None:
    try:
        await inbox.acknowledged(one.node_id, receipt)
    except AgentError as error:  # it is there all the same, which is what counts
        log.warning("that a message was delivered could not be noted: %s", error)


async def _delivered(device: Device, message: Message, one: Recipient) -> Receipt | Copy:
    seconds = OFFLINE_SECONDS if one.online is False else DELIVER_SECONDS
    try:
        return await client.deliver(device, one.address, message, seconds)
    except AgentRefused as error:
        return Copy(one.name, _REFUSALS.get(error.code, "failed"), explanation=error.meaning)
    except NoAgent as error:
        return Copy(one.name, "no such agent", explanation=f"{error.happened} {error.meaning}")
    except TimedOut as error:
        outcome: Outcome = "offline" if one.online is False else "timed out"
        return Copy(one.name, outcome, explanation=_offline(one) if one.online is False else _unsure(error))
    except DialError as error:
        return Copy(one.name, "offline", explanation=str(error))
    except AnswerLost as error:
        return Copy(one.name, "failed", explanation=_unsure(error))
    except CcTailscaleError as error:
        return Copy(one.name, "failed", explanation=str(error))


def _offline(one: Recipient) -> str:
    return f"{one.name} is offline. The message is not kept for it: send it again once the agent is back."


def _unsure(error: TimedOut | AnswerLost) -> str:
    """No answer does not mean that it was not stored."""
    return f"{error.happened} It may have been stored: to be sure, send it again with the same id."
