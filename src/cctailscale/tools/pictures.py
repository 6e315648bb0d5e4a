"""Which images can be shown to Claude.

A request with an image that the API does not take fails, and so does every later one of the same conversation, since
they hold it too. So only images pass whose frame is whole: signature, dimensions, end.
"""

import re
import struct
import zlib

# https://docs.claude.com/en/docs/build-with-claude/vision: 5 MB each, which are 3.75 MB before base64; 8000 pixels.
MAX_PICTURE_BYTES = 3_750_000
MAX_PIXELS = 8000

_PNG = b"\x89PNG\r\n\x1a\n"
_GIF = re.compile(rb"GIF8[79]a(..)(..)", re.DOTALL)
# Segments that hold the size: SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def picture_type(body: bytes) -> str | None:
    """The media type of an image that Claude takes, by its content; None for all else."""
    if len(body) > MAX_PICTURE_BYTES:
        return None
    for kind, size_of in _KINDS.items():
        try:
            size = size_of(body)
        except (struct.error, IndexError):  # it ends too early
            continue
        if size is not None and all(1 <= side <= MAX_PIXELS for side in size):
            return kind
    return None


def _png(body: bytes) -> tuple[int, int] | None:
    """PNG (ISO 15948): chunks with check sums, from IHDR over IDAT to IEND."""
    if not body.startswith(_PNG):
        return None
    at, names = len(_PNG), []
    while at < len(body) and b"IEND" not in names:
        length, name = struct.unpack_from(">I4s", body, at)
        (check,) = struct.unpack_from(">I", body, at + 8 + length)
        if zlib.crc32(body[at + 4 : at + 8 + length]) != check:
            return None
        names.append(name)
        at += 12 + length
    if names[:1] != [b"IHDR"] or b"IDAT" not in names or names[-1] != b"IEND":
        return None
    width, height = struct.unpack_from(">II", body, len(_PNG) + 8)
    return width, height


def _jpeg(body: bytes) -> tuple[int, int] | None:
    """JPEG (ITU-T T.81): segments up to the frame's, and the mark of the end."""
    if not body.startswith(b"\xff\xd8\xff") or not body.rstrip(b"\0\r\n").endswith(b"\xff\xd9"):
        return None
    at = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", body, at)
        if mark != 0xFF or length < 2:
            return None
        if kind in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", body, at + 5)
            return width, height
        at += 2 + length


def _gif(body: bytes) -> tuple[int, int] | None:
    found = _GIF.match(body)
    if not found or not body.rstrip(b"\0").endswith(b";"):
        return None
    return int.from_bytes(found[1], "little"), int.from_bytes(found[2], "little")


def _webp(body: bytes) -> tuple[int, int] | None:
    """WebP (RFC 9649): a RIFF container of the stated length, with one of three first chunks."""
    mark, length, form, chunk = struct.unpack_from("<4sI4s4s", body)
    if (mark, form) != (b"RIFF", b"WEBP") or length + 8 not in (len(body), len(body) - 1):
        return None
    if chunk == b"VP8X":
        return int.from_bytes(body[24:27], "little") + 1, int.from_bytes(body[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(body[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 " and body[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


_KINDS = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}
