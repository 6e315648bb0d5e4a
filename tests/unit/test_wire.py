"""The documents of the agents' protocol: what is taken, what is refused, and that nothing else ever happens."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cctailscale import documents
from cctailscale.agents.wire import AgentCard, Message, Receipt, Refusal
from cctailscale.errors import BadDocument

DOCUMENTS = (AgentCard, Message, Receipt, Refusal)
SENT = "2026-11-25T09:30:00Z"
MESSAGE = {"id": "m1", "subject": "Build", "body": "is green", "sent": SENT}
CARD = {"name": "cc-ada-app-1a2b.tail1234.ts.net", "version": "0.1.0", "protocol": 1, "since": SENT}
RECEIPT = {"id": "m1", "state": "delivered", "delivered": SENT}
REFUSAL = {"error": "not_allowed", "message": "No."}
SOUND: list[tuple[type[Any], dict[str, Any]]] = [
    (Message, MESSAGE),
    (AgentCard, CARD),
    (Receipt, RECEIPT),
    (Refusal, REFUSAL),
]
# What nobody of ours would write, to be looked for in reasons.
MARKER = "zq7-marker"

ids = st.text("abcXYZ019_-", min_size=1, max_size=documents.MAX_ID_CHARS)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
lines = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1, max_size=200)
times = st.datetimes(timezones=st.just(UTC))


def message(**changed: Any) -> bytes:
    return json.dumps({**MESSAGE, **changed}).encode()


def reason(kind: type[Any], document: bytes) -> str:
    with pytest.raises(BadDocument) as refused:
        kind.from_json(document)
    return refused.value.problem


def read(kind: type[Any], document: bytes) -> Any:
    """The document, or the BadDocument that it is; anything else fails the test."""
    try:
        return kind.from_json(document)
    except BadDocument as refused:
        return refused


# ---- what is taken


@given(ids, lines, texts, st.none() | ids, times)
def test_a_message_arrives_as_it_was_sent(
    message_id: str, subject: str, body: str, in_reply_to: str | None, sent: datetime
) -> None:
    given_message = Message(id=message_id, subject=subject, body=body, in_reply_to=in_reply_to, sent=sent)
    assert Message.from_json(given_message.to_json()) == given_message


@pytest.mark.parametrize(("kind", "fields"), SOUND)
def test_the_fields_that_may_be_left_out_have_their_defaults(kind: type[Any], fields: dict[str, Any]) -> None:
    found = kind.from_json(json.dumps(fields).encode())
    assert kind.from_json(found.to_json()) == found
    assert {name for name in fields if name not in kind.model_fields} == set()


@pytest.mark.parametrize(("kind", "fields"), SOUND)
def test_a_field_of_a_later_version_is_ignored(kind: type[Any], fields: dict[str, Any]) -> None:
    later = {**fields, "sender": "somebody-else", "urgent": {"deep": [None, 1e300, True]}}
    assert kind.from_json(json.dumps(later).encode()) == kind.from_json(json.dumps(fields).encode())


def test_every_kind_of_document_reads_what_it_wrote() -> None:
    now = datetime.now(UTC)
    for document in (
        AgentCard(
            name="cc-ada",
            version="1",
            protocol=1,
            project="app",
            status="fixing",
            team="t",
            since=now,
            may_message=True,
        ),
        Receipt(id="m1", state="read", delivered=now, read=now),
        Refusal(error="version", message="Not spoken.", spoken=[1], retry_after_ms=1000),
    ):
        assert type(document).from_json(document.to_json()) == document


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-25T09:30:00Z", datetime(2026, 11, 25, 9, 30, tzinfo=UTC)),
        ("2026-11-25t09:30:00z", datetime(2026, 11, 25, 9, 30, tzinfo=UTC)),
        ("2026-11-25T10:30:00.5+01:00", datetime(2026, 11, 25, 9, 30, 0, 500_000, tzinfo=UTC)),
        ("2026-11-25T09:30:00.123456789Z", datetime(2026, 11, 25, 9, 30, 0, 123_456, tzinfo=UTC)),
        ("2026-11-24T23:30:00-10:00", datetime(2026, 11, 25, 9, 30, tzinfo=UTC)),
    ],
)
def test_times_are_those_of_rfc_3339_and_become_utc(text: str, utc: datetime) -> None:
    found = Message.from_json(message(sent=text)).sent
    assert found == utc
    assert found.tzinfo is UTC


def test_a_message_of_our_own_has_an_id_nobody_else_has_and_the_time() -> None:
    before = datetime.now(UTC)
    one, other = Message.new("Build", "is green"), Message.new("Build", "is green", in_reply_to="m1", id="m2")
    assert one.id != Message.new("Build", "is green").id
    assert before <= one.sent <= datetime.now(UTC)
    assert (other.id, other.in_reply_to) == ("m2", "m1")


def test_a_time_of_our_own_in_another_zone_is_sent_in_utc() -> None:
    local = datetime(2026, 11, 25, 10, 30, tzinfo=timezone(timedelta(hours=1)))
    assert b'"sent":"2026-11-25T09:30:00Z"' in Message(id="m1", subject="s", body="", sent=local).to_json()


# ---- what is refused


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a" * 65}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": "ä"}, "id"),
        ({"id": "../x"}, "id"),
        ({"id": 1}, "id"),
        ({"id": None}, "id"),
        ({"in_reply_to": ""}, "in_reply_to"),
        ({"in_reply_to": ["m1"]}, "in_reply_to"),
        ({"subject": ""}, "subject"),
        ({"subject": "s" * 201}, "subject"),
        ({"subject": "two\nlines"}, "subject"),
        ({"subject": "two\u2028lines"}, "subject"),
        ({"subject": "\x1b[2J"}, "subject"),
        ({"subject": "a\x00b"}, "subject"),
        ({"body": "a\x00b"}, "body"),
        ({"body": None}, "body"),
        ({"body": 5}, "body"),
        ({"sent": 1_800_000_000}, "sent"),
        ({"sent": "1800000000"}, "sent"),
        ({"sent": "2026-11-25"}, "sent"),
        ({"sent": "2026-11-25T09:30:00"}, "sent"),
        ({"sent": "2026-11-25 09:30:00Z"}, "sent"),
        ({"sent": "2026-11-25T09:30:00Z "}, "sent"),
        ({"sent": "2026-02-30T09:30:00Z"}, "sent"),
        ({"sent": "2026-11-25T09:30:00+99:00"}, "sent"),
        ({"sent": "0001-01-01T00:00:00+01:00"}, "sent"),
        ({"sent": "9999-12-31T23:59:59-01:00"}, "sent"),
        ({"sent": "٢٠٢٦-11-25T09:30:00Z"}, "sent"),
    ],
)
def test_a_message_with_an_unsound_field_is_refused_with_the_fields_name(changed: dict[str, Any], field: str) -> None:
    assert reason(Message, message(**changed)).startswith(f"has a field {field} that cannot be used: ")


@pytest.mark.parametrize("half", ["high \ud800", "low \udfff", "twice \ud800\ud800"])
def test_half_a_character_is_refused(half: str) -> None:
    assert reason(Message, message(body=half)).startswith("cannot be read: ")
    assert reason(Message, message(**{half: 1})).startswith("cannot be read: ")


@pytest.mark.parametrize("field", list(MESSAGE))
def test_a_message_without_a_field_that_it_needs_is_refused(field: str) -> None:
    left = {name: value for name, value in MESSAGE.items() if name != field}
    assert reason(Message, json.dumps(left).encode()) == f"has a field {field} that cannot be used: Field required"


@pytest.mark.parametrize(
    ("kind", "fields", "changed"),
    [
        (AgentCard, CARD, {"protocol": 0}),
        (AgentCard, CARD, {"protocol": "1"}),
        (AgentCard, CARD, {"protocol": True}),
        (AgentCard, CARD, {"name": "a\r\nb"}),
        (AgentCard, CARD, {"name": "n" * 256}),
        (AgentCard, CARD, {"status": "s" * 201}),
        (AgentCard, CARD, {"project": "p" * 101}),
        (AgentCard, CARD, {"may_message": 1}),
        (Receipt, RECEIPT, {"state": "lost"}),
        (Receipt, RECEIPT, {"read": "yesterday"}),
        (Refusal, REFUSAL, {"error": "No such thing"}),
        (Refusal, REFUSAL, {"message": "m" * 1001}),
        (Refusal, REFUSAL, {"spoken": list(range(17))}),
        (Refusal, REFUSAL, {"retry_after_ms": -1}),
        (Refusal, REFUSAL, {"retry_after_ms": 10**12}),
    ],
)
def test_other_documents_keep_to_their_limits_too(
    kind: type[Any], fields: dict[str, Any], changed: dict[str, Any]
) -> None:
    (field,) = changed
    assert f"field {field} " in reason(kind, json.dumps({**fields, **changed}).encode())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"NaN",
        b"<!DOCTYPE html><title>hello</title>",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf" + json.dumps(MESSAGE).encode(),
        json.dumps(MESSAGE).encode() + b"{}",
        json.dumps(MESSAGE).encode("utf-16"),
        json.dumps(MESSAGE).encode().replace(b"green", b"gr\xffn"),
        json.dumps(MESSAGE).encode().replace(b"green", b"gr\xed\xa0\x80n"),
        json.dumps(MESSAGE).encode().replace(b"green", b"gr\nn"),
    ],
)
def test_what_is_no_json_object_in_utf_8_is_refused(document: bytes) -> None:
    for kind in DOCUMENTS:
        assert reason(kind, document)


def test_the_largest_document_is_taken_and_one_byte_more_is_not() -> None:
    room = documents.MAX_DOCUMENT_BYTES - len(message(body=""))
    assert len(Message.from_json(message(body="b" * room)).body) == room
    assert reason(Message, message(body="b" * (room + 1))) == "has more than 65536 bytes"


def test_a_message_of_our_own_that_is_too_large_or_unsound_is_no_message() -> None:
    with pytest.raises(BadDocument, match="which is more than 65536"):
        Message.new("s", "b" * documents.MAX_DOCUMENT_BYTES)
    with pytest.raises(BadDocument, match=r"field subject .* line break"):
        Message.new("two\nlines", "")
    with pytest.raises(BadDocument, match=r"field body .* lone surrogate"):
        Message.new("s", "\ud800")
    with pytest.raises(BadDocument, match=r"field id "):
        Message.new("s", "b", id="no/slash")


# ---- hostile documents


BOMBS = {
    "deep arrays": b"[" * documents.MAX_DOCUMENT_BYTES,
    "deep objects": b'{"a":' * 13_000,
    "depth in an unknown field": message()[:-1] + b', "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "a huge number": message()[:-1] + b', "x": ' + b"9" * 60_000 + b"}",
    "a huge exponent": message()[:-1] + b', "x": 1e999999999}',
    "many fields": b"{" + b",".join(b'"%d":0' % number for number in range(6_000)) + b"}",
    "one field many times": b"{" + b",".join([b'"id":"a"'] * 7_000) + b"}",
    "many escapes": message(body="\0")[:-1] + b', "x": "' + b"\\u0041" * 10_000 + b'"}',
}


@pytest.mark.parametrize("document", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_bomb_is_dealt_with_at_once(kind: type[Any], document: bytes) -> None:
    assert len(document) <= documents.MAX_DOCUMENT_BYTES
    begun = time.process_time()
    read(kind, document)
    assert time.process_time() - begun < 0.25  # milliseconds, in truth


@given(st.binary(max_size=400))
def test_any_bytes_are_a_document_or_a_refusal(document: bytes) -> None:
    for kind in DOCUMENTS:
        assert isinstance(read(kind, document), kind | BadDocument)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(SOUND), st.data(), json_values)
@example((Message, MESSAGE), None, float("nan"))
def test_any_value_in_any_field_is_taken_or_refused_without_being_quoted(
    sound: tuple[type[Any], dict[str, Any]], data: st.DataObject | None, value: Any
) -> None:
    kind, fields = sound
    field = data.draw(st.sampled_from(sorted(kind.model_fields))) if data else "body"
    wrong = [{MARKER: value}, MARKER] if value is None else value
    found = read(kind, json.dumps({**fields, field: wrong, MARKER: 1}).encode())
    if isinstance(found, BadDocument):
        assert MARKER not in str(found)
    else:
        assert kind.from_json(found.to_json()) == found


@pytest.mark.parametrize(("kind", "fields"), SOUND)
@pytest.mark.parametrize("wrong", [MARKER + "\n", [MARKER], {MARKER: MARKER}, f"{MARKER}é" * 500])
def test_a_reason_never_holds_what_the_peer_wrote(kind: type[Any], fields: dict[str, Any], wrong: Any) -> None:
    documents = [json.dumps({**fields, field: wrong}) for field in kind.model_fields]
    answers = [read(kind, document.encode()) for document in [*documents, f'{{"{MARKER}": {MARKER}']]
    refused = [answer for answer in answers if isinstance(answer, BadDocument)]
    assert len(refused) >= len(documents)  # a body may be anything
    for answer in refused:
        assert MARKER not in str(answer)
        # Neither does a traceback in a log.
        assert answer.__cause__ is None
        assert answer.__suppress_context__
