"""What LocalAPI answers, as types. Only what the tools use is named; the rest is dropped while parsing.

Sources: ipnstate.Status, PeerStatus and PingResult, ipn.Notify, apitype.WhoIsResponse and DNSQueryResponse,
tailcfg.Node and FilterRule, all of tailscale.com.
Go leaves out empty values and writes null for an empty slice or map; both read as empty here.
"""

from base64 import b64decode
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_pascal


def _empty_list(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    return [] if value is None else value


def _empty_dict(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    return {} if value is None else value


def _no_zero_time(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    """Go's zero time stands for "never"."""
    return None if isinstance(value, str) and value.startswith("0001-01-01T00:00:00") else value


def _keys(value: Any) -> Any:  # noqa: ANN401 - what JSON holds
    """The keys of a map whose values nobody here asks for."""
    return list(value) if isinstance(value, dict) else _empty_list(value)


Strings = Annotated[list[str], BeforeValidator(_empty_list)]
Keys = Annotated[list[str], BeforeValidator(_keys)]
Time = Annotated[datetime | None, BeforeValidator(_no_zero_time)]


class _Answer(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_pascal,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        defer_build=True,  # the first answer comes long after the server has to be ready
    )


class IPNState(IntEnum):
    """ipn.State. The bus sends the number, `status` the name."""

    NoState = 0
    InUseOtherUser = 1
    NeedsLogin = 2
    NeedsMachineAuth = 3
    Stopped = 4
    Starting = 5
    Running = 6


class Peer(_Answer):
    """One device as this node's netmap has it (ipnstate.PeerStatus)."""

    id: str = Field(default="", alias="ID")
    public_key: str = ""
    host_name: str = ""
    dns_name: str = Field(default="", alias="DNSName")
    os: str = Field(default="", alias="OS")
    user_id: int = Field(default=0, alias="UserID")
    tailscale_ips: Strings = Field(default=[], alias="TailscaleIPs")
    tags: Strings = []
    online: bool = False
    last_seen: Time = None
    key_expiry: Time = None
    expired: bool = False
    allowed_ips: Strings = Field(default=[], alias="AllowedIPs")
    cur_addr: str = ""  # "ip:port" of a direct path in use
    relay: str = ""  # code of the DERP region where it is at home
    peer_relay: str = ""  # "ip:port:vni" of a peer relay in use
    active: bool = False  # something was sent to it in the last minutes
    exit_node_option: bool = False
    sharee_node: bool = False  # only here because somebody shared a device with its owner
    capabilities: Keys = Field(default=[], alias="CapMap")

    @property
    def name(self) -> str:
        """The MagicDNS name without its final dot."""
        return self.dns_name.rstrip(".")


class User(_Answer):
    """tailcfg.UserProfile."""

    id: int = Field(default=0, alias="ID")
    login_name: str = ""
    display_name: str = ""


class TailnetInfo(_Answer):
    """ipnstate.TailnetStatus."""

    name: str = ""
    magic_dns_suffix: str = Field(default="", alias="MagicDNSSuffix")
    magic_dns_enabled: bool = Field(default=False, alias="MagicDNSEnabled")


class Status(_Answer):
    """LocalAPI `status` (ipnstate.Status)."""

    version: str = ""
    backend_state: str = ""
    auth_url: str = Field(default="", alias="AuthURL")
    tailscale_ips: Strings = Field(default=[], alias="TailscaleIPs")
    me: Peer | None = Field(default=None, alias="Self")
    health: Strings = []
    current_tailnet: TailnetInfo | None = None
    cert_domains: Strings = []  # names for which this node may have certificates
    peers: Annotated[dict[str, Peer], BeforeValidator(_empty_dict)] = Field(default={}, alias="Peer")
    users: Annotated[dict[int, User], BeforeValidator(_empty_dict)] = Field(default={}, alias="User")


class Warning_(_Answer):  # noqa: N801 - Warning is Python's
    """health.UnhealthyState: something that the node finds wrong with itself."""

    code: str = Field(default="", alias="WarnableCode")
    title: str = ""
    text: str = ""
    severity: str = ""


class Health(_Answer):
    """health.State: the warnings that hold now, by code."""

    warnings: Annotated[dict[str, Warning_], BeforeValidator(_empty_dict)] = {}


class Notify(_Answer):
    """One message of LocalAPI `watch-ipn-bus` (ipn.Notify). What is None has not changed."""

    state: IPNState | None = None
    browse_to_url: str | None = Field(default=None, alias="BrowseToURL")
    err_message: str | None = None
    login_finished: dict[str, Any] | None = None
    health: Health | None = None


class Lock(_Answer):
    """LocalAPI `tka/status` (ipnstate.TailnetLockStatus)."""

    enabled: bool = False
    node_key: str | None = None
    node_key_signed: bool = False

    @property
    def locks_us_out(self) -> bool:
        return self.enabled and not self.node_key_signed


class Hostinfo(_Answer):
    """tailcfg.Hostinfo: what a device says about itself."""

    os: str = Field(default="", alias="OS")
    hostname: str = ""


class KnownNode(_Answer):
    """tailcfg.Node, as `whois` has it. `online` is None where control did not say."""

    stable_id: str = Field(default="", alias="StableID")
    full_name: str = Field(default="", alias="Name")
    addresses: Strings = []  # prefixes: "100.64.0.1/32"
    tags: Strings = []
    hostinfo: Hostinfo = Hostinfo()
    online: bool | None = None
    last_seen: Time = None
    key_expiry: Time = None
    expired: bool = False

    @property
    def name(self) -> str:
        """The MagicDNS name without its final dot."""
        return self.full_name.rstrip(".")

    @property
    def ips(self) -> list[str]:
        """Its addresses without the lengths of their prefixes."""
        return [address.partition("/")[0] for address in self.addresses]


class WhoIs(_Answer):
    """LocalAPI `whois` (apitype.WhoIsResponse). `capabilities` are the app capabilities that the policy grants it."""

    node: KnownNode
    user_profile: User = User()
    capabilities: Annotated[dict[str, list[Any] | None], BeforeValidator(_empty_dict)] = Field(
        default={}, alias="CapMap"
    )


class PingReply(_Answer):
    """LocalAPI `ping` (ipnstate.PingResult). Which path it took is not known for every kind of ping."""

    node_ip: str = Field(default="", alias="NodeIP")
    node_name: str = ""
    error: str = Field(default="", alias="Err")
    latency_seconds: float = 0
    endpoint: str = ""
    peer_relay: str = ""
    derp_region_code: str = Field(default="", alias="DERPRegionCode")
    is_local_ip: bool = Field(default=False, alias="IsLocalIP")


class Ports(_Answer):
    """tailcfg.PortRange, both ends included."""

    first: int
    last: int


class FilterTarget(_Answer):
    """tailcfg.NetPortRange. `ip` is an address, a CIDR, "first-last" or "*"."""

    ip: str = Field(alias="IP")
    ports: Ports


class CapGrant(_Answer):
    """tailcfg.CapGrant: app capabilities on some of this node's addresses."""

    targets: Strings = Field(default=[], alias="Dsts")
    old_names: Strings = Field(default=[], alias="Caps")
    names: Keys = Field(default=[], alias="CapMap")


class FilterRule(_Answer):
    """tailcfg.FilterRule: who may send what to this node. A rule has targets or grants, never both.

    A source is an address, a CIDR, "first-last", "*", or "cap:NAME" for devices with that capability. No protocol
    means TCP, UDP and ICMP.
    """

    sources: Strings = Field(default=[], alias="SrcIPs")
    targets: Annotated[list[FilterTarget], BeforeValidator(_empty_list)] = Field(default=[], alias="DstPorts")
    protocols: Annotated[list[int], BeforeValidator(_empty_list)] = Field(default=[], alias="IPProto")
    grants: Annotated[list[CapGrant], BeforeValidator(_empty_list)] = Field(default=[], alias="CapGrant")


class NetMap(_Answer):
    """netmap.NetworkMap, of which only the packet filter is read."""

    packet_filter_rules: Annotated[list[FilterRule], BeforeValidator(_empty_list)] = []


class FirstNotice(_Answer):
    """The first message of LocalAPI `watch-ipn-bus` for who asked for the network map."""

    net_map: NetMap | None = None


class Region(BaseModel):
    """One DERP region as `tailscale_netcheck` reports it; no latency: it did not answer."""

    id: int
    code: str
    name: str
    latency_ms: float | None


class NetReport(BaseModel):
    """The document of `tailscale_netcheck`; tailscale.h describes it. None is what could not be found out."""

    udp: bool
    ipv4: bool
    ipv6: bool
    ipv6_on_host: bool
    mapped_ipv4: str
    mapped_ipv6: str
    mapped_is_own: bool
    mapping_varies: bool | None
    upnp: bool | None
    nat_pmp: bool | None
    pcp: bool | None
    captive_portal: bool | None
    preferred_region: int
    regions: list[Region]


class DNSAnswer(_Answer):
    """LocalAPI `dns-query` (apitype.DNSQueryResponse): a DNS message (RFC 1035) and who would be asked."""

    message: bytes = Field(default=b"", alias="Bytes")
    resolvers: Annotated[list[dict[str, Any]], BeforeValidator(_empty_list)] = []

    @classmethod
    def from_json(cls, text: bytes) -> "DNSAnswer":
        answer = cls.model_validate_json(text)
        return answer.model_copy(update={"message": b64decode(answer.message)})


def build() -> None:
    """Makes the parsers of what a join is answered: while nobody waits, instead of with the first answer."""
    for model in (Notify, Status, Lock):
        model.model_rebuild()
