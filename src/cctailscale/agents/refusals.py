"""Who was turned away since this process began, for whoever reads the inbox. In memory: it is news, not a record."""

from __future__ import annotations

from dataclasses import dataclass

from cctailscale.agents.policy import Principal, Refused

# A page for a person. Whoever knocks more often than others does not push them out: each peer has one line.
MAX_PEERS = 50


@dataclass(frozen=True, slots=True)
class RefusedPeer:
    """A peer that the policy refused, `count` times so far; the last time for `refused`."""

    peer: Principal
    refused: Refused
    count: int


class Refusals:
    """`count` is of all refusals, of peers that have been dropped from `peers` as well."""

    def __init__(self) -> None:
        self.count = 0
        self._peers: dict[str, RefusedPeer] = {}

    def note(self, peer: Principal, refused: Refused) -> None:
        self.count += 1
        before = self._peers.pop(peer.node_id, None)
        self._peers[peer.node_id] = RefusedPeer(peer, refused, before.count + 1 if before else 1)
        if len(self._peers) > MAX_PEERS:
            del self._peers[next(iter(self._peers))]

    @property
    def peers(self) -> list[RefusedPeer]:
        """Who was refused last comes first; at most `MAX_PEERS`."""
        return list(reversed(self._peers.values()))
