"""What LocalAPI answers, as types. Only what the tools use is named; the rest is dropped while parsing.

Sources: ipnstate.Status and PeerStatus, ipn.Notify, apitype.WhoIsResponse and DNSQueryResponse, all of tailscale.com.
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


Strings = Annotated[list[str], BeforeValidator(_empty_list)]
Time = Annotated[datetime | None, BeforeValidator(_no_zero_time)]


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, extra="ignore", frozen=True)


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


class DNSAnswer(_Answer):
    """LocalAPI `dns-query` (apitype.DNSQueryResponse): a DNS message (RFC 1035) and who would be asked."""

    message: bytes = Field(default=b"", alias="Bytes")
    resolvers: Annotated[list[dict[str, Any]], BeforeValidator(_empty_list)] = []

    @classmethod
    def from_json(cls, text: bytes) -> "DNSAnswer":
        answer = cls.model_validate_json(text)
        return answer.model_copy(update={"message": b64decode(answer.message)})
