"""What agents say to each other, as types: the documents of protocol 1 (docs/agent-protocol.md).

What a document is, `documents` says; those of teams are in `teams/wire.py`.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from cctailscale.documents import MAX_NAME_CHARS, Document, Id, Line, Text, Time, reason
from cctailscale.errors import BadDocument

PROTOCOL = 1
# The port on the tailnet, and the app capability of the tailnet's policy (policy.py).
PORT = 9321
CAPABILITY = "cc-tailscale.dev/cap/agent"

# Of a request and of an answer. An agent sends some ten short headers; all together they stay below 128 KiB.
MAX_HEADERS = 32
MAX_HEADER_BYTES = 4096
MAX_SUBJECT_CHARS = 200
MAX_STATUS_CHARS = 200
MAX_PROJECT_CHARS = 100
MAX_TEAM_CHARS = 64
MAX_VERSION_CHARS = 64
MAX_REFUSAL_CHARS = 1000
MAX_SPOKEN = 16
# Nobody is told to wait for longer than a day.
MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1000

_ID_BYTES = 12  # 96 random bits: ids count per sender, and no sender draws one twice


class AgentCard(Document):
    """The answer to GET /v1/agent: what an agent says about itself, which proves nothing.

    Texts of our own go through `errors.plain` first, with the limit of the field. `since`: when the node joined.
    `may_message`: whether the one who asks may send messages there.
    """

    name: Annotated[Line, Field(max_length=MAX_NAME_CHARS)]
    version: Annotated[Line, Field(max_length=MAX_VERSION_CHARS)]
    protocol: Annotated[int, Field(ge=1)]
    project: Annotated[Line, Field(max_length=MAX_PROJECT_CHARS)] = ""
    status: Annotated[Line, Field(max_length=MAX_STATUS_CHARS)] = ""
    team: Annotated[Line, Field(max_length=MAX_TEAM_CHARS)] | None = None
    since: Time
    may_message: bool = False


class Message(Document):
    """The body of POST /v1/messages. Who sent it is not in it: the receiver asks WhoIs.

    `id` is the sender's own and counts for the sender alone; a message that repeats it is a retry of the same one.
    `in_reply_to`: the id of a message between these two, of either's. `sent`: by the sender's clock.
    """

    id: Id
    subject: Annotated[Line, Field(min_length=1, max_length=MAX_SUBJECT_CHARS)]
    body: Text
    in_reply_to: Id | None = None
    sent: Time

    @classmethod
    def new(cls, subject: str, body: str, in_reply_to: str | None = None, id: str | None = None) -> Message:  # noqa: A002 - the field's name
        """A message of our own, sent now; without an `id`, under a fresh one. Raises BadDocument."""
        try:
            sent = datetime.now(UTC)
            made = cls(
                id=id or secrets.token_urlsafe(_ID_BYTES),
                subject=subject,
                body=body,
                in_reply_to=in_reply_to,
                sent=sent,
            )
        except ValidationError as error:
            raise BadDocument(cls._called(), reason(error)) from None
        made.to_json()  # it must not be too large
        return made


class Receipt(Document):
    """The answer to POST /v1/messages (202) and GET /v1/messages/{id}.

    `delivered`: stored at the receiver's, by its clock. `read`: a tool call of the receiver's fetched it.
    """

    id: Id
    state: Literal["delivered", "read"]
    delivered: Time
    read: Time | None = None


class Refusal(Document):
    """The body of every answer from 400 on. `error` is a code for programs, `message` a sentence for people.

    `spoken`: the versions of the protocol, where the one that was asked for is not among them. `retry_after_ms`:
    where it is worth trying again.
    """

    error: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
    message: Annotated[Line, Field(max_length=MAX_REFUSAL_CHARS)]
    spoken: Annotated[list[int], Field(max_length=MAX_SPOKEN)] | None = None
    retry_after_ms: Annotated[int, Field(ge=0, le=MAX_RETRY_AFTER_MS)] | None = None
