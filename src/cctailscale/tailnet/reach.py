"""Whether a peer can be reached, and how: one connection, or some pings."""

import time

import anyio

from cctailscale.call import dialled
from cctailscale.errors import (
    CcTailscaleError,
    ConnectionRefused,
    NoSuchName,
    NotOnTailnet,
    ResolverFailed,
    TimedOut,
    Unreachable,
    plain,
)
from cctailscale.tailnet.attempt import Report
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.dial import Address
from cctailscale.tailnet.models import PingReply, WhoIs
from cctailscale.tailnet.peers import away, with_port
from cctailscale.tailnet.results import ConnectTest, PingRow, Pings, PingType, Reason

# tailcfg.PingType: what LocalAPI calls them.
PING_TYPES: dict[PingType, str] = {"disco": "disco", "tsmp": "TSMP", "icmp": "ICMP", "peerapi": "peerapi"}
# Between two pings: long enough for a direct path to be found meanwhile, short enough for someone who waits.
PAUSE_SECONDS = 0.3
# For the one ping that tells the path of something else.
PATH_SECONDS = 2.0
# ipnstate.PingResult.Err of an address that is no peer's.
NO_PEER = "no matching peer"

REASONS: dict[type[CcTailscaleError], Reason] = {
    ConnectionRefused: "refused",
    TimedOut: "timed out",
    Unreachable: "no path",
    NoSuchName: "no such name",
    ResolverFailed: "no answer from DNS",
    NotOnTailnet: "not on the tailnet",
}


async def connect_test(device: Device, host: str, port: int, seconds: float) -> ConnectTest:
    """Opens one TCP connection and closes it. What keeps it from opening is the result, not an error.

    Raises BadName, LocalApiError, NodeClosed, NodeFailed.
    """
    status = await device.api.shared_status(peers=False)
    result = ConnectTest(host=plain(host), port=port, reachable=False, notice=away(status))
    try:
        with anyio.fail_after(seconds):
            error = await _connect(device, host, port, set(status.tailscale_ips), result)
    except TimeoutError:
        error = TimedOut(with_port(host, port), seconds, "connecting" if result.address else "looking the name up")
    except (NoSuchName, ResolverFailed, TimedOut) as failed:
        error = failed
    if result.address is not None and result.reason is None and not isinstance(error, NotOnTailnet):
        result.path = await path_to(device, result.address)
    if error is not None:
        result.reason = next(reason for kind, reason in REASONS.items() if isinstance(error, kind))
        result.explanation = _explained(error, result)
    return result


async def _connect(device: Device, host: str, port: int, own: set[str], result: ConnectTest) -> CcTailscaleError | None:
    """Tries the addresses of `host` in turn and notes in `result` what it finds; gives the first one's error."""
    first: CcTailscaleError | None = None
    for address in await device.dialer.resolve(host):
        result.address = result.address or str(address)
        if str(address) in own:
            result.reason = "this node itself"
            result.explanation = "That is the device that you run on. Test it from another device."
            return None
        began = time.perf_counter()
        try:
            sock = await device.dialer.connect(address, port)
        except (ConnectionRefused, Unreachable, NotOnTailnet) as failed:
            first = first or failed
            continue
        result.connect_ms = round((time.perf_counter() - began) * 1000, 2)
        result.reachable, result.address = True, str(address)
        sock.close()
        return None
    return first


def _explained(error: CcTailscaleError, result: ConnectTest) -> str:
    if not isinstance(error, TimedOut) or result.address is None:
        return str(error)
    if result.path is not None:
        return (
            f"{error.happened} The device itself answers pings ({result.path}), so it is there: the tailnet's access "
            "rules drop this port, or its own firewall does, both in silence. An admin can allow it in the policy."
        )
    return (
        f"{error.happened} It does not answer pings either: it is offline or asleep, or no path leads to it. "
        "tailscale_devices says when it was last seen."
    )


