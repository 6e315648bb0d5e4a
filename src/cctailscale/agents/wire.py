"""What agents say to each other, as types: the documents of protocol 1 (docs/agent-protocol.md).

A document is one JSON object in UTF-8. A field that nobody here knows is ignored, so that a later version may add one;
a field that is known has to be sound, or the whole document is refused. What is refused is said with our own words and
the names of our own fields: nothing that the other side wrote stands in the reason.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from cctailscale.errors import BadDocument

PROTOCOL = 1
# The port on the tailnet, and the app capability of the tailnet's policy (policy.py).
PORT = 9321
CAPABILITY = "cc-tailscale.dev/cap/agent"

# A whole document as it travels. An agent's context is small; what is larger goes into a file and is fetched.
MAX_DOCUMENT_BYTES = 64 * 1024
# Of a request and of an answer. An agent sends some ten short headers; all together they stay below 128 KiB.
MAX_HEADERS = 32
MAX_HEADER_BYTES = 4096
MAX_ID_CHARS = 64
ID_PATTERN = rf"^[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}$"
MAX_SUBJECT_CHARS = 200
MAX_STATUS_CHARS = 200
# A MagicDNS name (RFC 1035, 2.3.4).
MAX_NAME_CHARS = 255
MAX_PROJECT_CHARS = 100
MAX_TEAM_CHARS = 64
MAX_VERSION_CHARS = 64
MAX_REFUSAL_CHARS = 1000
MAX_SPOKEN = 16
# Nobody is told to wait for longer than a day.
MAX_RETRY_AFTER_MS = 24 * 60 * 60 * 1000

_ID_BYTES = 12  # 96 random bits: ids count per sender, and no sender draws one twice
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# RFC 3339, 5.6, in ASCII digits. Leap seconds have no place in Python's time and are refused.
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("has a NUL character")
    if _SURROGATE.search(text):  # JSON's parser refuses them; this is for texts of our own
        raise ValueError("has half a character (a lone surrogate)")
    return text


def _line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("has a control character or a line break")
    return _text(text)


def _utc(given: object) -> object:
    """An RFC 3339 time, or a datetime with a zone, in UTC."""
    wrong = "is not a time of RFC 3339 with a zone, in the years from 1 to 9999"
    try:
        if isinstance(given, str) and _TIME.fullmatch(given):
            given = datetime.fromisoformat(given.upper())
        if isinstance(given, datetime) and given.tzinfo is not None:
            return given.astimezone(UTC)
    except (ValueError, OverflowError):  # the 30th of February; a zone that leads out of the calendar
        raise ValueError(wrong) from None
    raise ValueError(wrong)


Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Text = Annotated[str, AfterValidator(_text)]
Line = Annotated[str, AfterValidator(_line)]
Time = Annotated[datetime, BeforeValidator(_utc)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)

    @classmethod
    def from_json(cls, document: bytes) -> Self:
        """The document that these bytes are. Raises BadDocument, whatever they are."""
        if len(document) > MAX_DOCUMENT_BYTES:
            raise BadDocument(cls._called(), f"has more than {MAX_DOCUMENT_BYTES} bytes")
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise BadDocument(cls._called(), _reason(error)) from None

    def to_json(self) -> bytes:
        """The document as it travels. Raises BadDocument if it is too large."""
        document = self.model_dump_json().encode()
        if len(document) > MAX_DOCUMENT_BYTES:
            raise BadDocument(self._called(), f"has {len(document)} bytes, which is more than {MAX_DOCUMENT_BYTES}")
        return document

    @classmethod
    def _called(cls) -> str:
        return cls.__name__.lower()


class AgentCard(_Document):
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


class Message(_Document):
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
            raise BadDocument(cls._called(), _reason(error)) from None
        made.to_json()  # it must not be too large
        return made


class Receipt(_Document):
    """The answer to POST /v1/messages (202) and GET /v1/messages/{id}.

    `delivered`: stored at the receiver's, by its clock. `read`: a tool call of the receiver's fetched it.
    """

    id: Id
    state: Literal["delivered", "read"]
    delivered: Time
    read: Time | None = None


class Refusal(_Document):
    """The body of every answer from 400 on. `error` is a code for programs, `message` a sentence for people.

    `spoken`: the versions of the protocol, where the one that was asked for is not among them. `retry_after_ms`:
    where it is worth trying again.
    """

    error: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
    message: Annotated[Line, Field(max_length=MAX_REFUSAL_CHARS)]
    spoken: Annotated[list[int], Field(max_length=MAX_SPOKEN)] | None = None
    retry_after_ms: Annotated[int, Field(ge=0, le=MAX_RETRY_AFTER_MS)] | None = None


def _reason(error: ValidationError) -> str:
    """What is wrong with the first field that is; neither the message nor the place holds anything of the input."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    problem = first["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, first["loc"]))
    return f"has a field {place} that cannot be used: {problem}" if place else f"cannot be read: {problem}"
