"""Devices as a person sees them: who has which, found by words, in pages.

All of it is made from what LocalAPI's `status` and `whois` say; nothing is asked here.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from json import dumps
from typing import Any

from cctailscale.errors import BadName, plain
from cctailscale.results import fitting
from cctailscale.tailnet.models import Peer, Status, User, WhoIs
from cctailscale.tailnet.results import DeviceRow, Devices, Identity, Owner

# A policy may grant anything; beyond this only the names of what it grants are shown.
MAX_CAPABILITY_CHARS = 4000
MAX_CAPABILITIES = 50
# Of one device in a list. A subnet router with more is one for which people use tailscale_whois.
MAX_ROUTES = 10
MAX_TAGS = 20
# Of a list in a result: 8,000 tokens of four characters. Claude Code warns at 10,000.
MAX_LIST_CHARS = 32_000
MAX_PORT = 65535
# What an exit node offers.
EVERYTHING = ("0.0.0.0/0", "::/0")

AWAY = "Control does not answer: this is what the node knew when it last did, and may have changed since."
# The form of a cursor: 0 for this node and 1 for all others, name, stable id.
CURSOR_PATTERN = r"^[01] [^ ]* [^ ]*$"


def page(status: Status, words: str, online_only: bool, limit: int, cursor: str | None) -> Devices:
    """The devices that match `words`, at most `limit` of them, after those of the page that ended with `cursor`.

    There are fewer if the page would become too long for its reader.
    Each word has to be in a device's name, addresses, OS, owner, tags or routes, in upper or lower case.
    """
    wanted = _matcher(words)
    found: list[tuple[str, Peer]] = []
    online = total = 0
    for peer in everybody(status):
        if (online_only and not peer.online) or not wanted(peer, status.users.get(peer.user_id)):
            continue
        total += 1
        online += peer.online
        found.append((_key(peer, status), peer))
    found.sort(key=lambda pair: pair[0])
    rest = [pair for pair in found if cursor is None or pair[0] > cursor]
    rows = fitting(
        (_row(peer, status) for _, peer in rest[:limit]), lambda row: len(row.model_dump_json()), MAX_LIST_CHARS
    )
    return Devices(
        total=total,
        online=online,
        devices=rows,
        cursor=rest[len(rows) - 1][0] if len(rest) > len(rows) else None,
        notice=away(status),
    )


def everybody(status: Status) -> Iterable[Peer]:
    """This node and its peers, without those that are here only because somebody shared a device with them."""
    if status.me is not None:
        yield status.me
    yield from (peer for peer in status.peers.values() if not peer.sharee_node)


def away(status: Status) -> str | None:
    """What to say when control does not answer; None while it does."""
    return None if status.me is not None and status.me.online else AWAY


def path_of(peer: Peer) -> str | None:
    """How packets go to a peer; None where nothing has gone lately."""
    if peer.cur_addr:
        return f"direct {peer.cur_addr}"
    if peer.peer_relay:
        return f"peer relay {peer.peer_relay}"
    return f"DERP {peer.relay}" if peer.active and peer.relay else None


def identity(who: WhoIs, status: Status) -> Identity:
    """`who`, of the tailnet that `status` (it needs no peers) is of."""
    node, user = who.node, who.user_profile
    mine = status.me is not None and node.stable_id == status.me.id
    return Identity(
        name=plain(node.name),
        stable_id=node.stable_id,
        addresses=node.ips,
        os=plain(node.hostinfo.os) or None,
        owner=None if node.tags else Owner(login=plain(user.login_name), display_name=plain(user.display_name)),
        tags=node.tags,
        capabilities=_shown_capabilities(who.capabilities),
        online=node.online,
        last_seen=None if node.online else node.last_seen,
        key_expiry=node.key_expiry,
        expired=node.expired or None,
        this_node=mine or None,
        notice=away(status),
    )


def split_port(text: str) -> str:
    """The host of "host", "host:port", "[IPv6]" or "[IPv6]:port". Raises BadName for a port that is none."""
    bracket = text.rfind("]")
    if text.startswith("[") and bracket > 0:
        host, colon, port = text[1:bracket], text[bracket + 1 : bracket + 2], text[bracket + 2 :]
        sound = (not colon and not port) or (colon == ":" and _is_port(port))
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        sound = _is_port(port)
    else:
        host, sound = text, True
    if not sound:
        raise BadName(text, f"has a port that is no number from 1 to {MAX_PORT}")
    return host


def with_port(host: str, port: int) -> str:
    """ "host:port" as a URL has it: an IPv6 address stands in brackets."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def router_of(status: Status, address: str) -> str:
    """The name of the subnet router that has `address` behind it, or ""."""
    ip = ip_address(address)
    routers = [
        (network.prefixlen, peer.name)
        for peer in status.peers.values()
        for network in map(ip_network, _routes(peer))
        if ip.version == network.version and ip in network
    ]
    return max(routers)[1] if routers else ""


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= MAX_PORT


def _key(peer: Peer, status: Status) -> str:
    """What devices are sorted by, which is the cursor too: a page goes on right even if devices came or went."""
    return f"{0 if peer is status.me else 1} {_label(peer)} {peer.id}"


def _label(peer: Peer) -> str:
    return plain(peer.name or peer.host_name).replace(" ", "_")


def _row(peer: Peer, status: Status) -> DeviceRow:
    user = None if peer.tags else status.users.get(peer.user_id)
    return DeviceRow(
        name=_label(peer),
        addresses=peer.tailscale_ips,
        os=plain(peer.os) or None,
        owner=plain(user.login_name) if user else None,
        tags=peer.tags[:MAX_TAGS],
        online=peer.online,
        last_seen=None if peer.online else peer.last_seen,
        path=path_of(peer),
        exit_node=peer.exit_node_option or None,
        routes=_routes(peer)[:MAX_ROUTES],
        expired=peer.expired or None,
        this_node=True if peer is status.me else None,
    )


def _routes(peer: Peer) -> list[str]:
    """The subnets that a peer has been given beside its own addresses; an exit node's "everything" is not one."""
    own = {f"{address}/{128 if ':' in address else 32}" for address in peer.tailscale_ips}
    return [route for route in peer.allowed_ips if route not in own and route not in EVERYTHING]


def _matcher(words: str) -> Callable[[Peer, User | None], bool]:
    wanted = [word.removesuffix(".") or word for word in words.casefold().split()]

    def matches(peer: Peer, user: User | None) -> bool:
        if not wanted:
            return True
        owner = [user.login_name, user.display_name] if user and not peer.tags else []
        facts = [peer.name, peer.host_name, peer.os, *peer.tailscale_ips, *peer.tags, *owner, *_routes(peer)]
        text = "\n".join(facts).casefold()
        return all(word in text for word in wanted)

    return matches


def _shown_capabilities(capabilities: dict[str, list[Any] | None]) -> dict[str, Any] | None:
    if not capabilities:
        return None
    shown: dict[str, Any] = {
        plain(name): values or [] for name, values in list(capabilities.items())[:MAX_CAPABILITIES]
    }
    if len(dumps(shown)) <= MAX_CAPABILITY_CHARS:
        return shown
    return dict.fromkeys(shown, "granted; its values are too long to show")
