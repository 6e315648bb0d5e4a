"""A member's way to the agent that leads its team, which may be restarted, or come back as another device.

Whoever says to be the lead has to prove it with the key that was pinned at the join, in words that are good for these
two devices alone (teams/keys.py). A request goes to the device that has done so, as WhoIs names it, and to no other.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from cctailscale.agents import client, directory
from cctailscale.agents.connection import KNOWN_SECONDS
from cctailscale.agents.hosting import identity
from cctailscale.agents.policy import Principal, principal
from cctailscale.agents.wire import MAX_TEAM_CHARS
from cctailscale.errors import (
    AgentError,
    CcTailscaleError,
    DialError,
    FalseLead,
    LocalApiError,
    NoAgent,
    NodeClosed,
    NodeError,
    plain,
)
from cctailscale.teams import keys
from cctailscale.teams.wire import Joined, JoinRequest, Proof, ProofRequest

if TYPE_CHECKING:
    from cctailscale.agents.policy import Policy
    from cctailscale.tailnet.device import Device
    from cctailscale.tailnet.node import Node
    from cctailscale.teams.membership import Membership, MembershipFile
    from cctailscale.teams.remote import Method

log = logging.getLogger(__name__)

# For who joins. As long as for a message (sending.DELIVER_SECONDS): the lead may have been restarted just now.
JOIN_SECONDS = 20.0
# An agent answers within milliseconds, one behind DERP within some hundred.
PROOF_SECONDS = 2.0
# Of devices that have failed to prove what they say; each is told of once.
MAX_IMPOSTORS = 100

Warn = Callable[[str, FalseLead], Awaitable[None]]


async def join(device: Device, lead: Principal, address: str, token: str | None, key: str | None) -> Joined:
    """Has the agent at `address`, which WhoIs says is `lead`, take this device into its team.

    `token`: of the membership that this session has; `key`: that the lead has to have, None if it is not known yet.
    Raises FalseLead, BadDocument, and what `client.ask` raises.
    """
    nonce = keys.new_nonce()
    request = JoinRequest(nonce=nonce, token=token)
    joined = Joined.from_json(
        await client.ask(device, address, "POST", "team/join", request.to_json(), JOIN_SECONDS, Joined.max_bytes)
    )
    is_same = key is None or key == joined.public_key
    if not is_same or not await _is_proven(device, lead, joined.public_key, joined.signature, joined.team, nonce):
        raise FalseLead(lead.name, joined.name)
    return joined


async def _where(device: Device, known: Membership) -> Principal:
    """The lead, at the address where it was last. Raises NoAgent if it is another device that has that now."""
    who = principal(await device.whois(known.lead_address)) if known.lead_address else None
    if who is None or who.node_id != known.lead.node_id:
        raise NoAgent(known.lead.name, "its device is not where it was")
    return who


async def _is_proven(device: Device, lead: Principal, key: str, signature: str, team: str, nonce: str) -> bool:
    me = await device.me()
    if me is None:
        raise NodeClosed
    asker = me.node.stable_id
    # In a thread, since the first proof loads OpenSSL's library.
    check = partial(keys.is_proven, key, signature, team=team, nonce=nonce, lead=lead.node_id, asker=asker)
    return await anyio.to_thread.run_sync(check)


class LeadWay:
    """A teams.remote.Way. `warn` is told of each device that says to be the lead and is not, once."""

    def __init__(self, node: Node, policy: Policy, file: MembershipFile, warn: Warn) -> None:
        self._node = node
        self._policy = policy
        self._file = file
        self._warn = warn
        self._looking = anyio.Lock()
        self._known: tuple[float, Device, str, str] | None = None  # when, and by what, who was found where
        self._finds = 0
        self._impostors: set[str] = set()

    async def ask(self, method: Method, path: str, body: bytes | None, max_bytes: int) -> bytes:
        device, known = await self._node.next_device(None), self._file.now
        await self._check(device, known)
        return await client.ask(device, known.lead_address, method, path, body, math.inf, max_bytes)

    async def _check(self, device: Device, known: Membership) -> None:
        """Raises NoAgent if the lead's device is not where it was, by what WhoIs has said within KNOWN_SECONDS."""
        address, node_id = known.lead_address, known.lead.node_id
        known_at, *what = self._known or (-math.inf,)
        now = time.monotonic()
        if what == [device, address, node_id] and now - known_at < KNOWN_SECONDS:
            return
        await _where(device, known)
        self._known = (now, device, address, node_id)

    async def rejoin(self) -> None:
        device, known = await self._node.next_device(None), self._file.now
        joined = await join(device, await _where(device, known), known.lead_address, known.token, known.public_key)
        self._file.note(member=joined.member, token=joined.token, lease_seconds=joined.lease_seconds)

    async def find(self) -> bool:
        """First where it was, then by its name, then among all agents that say to be in a team of that name."""
        finds = self._finds
        async with self._looking:
            if self._finds != finds:  # somebody else has found it meanwhile
                return True
            device, known = await self._node.next_device(None), self._file.now
            try:
                found = await self._first_to_prove(device, await self._where_it_was(device, known))
                if found is None:
                    found = await self._first_to_prove(device, await self._agents_of_the_team(device, known))
            except (AgentError, DialError, LocalApiError, NodeError) as error:
                log.debug("the lead could not be looked for: %s", error.happened)
                return False
            if found is None:
                return False
            lead, address = found
            if lead.node_id != known.lead.node_id:
                log.info("the team %s is led by %s now", known.name, lead.name)
            self._file.note(lead=identity(lead), lead_address=address)
            self._finds += 1
            return True

    async def _where_it_was(self, device: Device, known: Membership) -> list[str]:
        addresses = [known.lead_address] if known.lead_address else []
        try:
            with anyio.move_on_after(PROOF_SECONDS):
                addresses += map(str, (await device.dialer.resolve(known.lead.name))[:1])
        except CcTailscaleError as error:
            log.debug("the lead's name is not known any more: %s", error.happened)
        return list(dict.fromkeys(addresses))

    async def _agents_of_the_team(self, device: Device, known: Membership) -> list[str]:
        found = await directory.find(device, self._policy, await device.api.shared_status())
        team = plain(known.name, MAX_TEAM_CHARS)  # as Agent.card has it
        return [agent.address for agent in found.confirmed if agent.card.team == team]

    async def _first_to_prove(self, device: Device, addresses: Sequence[str]) -> tuple[Principal, str] | None:
        """Who proves to have the team's key, of those at these addresses; all are asked at once."""
        found: list[tuple[Principal, str]] = []

        async def ask(address: str) -> None:
            lead = await self._proven(device, address)
            if lead is not None:
                found.append((lead, address))
                asking.cancel_scope.cancel()

        async with anyio.create_task_group() as asking:
            for address in addresses:
                asking.start_soon(ask, address)
        return found[0] if found else None

    async def _proven(self, device: Device, address: str) -> Principal | None:
        """Who is at the address, if that is the lead."""
        known, nonce = self._file.now, keys.new_nonce()
        request = ProofRequest(team=known.team, nonce=nonce).to_json()
        try:
            who = principal(await device.whois(address), address)
            answer = await client.ask(device, address, "POST", "team/proof", request, PROOF_SECONDS)
            signature = Proof.from_json(answer).signature
            if await _is_proven(device, who, known.public_key, signature, known.team, nonce):
                return who
        except CcTailscaleError as error:  # nobody is there, or somebody who does not say to lead this team
            log.debug("%s does not lead the team: %s", address, error.happened)
            return None
        await self._noted(who)
        return None

    async def _noted(self, impostor: Principal) -> None:
        if impostor.node_id not in self._impostors and len(self._impostors) < MAX_IMPOSTORS:
            self._impostors.add(impostor.node_id)
            error = FalseLead(impostor.name, self._file.now.name)
            log.warning("%s", error)
            await self._warn(impostor.node_id, error)
