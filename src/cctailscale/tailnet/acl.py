"""The question whether somebody may reach a port of this node, put to its packet filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from cctailscale.errors import plain
from cctailscale.results import fitting
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.filterrules import PacketFilter, Source
from cctailscale.tailnet.models import Peer, Status
from cctailscale.tailnet.peers import MAX_LIST_CHARS, away, everybody
from cctailscale.tailnet.results import AclCheck, Protocol

# A policy can have thousands of rules; with a source or a port there are few that matter.
MAX_RULES = 50
MAX_NAMED = 10
THE_OTHER_END = (
    "These rules are about who may reach this node. What this node may reach is decided by the rules at the other end: "
    "tailscale_connect_test finds that out."
)


@dataclass(frozen=True)
class Asker:
    """One device, or one address, from which something would come."""

    name: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Verdict:
    """What the filter says to one asker: the rule by which it passes and the versions of IP over which it does."""

    asker: Asker
    rule: int | None
    versions: tuple[int, ...]

    @property
    def where(self) -> str:
        """Over what it passes, if not over everything that the asker has."""
        all_versions = {source.address.version for source in self.asker.sources}
        return "" if all_versions == set(self.versions) else f" (over IPv{self.versions[0]} only)"


async def check(device: Device, source: str | None, port: int | None, protocol: Protocol) -> AclCheck:
    """What the filter says about `source` (a name, an address or a tag) and `port`; either may be left out.

    Raises BadName, NoSuchName, LocalApiError.
    """
    status = await device.api.shared_status()
    rules = PacketFilter(await device.api.filter_rules(), status)
    askers = [] if source is None else await _askers(device, source, status)
    sources = [one for asker in askers for one in asker.sources]
    numbers = rules.concerning(sources, None if protocol == "icmp" else port)
    allowed: bool | None = None
    if source is not None and not askers:
        numbers, said = [], f"No device that this node knows has {plain(source)}."
    elif source is not None and (port is not None or protocol == "icmp"):
        verdicts = [_verdict(rules, asker, port or 0, protocol) for asker in askers]
        allowed = all(verdict.rule is not None for verdict in verdicts)
        said = _decided(verdicts, "ICMP to" if protocol == "icmp" else f"{protocol.upper()} port {port} of")
    else:
        about = " for that" if source is not None or port is not None else ""
        said = f"These are the rules{about}. With both source and port, this tool decides whether it is allowed."
    sentences = fitting((rules.in_words(number) for number in numbers[:MAX_RULES]), len, MAX_LIST_CHARS)
    if len(sentences) < len(numbers):
        said = f"{said} {len(numbers) - len(sentences)} more rules are about it than are shown."
    return AclCheck(
        allowed=allowed,
        explanation=f"{said} {THE_OTHER_END}",
        rules=sentences,
        rules_total=rules.count,
        notice=away(status),
    )


async def _askers(device: Device, source: str, status: Status) -> list[Asker]:
    if source.startswith("tag:"):
        return [_asker(peer) for peer in everybody(status) if source in peer.tags]
    addresses = [str(address) for address in await device.dialer.resolve(source)]
    for peer in everybody(status):
        if addresses[0] in peer.tailscale_ips:
            return [_asker(peer, addresses)]
    return [Asker(plain(source), tuple(Source(ip_address(address)) for address in addresses))]


def _asker(peer: Peer, addresses: list[str] | None = None) -> Asker:
    capabilities = frozenset(peer.capabilities)
    name = plain(peer.name.partition(".")[0] or peer.host_name)
    return Asker(name, tuple(Source(ip_address(ip), capabilities) for ip in addresses or peer.tailscale_ips))


def _verdict(rules: PacketFilter, asker: Asker, port: int, protocol: Protocol) -> Verdict:
    passing = [(source, rules.deciding(source, port, protocol)) for source in asker.sources]
    found = [(source.address.version, rule) for source, rule in passing if rule is not None]
    return Verdict(asker, found[0][1] if found else None, tuple(version for version, _ in found))


def _decided(verdicts: Sequence[Verdict], what: str) -> str:
    allowed = [f"{verdict.asker.name}{verdict.where}" for verdict in verdicts if verdict.rule is not None]
    denied = [verdict.asker.name for verdict in verdicts if verdict.rule is None]
    used = sorted({verdict.rule + 1 for verdict in verdicts if verdict.rule is not None})
    by = f"by rule {', '.join(map(str, used))}"
    if not denied:
        return f"{_some(allowed)} may reach {what} this node, {by}; whether anything listens there is another question."
    dropped = "it is dropped in silence, which looks like a time-out"
    if not allowed:
        return f"No rule lets {_some(denied)} reach {what} this node: {dropped}."
    return f"Not all may reach {what} this node: {_some(allowed)} may, {by}; not {_some(denied)}: {dropped}."


def _some(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
