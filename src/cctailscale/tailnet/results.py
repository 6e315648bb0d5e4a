"""What the diagnosing tools answer, as types. The descriptions are what Claude reads of a result.

Durations end in `_ms`, times are RFC 3339. These types stand apart from what fills them, so that the server can
declare its tools without loading anything heavy.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from cctailscale.results import Compact

PingType = Literal["disco", "tsmp", "icmp", "peerapi"]
RecordType = Literal["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT"]
Protocol = Literal["tcp", "udp", "icmp"]
Reason = Literal[
    "refused", "timed out", "no path", "no such name", "no answer from DNS", "not on the tailnet", "this node itself"
]


class Noticed(Compact):
    """A result that rests on what control has told the node."""

    notice: str | None = Field(default=None, description="present while control does not answer")


class DeviceRow(Compact):
    """One device of the tailnet. What is absent is empty or not known."""

    name: str = Field(description="MagicDNS name")
    addresses: list[str]
    os: str | None = None
    owner: str | None = Field(default=None, description="login; a tagged device has tags instead")
    tags: list[str] = Field(default=[])
    online: bool
    last_seen: datetime | None = Field(default=None, description="absent while it is online")
    path: str | None = Field(default=None, description="direct, DERP or peer relay; absent without recent traffic")
    exit_node: bool | None = Field(default=None, description="true if it offers itself as one")
    routes: list[str] = Field(default=[], description="subnets behind it")
    expired: bool | None = Field(default=None, description="true if it has to log in again")
    this_node: bool | None = Field(default=None, description="true for the device that you run on")


class Devices(Noticed):
    """A page of devices, this node first, then by name."""

    total: int = Field(description="devices that match, on all pages")
    online: int = Field(description="how many of them are online")
    devices: list[DeviceRow]
    cursor: str | None = Field(description="give it to get the next page; null on the last one")


class Owner(BaseModel):
    """The person whose device it is."""

    login: str
    display_name: str


class Identity(Noticed):
    """Who has an address. What is absent is empty or not known."""

    name: str
    stable_id: str
    addresses: list[str]
    os: str | None = None
    owner: Owner | None = Field(default=None, description="absent for a tagged device")
    tags: list[str] = Field(default=[])
    capabilities: dict[str, Any] | None = Field(
        default=None, description="app capabilities that the policy grants it on this node: name -> values"
    )
    online: bool | None = None
    last_seen: datetime | None = Field(default=None, description="absent while it is online")
    key_expiry: datetime | None = None
    expired: bool | None = Field(default=None, description="true if it has to log in again")
    this_node: bool | None = Field(default=None, description="true for the device that you run on")


class Record(BaseModel):
    """One DNS record."""

    name: str
    type: str
    ttl_ms: int
    value: str = Field(description="as in a zone file: an MX is 'preference host', an SRV 'priority weight port host'")


class DnsLookup(Noticed):
    """What the tailnet's DNS says to one question."""

    name: str = Field(description="the full name that was asked for")
    type: str
    outcome: str = Field(description="found, no such name, no records of this type, or why there is no answer")
    records: list[Record]
    left_out: int | None = Field(default=None, description="how many more records there are than those shown")
    resolver: str = Field(description="who answered")
    peer: str | None = Field(default=None, description="the device of the tailnet that it leads to, if it is one")


class ConnectTest(Noticed):
    """Whether a TCP port takes connections from this node."""

    host: str
    port: int
    reachable: bool
    reason: Reason | None = Field(default=None, description="why it is not reachable")
    explanation: str | None = Field(default=None, description="what that means and what to do")
    address: str | None = Field(default=None, description="the address that was tried")
    connect_ms: float | None = None
    path: str | None = Field(default=None, description="direct, DERP or peer relay, with its endpoint or region")


class PingRow(Compact):
    """One ping. Without a latency it was lost, or `error` says why it could not be sent."""

    number: int
    latency_ms: float | None = None
    path: str | None = Field(default=None, description="direct, DERP or peer relay, with its endpoint or region")
    error: str | None = None


class Pings(Noticed):
    """Some pings and what they come to."""

    host: str
    name: str | None = Field(description="the device that answers for it")
    address: str
    type: PingType
    replies: list[PingRow]
    sent: int = 0
    received: int = 0
    loss_percent: float = 0.0
    min_ms: float | None = None
    avg_ms: float | None = None
    max_ms: float | None = None
    became_direct: int | None = Field(
        default=None, description="the number of the ping from which on the path was direct, if it was not at first"
    )
    explanation: str | None = Field(default=None, description="what to make of lost pings")


class AclCheck(Noticed):
    """Who may reach which ports of this node."""

    allowed: bool | None = Field(description="null: no source and port were given, or there is no such source")
    explanation: str
    rules: list[str] = Field(description="the packet filter's rules that the question is about, in words")
    rules_total: int = Field(description="how many there are for this node")


class Latency(BaseModel):
    """One DERP region."""

    code: str
    name: str
    latency_ms: float | None = Field(description="null: no answer")


class NetCheck(Noticed):
    """What the network around this machine lets Tailscale do."""

    udp: bool = Field(description="UDP gets out and back; without it every path is relayed over TCP")
    ipv4: bool
    ipv6: bool
    ipv6_on_host: bool = Field(description="whether the machine has IPv6 at all")
    mapped_ipv4: str | None = Field(description="this machine as others see it")
    mapped_ipv6: str | None
    nat: str = Field(description="none, easy, hard or unknown, and what that means")
    port_mapping: list[str] | None = Field(description="what the router offers of UPnP, NAT-PMP, PCP; null: not known")
    captive_portal: bool | None
    preferred_derp: str | None = Field(description="code of the region that relayed traffic goes through")
    regions: list[Latency] = Field(description="the quickest first")


class Certificate(Noticed):
    """One certificate."""

    host: str
    served_by: str = Field(description="this node, or the name and port where it was read")
    subject: str
    names: list[str] = Field(description="subject alternative names: what it is good for")
    issuer: str
    not_before: datetime
    not_after: datetime
    days_left: int = Field(description="negative once it has expired")
    key_type: str
    trusted: bool | None = Field(default=None, description="whether this machine accepts it for that host")
    problem: str | None = Field(default=None, description="why it is not accepted")
    saved: list[str] = Field(default=[], description="the files that were written: certificate chain and private key")
