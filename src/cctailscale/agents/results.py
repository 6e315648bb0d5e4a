"""What the messaging tools answer, as types that load nothing heavy. The descriptions are what Claude reads of them.

Texts of other agents (project, status, version, team) are their own words. Names, owners and tags are what control
vouches for.
"""

from datetime import datetime
from typing import Literal

from pydantic import Field

from cctailscale.results import Compact
from cctailscale.tailnet.results import Noticed

Outcome = Literal[
    "delivered",
    "no such device",
    "no such agent",
    "offline",
    "refused",
    "inbox full",
    "rate limited",
    "too large",
    "timed out",
    "failed",
]


class AgentRow(Compact):
    """One agent that answered just now, or this one."""

    name: str = Field(description="MagicDNS name, for `to`")
    address: str
    owner: str | None = Field(default=None, description="verified login; none where tagged")
    tags: list[str] = Field(default=[])
    project: str = Field(default="", description="its own word, as are status, version and team")
    status: str = ""
    version: str
    team: str | None = None
    since: datetime
    latency_ms: float | None = None
    we_may_message_it: bool | None = None
    it_may_message_this_agent: bool | None = None
    this_agent: bool | None = None


class SilentRow(Compact):
    """One device that looks like an agent's, and is not known to have one that can be talked to."""

    name: str
    owner: str | None = None
    tags: list[str] = Field(default=[])
    why: str


class Agents(Noticed):
    """Who can be talked to now."""

    total: int = Field(description="agents that answered, without this one")
    agents: list[AgentRow]
    silent_total: int = 0
    silent: list[SilentRow] = Field(default=[], description="online and looking like agents, but not confirmed")


class Delivery(Compact):
    """What became of one recipient's copy."""

    to: str
    outcome: Outcome
    delivered: datetime | None = Field(default=None, description="when it was stored there, by the receiver's clock")
    explanation: str | None = None


class SentMessage(Noticed):
    """A message that went out. "delivered" says that it is stored there, not that it was read."""

    id: str = Field(description="repeat it to send the same message once more without delivering it twice")
    thread: str | None = None
    delivered_count: int
    recipients: list[Delivery]
