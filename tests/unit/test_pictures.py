"""Images that may be shown, and JSON as it is shown."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.tools.indented import indented
from cctailscale.tools.pictures import MAX_PICTURE_BYTES, picture_type


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int = 2, height: int = 1) -> bytes:
    """A grey picture."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = b"".join(b"\0" + bytes(min(width, 10)) for _ in range(min(height, 10)))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def jpeg(width: int = 2, height: int = 1) -> bytes:
    frame = b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
    return b"\xff\xd8\xff\xe0\x00\x04ab" + frame + b"\xff\xda\x00\x02data\xff\xd9"


def webp(first: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(first) + 4) + b"WEBP" + first


# The smallest that there are.
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
WEBP_LOSSLESS = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")
WEBP_LOSSY = base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA")
WHOLE = {
    "image/png": png(),
    "image/jpeg": jpeg(),
    "image/gif": GIF,
    "image/webp": WEBP_LOSSLESS,
}


@pytest.mark.parametrize(("kind", "body"), WHOLE.items())
def test_a_whole_image_is_known_by_its_content(kind: str, body: bytes) -> None:
    assert picture_type(body) == kind


def test_each_form_of_webp_is_known() -> None:
    extended = webp(b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x01\x00\x00\x01\x00\x00")
    for body in (WEBP_LOSSY, WEBP_LOSSLESS, extended):
        assert picture_type(body) == "image/webp"


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE)
def test_an_image_that_ends_too_early_is_none(body: bytes) -> None:
    for end in range(len(body) - 1):
        assert picture_type(body[:end]) is None, end


@pytest.mark.parametrize("make", [png, jpeg])
@pytest.mark.parametrize(("side", "shown"), [(8000, True), (8001, False), (0, False)])
def test_an_image_of_more_pixels_than_claude_takes_is_none(make: Any, side: int, shown: bool) -> None:
    assert (picture_type(make(side, 1)) is not None) == shown
    assert (picture_type(make(1, side)) is not None) == shown


def test_an_image_of_more_bytes_than_claude_takes_is_none() -> None:
    padding = MAX_PICTURE_BYTES - len(png()) - 12
    whole = png()[:-12] + chunk(b"teXt", bytes(padding)) + png()[-12:]
    assert len(whole) == MAX_PICTURE_BYTES
    assert picture_type(whole) == "image/png"
    assert picture_type(png()[:-12] + chunk(b"teXt", bytes(padding + 1)) + png()[-12:]) is None


def test_a_damaged_png_is_none() -> None:
    body = bytearray(png())
    body[45] ^= 1
    assert picture_type(bytes(body)) is None


@given(st.binary(max_size=200), st.sampled_from([body[:12] for body in WHOLE.values()]))
def test_any_bytes_are_an_image_or_none(rest: bytes, head: bytes) -> None:
    assert picture_type(head + rest) in (None, *WHOLE)


# ---- JSON ------------------------------------------------------------------------------------------------------------

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(ANY_JSON, st.booleans())
def test_json_is_indented_as_python_would(value: Any, ascii_only: bool) -> None:
    compact = json.dumps(value, ensure_ascii=ascii_only)
    assert indented(compact, 100_000) == json.dumps(value, ensure_ascii=ascii_only, indent=2)


@pytest.mark.parametrize("token", ["1e400", "0.10000000000000000000001", "1.0", "-0", "9" * 5000, '"\\u00e9\\/"'])
def test_no_value_is_written_in_another_way(token: str) -> None:
    assert indented(f"[{token}]", 10_000) == f"[\n  {token}\n]"


def test_a_name_that_comes_twice_comes_twice() -> None:
    assert indented('{"a":1,"a":2}', 100) == '{\n  "a": 1,\n  "a": 2\n}'


@pytest.mark.parametrize(
    "text", ["", "{", '{"a":1}\n{"a":2}', "{'a':1}", '["a\nb"]', "\ufeff1", "<html>", "[" * 100_000]
)
def test_what_is_no_json_stays_as_it_is(text: str) -> None:
    assert indented(text, 1_000_000) is None


def test_json_that_would_not_fit_is_left_compact() -> None:
    text = '{"ü":[1,2]}'
    shown = indented(text, 1000)
    assert shown is not None
    size = len(shown.encode())
    assert indented(text, size) == shown
    assert indented(text, size - 1) is None
    deep = "[" * 900 + "]" * 900
    assert indented(deep, 10_000) is None