async def path_to(device: Device, address: Address | str) -> str | None:
    """How packets go to `address` now, by one ping; None if it does not answer."""
    reply = await device.api.ping(str(address), PING_TYPES["disco"], PATH_SECONDS)
    return None if reply is None or reply.error else path_in(reply)


def path_in(reply: PingReply) -> str | None:
    """The path that a reply came by; None for a kind of ping that does not tell."""
    if reply.endpoint:
        return f"direct {reply.endpoint}"
    if reply.peer_relay:
        return f"peer relay {reply.peer_relay}"
    return f"DERP {plain(reply.derp_region_code)}" if reply.derp_region_code else None


async def ping(device: Device, host: str, kind: PingType, count: int, seconds: float, report: Report) -> Pings:
    """Sends `count` pings, each with `seconds` for its reply, and tells `report` of each.

    Raises BadName, NoSuchName, NotOnTailnet, LocalApiError.
    """
    address = (await device.dialer.resolve(host))[0]
    dialled(str(address))
    who = await device.whois(str(address))
    notice = away(await device.api.shared_status(peers=False))
    name = plain(who.node.name) if who else None
    result = Pings(host=plain(host), name=name, address=str(address), type=kind, replies=[], notice=notice)
    for number in range(1, count + 1):
        reply = await device.api.ping(str(address), PING_TYPES[kind], seconds)
        if reply is not None and reply.is_local_ip:
            result.explanation = "That is the device that you run on; there is nothing to measure."
            return result
        if reply is not None and reply.error == NO_PEER:
            raise NotOnTailnet(str(address))
        row = await _row(device, number, address, reply)
        result.replies.append(row)
        result.name = result.name or (plain(reply.node_name) if reply and reply.node_name else None)
        await report(_told(result, row, count))
        if number < count:
            await anyio.sleep(PAUSE_SECONDS)
    summed(result)
    if result.received < result.sent:
        result.explanation = _lost(result, who)
    return result


async def _row(device: Device, number: int, address: Address, reply: PingReply | None) -> PingRow:
    if reply is None:
        return PingRow(number=number)
    if reply.error:
        return PingRow(number=number, error=plain(reply.error))
    path = path_in(reply) or await path_to(device, address)
    return PingRow(number=number, latency_ms=round(reply.latency_seconds * 1000, 3), path=path)


def _told(result: Pings, row: PingRow, count: int) -> str:
    who = result.name or result.address
    if row.latency_ms is None:
        return f"Ping {row.number} of {count} to {who}: {row.error or 'no reply'}"
    return f"Ping {row.number} of {count} to {who}: {row.latency_ms:g} ms, {row.path or 'path unknown'}"


def summed(result: Pings) -> None:
    """Fills in what the replies come to."""
    times = [row.latency_ms for row in result.replies if row.latency_ms is not None]
    result.sent, result.received = len(result.replies), len(times)
    result.loss_percent = round(100 * (1 - result.received / result.sent), 1) if result.sent else 0.0
    if times:
        result.min_ms, result.max_ms = min(times), max(times)
        result.avg_ms = round(sum(times) / len(times), 3)
    result.became_direct = became_direct(result.replies)


def became_direct(replies: list[PingRow]) -> int | None:
    """The number of the first reply that came directly, if an earlier one did not."""
    relayed = False
    for row in replies:
        if row.path is None:
            continue
        if row.path.startswith("direct "):
            return row.number if relayed else None
        relayed = True
    return None


def _lost(result: Pings, who: WhoIs | None) -> str:
    if result.received:
        return f"{result.sent - result.received} of {result.sent} pings were lost: the path is poor, or it has changed."
    if who is not None and who.node.online is False:
        seen = f"; control last saw it at {who.node.last_seen:%Y-%m-%d %H:%M} UTC" if who.node.last_seen else ""
        return f"The device is offline{seen}."
    if any(row.error for row in result.replies):
        return "This kind of ping cannot be used here; each reply says why. Try type disco."
    return "No ping was answered: the device is offline or asleep, or, for icmp and peerapi, the access rules drop it."
