"""What agents send each other, as types: one JSON object in UTF-8 with a limit on all that it holds.

A field that nobody here knows is ignored, so that a later version may add one; a field that is known has to be sound,
or the whole document is refused. What is refused is said with our own words and the names of our own fields: nothing
that the other side wrote stands in the reason.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from cctailscale.errors import BadDocument

# A whole document as it travels. An agent's context is small; what is larger goes into a file and is fetched.
MAX_DOCUMENT_BYTES = 64 * 1024
MAX_ID_CHARS = 64
ID_PATTERN = rf"^[A-Za-z0-9_-]{{1,{MAX_ID_CHARS}}}$"
# A MagicDNS name (RFC 1035, 2.3.4).
MAX_NAME_CHARS = 255

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


class Document(BaseModel):
    """The base of them all. `max_bytes`: what a whole one has at most as it travels."""

    max_bytes: ClassVar[int] = MAX_DOCUMENT_BYTES

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, hide_input_in_errors=True)

    @classmethod
    def from_json(cls, document: bytes) -> Self:
        """The document that these bytes are. Raises BadDocument, whatever they are."""
        if len(document) > cls.max_bytes:
            raise BadDocument(cls._called(), f"has more than {cls.max_bytes} bytes")
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise BadDocument(cls._called(), reason(error)) from None

    def to_json(self) -> bytes:
        """The document as it travels. Raises BadDocument if it is too large."""
        document = self.model_dump_json().encode()
        if len(document) > self.max_bytes:
            raise BadDocument(self._called(), f"has {len(document)} bytes, which is more than {self.max_bytes}")
        return document

    @classmethod
    def _called(cls) -> str:
        return cls.__name__.lower()


def reason(error: ValidationError) -> str:
    """What is wrong with the first field that is; neither the message nor the place holds anything of the input."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    problem = first["msg"].removeprefix("Value error, ")
    place = ".".join(map(str, first["loc"]))
    return f"has a field {place} that cannot be used: {problem}" if place else f"cannot be read: {problem}"
