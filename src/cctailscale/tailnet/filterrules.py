"""This node's packet filter: in words, and as a decision about one packet.

What a rule means is read from tailscale.com's wgengine/filter (tailcfg.go and match.go): a packet passes if any rule
has its source, its protocol, and its target with the port. For ICMP the protocol and the port do not count: whoever
may send anything may ping.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from cctailscale.errors import plain
from cctailscale.tailnet.models import FilterRule, FilterTarget, Peer, Ports, Status
from cctailscale.tailnet.results import Protocol

Address = IPv4Address | IPv6Address

NUMBERS: dict[Protocol, tuple[int, ...]] = {"tcp": (6,), "udp": (17,), "icmp": (1, 58)}
NAMES = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
# What a rule without protocols lets pass.
DEFAULT = (6, 17, 1, 58)
LAST_PORT = 65535
# Of one rule in words: a rule for a whole company has thousands of sources.
MAX_SOURCES = 12
MAX_TARGETS = 12


@dataclass(frozen=True)
class Source:
    """Where a packet comes from: an address, and the capabilities of its device."""

    address: Address
    capabilities: frozenset[str] = frozenset()


class AddressSet:
    """The addresses that texts of the packet filter stand for together. A text of another form stands for none."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._single: set[Address] = set()  # of thousands of sources, nearly all are of this kind
        self._wide: list[tuple[int, int, int]] = []  # version, first, last
        self._all = False
        for text in texts:
            try:
                self._add(text)
            except ValueError:
                continue

    def _add(self, text: str) -> None:
        if text == "*":
            self._all = True
            return
        first, dash, last = text.partition("-")
        if dash:
            low, high = ip_address(first), ip_address(last)
        else:
            network = ip_network(text, strict=False)
            low, high = network[0], network[-1]
        if low == high:
            self._single.add(low)
        else:
            self._wide.append((low.version, int(low), int(high)))

    def __contains__(self, address: Address) -> bool:
        return (
            self._all
            or address in self._single
            or any(version == address.version and low <= int(address) <= high for version, low, high in self._wide)
        )


class _Rule:
    """One rule, ready for decisions."""

    def __init__(self, rule: FilterRule) -> None:
        self.said = rule
        self.capabilities = {source.removeprefix("cap:") for source in rule.sources if source.startswith("cap:")}
        self.sources = AddressSet(source for source in rule.sources if not source.startswith("cap:"))
        self.targets = [(AddressSet([target.ip]), target.ports) for target in rule.targets]
        self.protocols = rule.protocols or DEFAULT

    def is_from(self, source: Source) -> bool:
        return source.address in self.sources or not self.capabilities.isdisjoint(source.capabilities)

    def passes(self, source: Source, own: Address, port: int, protocol: Protocol) -> bool:
        ports = [ports for addresses, ports in self.targets if own in addresses]
        if not ports or not self.is_from(source):
            return False
        if protocol == "icmp":
            return True
        return any(number in self.protocols for number in NUMBERS[protocol]) and any(_within(port, p) for p in ports)


class PacketFilter:
    """The rules of the node that `status` (with peers, whose names the words use) is of."""

    def __init__(self, rules: Sequence[FilterRule], status: Status) -> None:
        self._rules = [_Rule(rule) for rule in rules]
        self._own = [ip_address(address) for address in status.tailscale_ips]
        self._names = _names(status)

    @property
    def count(self) -> int:
        """How many rules there are."""
        return len(self._rules)

    def deciding(self, source: Source, port: int, protocol: Protocol) -> int | None:
        """The number (from 0) of the first rule by which a packet to this node passes; None if it is dropped."""
        own = next((address for address in self._own if address.version == source.address.version), None)
        if own is None:
            return None
        passing = (number for number, rule in enumerate(self._rules) if rule.passes(source, own, port, protocol))
        return next(passing, None)

    def concerning(self, sources: Sequence[Source], port: int | None) -> list[int]:
        """The numbers of the rules that are about one of `sources` (if any are given) and `port` (if it is given)."""
        return [
            number
            for number, rule in enumerate(self._rules)
            if (not sources or any(rule.is_from(source) for source in sources))
            and (port is None or any(_within(port, ports) for _, ports in rule.targets))
        ]

    def in_words(self, number: int) -> str:
        """A rule as a sentence, with the number (from 1) that a reader knows it by."""
        rule = self._rules[number].said
        sources = ["*"] if "*" in rule.sources else rule.sources
        who = _listed(_unique(self._source_in_words(source) for source in sources), MAX_SOURCES)
        if rule.grants:
            names = sorted({plain(name) for grant in rule.grants for name in (*grant.names, *grant.old_names)})
            what = f"has here the app capabilities {_listed(names, MAX_TARGETS)}"
        elif not rule.targets:
            what = "may reach nothing"
        else:
            what = f"may reach {_protocols(rule)}{_listed(self._targets(rule.targets), MAX_TARGETS)}"
        return f"{number + 1}. {who or 'Nobody'} {what}."

    def _source_in_words(self, source: str) -> str:
        if source == "*":
            return "Anyone"
        if source.startswith("cap:"):
            return f"devices with the capability {plain(source.removeprefix('cap:'))}"
        return self._names.get(_bare(source), plain(source))

    def _targets(self, targets: Iterable[FilterTarget]) -> list[str]:
        return _unique(f"{_ports(target.ports)} of {self._target_in_words(target.ip)}" for target in targets)

    def _target_in_words(self, target: str) -> str:
        addresses = AddressSet([target])
        if any(own in addresses for own in self._own):
            return "this node"
        return self._names.get(_bare(target), plain(target))


def _within(port: int, ports: Ports) -> bool:
    return ports.first <= port <= ports.last


def _names(status: Status) -> dict[str, str]:
    """Each address that a device has, with what people call the device."""
    peers: list[Peer] = [*status.peers.values(), *([status.me] if status.me else [])]
    shorts = [(plain(peer.name.partition(".")[0] or peer.host_name), peer) for peer in peers]
    return {address: short for short, peer in shorts for address in peer.tailscale_ips}


def _bare(text: str) -> str:
    """An address without the prefix length that says that it is just one."""
    return text.removesuffix("/128") if ":" in text else text.removesuffix("/32")


def _ports(ports: Ports) -> str:
    if ports.first == 0 and ports.last == LAST_PORT:
        return "any port"
    return f"port {ports.first}" if ports.first == ports.last else f"ports {ports.first}-{ports.last}"


def _protocols(rule: FilterRule) -> str:
    """The protocols where they are fewer than what is usual."""
    if not rule.protocols or set(DEFAULT) <= set(rule.protocols):
        return ""
    numbers = [number for number in rule.protocols if 0 <= number <= 255]  # others are Tailscale's own
    return f"{_listed([NAMES.get(number, f'IP protocol {number}') for number in numbers], MAX_TARGETS)} "


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _listed(texts: Sequence[str], limit: int) -> str:
    """ "a", "a and b", "a, b and c", "a, b and 7 more"."""
    shown = list(texts[:limit])
    if len(texts) > limit:
        shown.append(f"{len(texts) - limit} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), "".join(shown[-1:]))))
