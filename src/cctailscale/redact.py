"""Secrets out of text: by value first, by shape as a second net.

By value: every secret that the process knows is replaced wherever it stands, also URL-encoded, JSON- or
repr-escaped, and inside base64 (HTTP basic auth is base64 of ``user:secret``). Headscale's keys have no prefix, so
values are the only sure way to know one.

By shape: what looks like a Tailscale or Headscale key, a private key of the node, or a password in a URL goes too,
even when nobody told the redactor about it.

A secret that the caller has cut in two is not found: who shows a part of a text gives all of it, and says which part.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

MARK = "[secret]"
# Below this a value is a common syllable and would blot out ordinary text. Tailscale's keys have more than 20
# characters; only a proxy's password can be this short, and in a URL its shape gives it away.
MIN_SECRET_CHARS = 4

# Prefixes: https://tailscale.com/kb/1277/key-prefixes and, for the private keys, tailscale.com/types/key. Public keys
# (nodekey:, mkey:, discokey:, nlpub:) stay readable. "tskey-auth-…" in an explanation is no key: a kind alone, with
# nothing after it, is left as it is.
# Before each stands what a text with such a shape has in any case: looking for that is a hundred times as quick.
_SHAPES = (
    (
        "skey-",
        re.compile(
            r"(?:tskey|hskey)-(?!(?:auth|client|api|webhook|scim)-(?![A-Za-z0-9_]))[A-Za-z0-9_-]{4,}(?:\?[^\s\"'<>]*)?"
        ),
    ),
    ("priv", re.compile(r"(?:privkey|nlpriv):[0-9a-fA-F]{8,}")),
    # user:password@ of a URL. A user alone (ssh://git@host) is no secret. Bounded, so that no text is slow to search.
    ("://", re.compile(r"://([^\s/?#\"'<>@:]{0,256}:[^\s/?#\"'<>]{0,256})(?=@)")),
)
_UNRESERVED = re.compile(r"[A-Za-z0-9._-]*\Z")  # never changed by URL-, JSON- or repr-escaping
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
_SHORT_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f", "\v": "v", "\a": "a"}


class Redactor:
    """Replaces every secret that it was told about with `MARK`.

    Secrets may be added at any time, from any thread (the loopback port's credentials exist only once the node
    runs). Its repr shows none of them.
    """

    def __init__(self, *secrets: str) -> None:
        self._lock = threading.Lock()
        self._finders: dict[str, _Finder] = {}
        self.add(*secrets)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._finders)} secrets>"

    def add(self, *secrets: str) -> None:
        """Redact these from now on. Values under `MIN_SECRET_CHARS` characters are ignored; surrounding blanks too."""
        with self._lock:
            finders = dict(self._finders)
            for secret in (given.strip() for given in secrets):
                if len(secret) >= MIN_SECRET_CHARS and secret not in finders:
                    finders[secret] = _Finder(secret)
            self._finders = finders  # a new dict: __call__ iterates without the lock

    def __call__(self, text: str, start: int = 0, end: int | None = None) -> str:
        """The text, or its part from `start` to `end`, with every secret replaced, also one that lies in it half.

        Overlapping ones are replaced as one, so that no end stays behind.
        """
        if not text:
            return text
        found = self._spans(text)
        if not found:  # it nearly never holds one
            return text[start:end]
        end = len(text) if end is None else end
        spans = sorted((max(left, start), min(right, end)) for left, right in found)
        return _replace(text[:end], start, [(left, right) for left, right in spans if left < right])

    def value(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        """As a call, for every text in what JSON can hold, the names of members included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value

    def _spans(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        for finder in self._finders.values():
            if finder.may_be_in(text):
                spans += finder.spans(text)
        if spans:  # a password "secret" would otherwise be found in the mark itself, and again in each later pass
            marks = list(_occurrences(text, MARK))
            spans = [(left, right) for left, right in spans if not any(a <= left and right <= b for a, b in marks)]
        for part, shape in _SHAPES:
            if part in text:
                spans += (found.span(shape.groups) for found in shape.finditer(text))
        return spans


class RedactingFilter(logging.Filter):
    """Redacts records: message, arguments, traceback, stack and `extra`.

    Attach it to handlers: a filter on a logger does not see what its children hand up. It never drops a record and
    never raises.
    """

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redact = redactor
        self._formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites the record in place, so that handlers that come later see it redacted too."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit must not take the caller down
            message = f"{record.msg} (the arguments do not fit)"
        record.msg, record.args = self._redact(message), None
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            # exc_info goes: a formatter of another kind would print the traceback from it once more.
            record.exc_text, record.exc_info = self._redact(record.exc_text), None
        if record.stack_info:
            record.stack_info = self._redact(record.stack_info)
        for name in record.__dict__.keys() - _STANDARD_ATTRIBUTES:
            record.__dict__[name] = self._extra(record.__dict__[name])
        return True

    def _extra(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._redact(value)
        shown = repr(value)
        redacted = self._redact(shown)
        return value if redacted == shown else redacted


_STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _Finder:
    """Finds one secret in a text, in all of its forms."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        # A value of unreserved characters reads the same in every escaping, and str.find is far quicker.
        self._escaped = None if _UNRESERVED.match(secret) else re.compile("".join(map(_any_escape, secret)))
        self._cores = _base64_cores(secret.encode("utf-8", "surrogatepass"))
        self._literals = (secret, *self._cores)
        self._shortest = min(map(len, self._literals))  # an escaped secret is longer than it is itself

    def may_be_in(self, text: str) -> bool:
        """False if it is not in it, which is told quickly."""
        if len(text) < self._shortest:
            return False
        return self._escaped is not None or any(map(text.__contains__, self._literals))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        yield from _occurrences(text, self._secret)
        if self._escaped is not None:
            for found in self._escaped.finditer(text):
                yield found.span()
        for core in self._cores:
            at = text.find(core)
            while at != -1:
                # The characters next to the core hold bits of the secret too, and of the user's name.
                start, end = _base64_run(text, at, at + len(core))
                yield start, end
                at = text.find(core, end)


def _occurrences(text: str, wanted: str) -> Iterator[tuple[int, int]]:
    at = text.find(wanted)
    while at != -1:
        yield at, at + len(wanted)
        at = text.find(wanted, at + 1)  # + 1: occurrences may overlap ("abab" in "ababab")


def _base64_run(text: str, start: int, end: int) -> tuple[int, int]:
    while start > 0 and text[start - 1] in _BASE64:
        start -= 1
    while end < len(text) and (text[end] in _BASE64 or text[end] == "="):
        end += 1
    return start, end


def _base64_cores(secret: bytes) -> frozenset[str]:
    """What base64 of any text with the secret in it contains: one core for each alignment, in both alphabets."""
    cores = set()
    for offset in range(3):
        whole = base64.b64encode(b"\0" * offset + secret).decode("ascii")
        core = whole[(8 * offset + 5) // 6 : 8 * (offset + len(secret)) // 6]
        cores |= {core, core.translate(str.maketrans("+/", "-_"))}
    return frozenset(cores)


def _any_escape(character: str) -> str:
    """A pattern for one character as it is, percent-encoded, or escaped as in JSON, Go or Python."""
    forms = [re.escape(character)]
    utf8 = character.encode("utf-8", "surrogatepass")
    forms.append("".join(f"%{_hex(byte, 2)}" for byte in utf8))
    utf16 = character.encode("utf-16-be", "surrogatepass")
    forms.append("".join(rf"\\u{_hex(int.from_bytes(utf16[i : i + 2], 'big'), 4)}" for i in range(0, len(utf16), 2)))
    forms.append("".join(rf"\\x{_hex(byte, 2)}" for byte in utf8))
    point = ord(character)
    if point < 0x100:
        forms.append(rf"\\x{_hex(point, 2)}")
    if point > 0xFFFF:
        forms.append(rf"\\U{_hex(point, 8)}")
    if character in "\"'/\\":
        forms.append(r"\\" + re.escape(character))
    if character in _SHORT_ESCAPES:
        forms.append(r"\\" + _SHORT_ESCAPES[character])
    if character == " ":
        forms.append(r"\+")
    # Longest first: a raw backslash would otherwise take the first half of an escaped one.
    return f"(?:{'|'.join(sorted(forms, key=len, reverse=True))})"


def _hex(value: int, digits: int) -> str:
    return "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{value:0{digits}x}")


def _replace(text: str, begin: int, spans: list[tuple[int, int]]) -> str:
    if not spans:
        return text[begin:]
    pieces: list[str] = []
    done = begin
    start, end = spans[0]
    for left, right in [*spans[1:], (len(text) + 1, 0)]:
        if left < end:
            end = max(end, right)
            continue
        pieces += [text[done:start], MARK]
        done, start, end = end, left, right
    pieces.append(text[done:])
    return "".join(pieces)
