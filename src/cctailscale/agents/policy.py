"""Who may talk to this agent: one decision, in one place, closed unless a rule opens it.

Everything here is made from what WhoIs says about the connection. Nothing that a peer says about itself gets in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cctailscale.agents.wire import CAPABILITY
from cctailscale.errors import plain
from cctailscale.naming import folded
from cctailscale.tailnet.models import WhoIs

Action = Literal["message", "team"]

EVERYBODY = "*"
# The user whom WhoIs gives for every device that has tags, in every tailnet.
_NOBODY = "tagged-devices"
# Of a name, a login or tags in a refusal, which has to fit into wire.Refusal.
_MAX_SHOWN_CHARS = 150


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is at the other end (or at ours), as WhoIs has it.

    `node_id` is the stable id, `name` the full MagicDNS name without its final dot. A device with tags has no `login`:
    it acts for nobody. `capabilities` are the app capabilities that the tailnet's policy grants it on this node.
    """

    node_id: str
    name: str
    login: str | None = None
    tags: tuple[str, ...] = ()
    capabilities: Mapping[str, list[Any]] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """Whose it is, to be shown: its tags, or its owner's login; "" for neither."""
        return ", ".join(self.tags) if self.tags else self.login or ""

    def audited(self, address: str) -> dict[str, str]:
        """Who it is, for the audit log. `address` is the "ip:port" that it connected from."""
        return {"name": plain(self.name), "node_id": self.node_id, "owner": plain(self.owner), "address": address}


@dataclass(frozen=True, slots=True)
class Refused:
    """Why not, and what to add so that it would be allowed: two sentences that the peer may see, and that fit 403's."""

    reason: str
    to_add: str

    def __str__(self) -> str:
        return f"{self.reason} {self.to_add}"


def principal(who: WhoIs | None, address: str = "") -> Principal:
    """The principal that a WhoIs answer is about; where there is none, one without an identity, called by `address`."""
    if who is None:
        return Principal("", address)
    node, login = who.node, who.user_profile.login_name
    nobody = bool(node.tags) or folded(login) in ("", folded(_NOBODY))
    return Principal(
        node_id=node.stable_id,
        name=node.name,
        login=None if nobody else login,
        tags=tuple(node.tags),
        capabilities={name: values or [] for name, values in who.capabilities.items()},
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """`allow_from` is TS_ALLOW_FROM: logins, tags, names of devices (short or full), or `*`."""

    allow_from: tuple[str, ...] = ()

    def decide(self, me: Principal, peer: Principal, action: Action) -> Refused | None:
        """None if `peer` may do `action` here, where `me` is this node; else why not."""
        allowed = peer.node_id and (
            _same_owner(me, peer)
            or _shared_tag(me, peer)
            or any(_names(entry, me, peer) for entry in self.allow_from)
            or _granted(peer, action)
        )
        return None if allowed else _refused(peer, action)


def _same_owner(me: Principal, peer: Principal) -> bool:
    if me.tags or peer.tags or not me.login or not peer.login:
        return False
    return folded(me.login) == folded(peer.login)


def _shared_tag(me: Principal, peer: Principal) -> bool:
    return _same_tailnet(me, peer) and not set(me.tags).isdisjoint(peer.tags)


def _names(entry: str, me: Principal, peer: Principal) -> bool:
    """Whether an entry of TS_ALLOW_FROM is about this peer."""
    if entry == EVERYBODY:
        return True
    if entry.startswith("tag:"):
        return _same_tailnet(me, peer) and entry in peer.tags
    if "@" in entry:
        return _is_login(entry, peer)
    if "." in entry:
        return folded(entry) == folded(peer.name)
    # A short name means a device of this tailnet: one of another's, shared with us, may have the same first label.
    return _same_tailnet(me, peer) and folded(entry) == folded(peer.name).partition(".")[0]


def _is_login(entry: str, peer: Principal) -> bool:
    """A Headscale's user without a domain, "bob", is written "bob@", as in its own policy: "bob" is a device."""
    if peer.tags or not peer.login:
        return False
    return folded(entry.removesuffix("@")) == folded(peer.login.removesuffix("@"))


def _granted(peer: Principal, action: Action) -> bool:
    """Whether a value of the app capability allows the action. What is not of its form grants nothing."""
    for value in peer.capabilities.get(CAPABILITY, []):
        allow = value.get("allow") if isinstance(value, dict) else None
        if isinstance(allow, list) and action in allow:
            return True
    return False


def _same_tailnet(me: Principal, peer: Principal) -> bool:
    """Tags mean something in the tailnet that gave them only; its devices have its suffix in their names."""
    if not me.name or not peer.name:
        return False
    return folded(me.name).partition(".")[2] == folded(peer.name).partition(".")[2]


def _refused(peer: Principal, action: Action) -> Refused:
    what = "send messages to this agent" if action == "message" else "take part in this agent's team"
    grant = f'{CAPABILITY} with [{{"allow": ["{action}"]}}]'
    name = plain(peer.name, _MAX_SHOWN_CHARS) or "A device without a name"
    if not peer.node_id:
        return Refused(
            f"{name} may not {what}: it could not be identified.", "Its connection has to be on the tailnet."
        )
    if peer.tags:
        who, entry = f"{name} ({', '.join(peer.tags)})", peer.tags[0]
    elif peer.login:
        who, entry = f"{name} of {peer.login}", peer.login if "@" in peer.login else f"{peer.login}@"
    else:
        who, entry = name, peer.name
    return Refused(
        f"{plain(who, 2 * _MAX_SHOWN_CHARS)} may not {what}: the two have neither an owner nor a tag in common.",
        f"Its user can set TS_ALLOW_FROM={plain(entry, _MAX_SHOWN_CHARS)}, or the tailnet's policy can grant {grant}.",
    )
