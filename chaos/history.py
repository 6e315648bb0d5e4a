"""What agents were told, as it is judged afterwards."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Literal

# Of an operation whose answer never came: it may take effect at any time.
NEVER_NS = (1 << 63) - 1

Outcome = Literal["done", "refused", "unknown"]


@dataclass(frozen=True)
class Operation:
    """A command about one task, or what was read of it: what libtailscale/linearize takes. Times are nanoseconds."""

    task: str
    what: str
    member: str
    lead: bool
    outcome: Outcome
    call: int
    return_: int
    owner: str = ""
    status: str = ""

    def to_json(self) -> str:
        fields = asdict(self)
        return json.dumps(fields | {"return": fields.pop("return_")})


@dataclass(frozen=True)
class Sent:
    """A message by who wrote it, its id, and who it was for. Agents are meant by their names here: "ann"."""

    sender: str
    id: str
    to: str


@dataclass
class History:
    """Of all agents together."""

    operations: list[Operation] = field(default_factory=list)
    # Messages that their sender was told to be delivered.
    acknowledged: set[Sent] = field(default_factory=set)
    # How often an answer that came had a message as unread.
    read: Counter[Sent] = field(default_factory=Counter)
    # Agents that asked for messages and got no answer: what they took is marked as read, and nobody saw it.
    unanswered: set[str] = field(default_factory=set)
    # Tasks whose creator was told of them.
    created: set[str] = field(default_factory=set)
    # What no fault excuses: a defect's error, a traceback.
    defects: list[str] = field(default_factory=list)
    # Of every call: "send: done", "claim: refused".
    calls: Counter[str] = field(default_factory=Counter)
