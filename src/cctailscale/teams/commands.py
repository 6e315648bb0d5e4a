"""What may be asked of a team. Those of `TaskCommand` come from members; the others from the lead's own process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from cctailscale.documents import MAX_NAME_CHARS, Document, Line
from cctailscale.teams.model import (
    MAX_SUBJECT_CHARS,
    Blockers,
    Description,
    Identity,
    Priority,
    Reason,
    Result,
    Subject,
    TaskId,
)


def _writable(metadata: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # NaN, an infinity; half a character (UnicodeEncodeError is one)
        raise ValueError("has a number or a character that JSON has no form for") from None
    return metadata


ActiveForm = Annotated[Line, Field(max_length=MAX_SUBJECT_CHARS)]
Metadata = Annotated[dict[str, JsonValue], AfterValidator(_writable)]
# The version of the task that the command was made for: another one refuses it.
Version = Annotated[int, Field(ge=1)]


class Create(Document):
    """A new task; it is pending."""

    action: Literal["create"] = "create"
    subject: Subject
    description: Description = ""
    active_form: ActiveForm = ""
    blocked_by: Blockers = ()
    priority: Priority = 0
    metadata: Metadata = Field(default_factory=dict)


class Claim(Document):
    """Without a task: the next that is pending and unblocked, by priority (high first), then age.

    `owner`, a member's name or id: the lead claims it for that member. `version` counts with a task alone.
    """

    action: Literal["claim"] = "claim"
    task: TaskId | None = None
    owner: Annotated[Line, Field(max_length=MAX_NAME_CHARS)] | None = None
    version: Version | None = None


class Complete(Document):
    action: Literal["complete"] = "complete"
    task: TaskId
    result: Result | None = None
    version: Version | None = None


class Release(Document):
    """Back to pending, for others to claim."""

    action: Literal["release"] = "release"
    task: TaskId
    reason: Reason | None = None
    version: Version | None = None


class Update(Document):
    """What is None stays. `metadata` is merged by key; null removes one. Nothing at all: the task is only read."""

    action: Literal["update"] = "update"
    task: TaskId
    subject: Subject | None = None
    description: Description | None = None
    active_form: ActiveForm | None = None
    priority: Priority | None = None
    blocked_by: Blockers | None = None
    metadata: Metadata | None = None
    version: Version | None = None


class Delete(Document):
    """`force`: although others are blocked by it, which it then blocks no more."""

    action: Literal["delete"] = "delete"
    task: TaskId
    force: bool = False
    version: Version | None = None


TaskCommand = Annotated[Create | Claim | Complete | Release | Update | Delete, Field(discriminator="action")]


@dataclass(frozen=True, slots=True)
class Join:
    """A new member; or the same one again, if it left or this is its device. `token`: SHA-256 in hex."""

    identity: Identity
    token: str


@dataclass(frozen=True, slots=True)
class Return:
    """The member whose token has this SHA-256, or the lead (`token` None), with the device that it has now."""

    identity: Identity
    token: str | None


@dataclass(frozen=True, slots=True)
class Leave:
    """By a member, who loses its claims."""


@dataclass(frozen=True, slots=True)
class Remove:
    """By the lead: the member (name or id) loses membership and claims, and cannot join again with this device."""

    member: str


@dataclass(frozen=True, slots=True)
class Lapse:
    """The claims of these members (id to reason) are lost. By nobody. Those without claims are not touched."""

    members: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Disband:
    """By the lead."""


Command = Create | Claim | Complete | Release | Update | Delete | Join | Return | Leave | Remove | Lapse | Disband
