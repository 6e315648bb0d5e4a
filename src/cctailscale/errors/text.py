"""What all errors are made of: their base, and text that is safe to show."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

# A reason from control or a peer is one sentence; more than this is not a reason.
MAX_REASON_CHARS = 300
# URLs are shown to be recognised, not to be copied.
MAX_ADDRESS_CHARS = 200
# "Cc" and "Cf" can move a terminal's cursor or turn the direction of the text; "Zl" and "Zp" break lines. "Cn" is what
# Unicode has not given out yet: hundreds of them are to be shown as nothing.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
# Letters and marks of Unicode's Default_Ignorable_Code_Point, which are shown as nothing: they could hide markup, or
# carry text that a model reads and a person does not see. (Its controls and formats are none of `isprintable`.)
UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def plain(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """Text that somebody else chose, as one printable line of at most `limit` characters."""
    # Cut before cleaning: the input may be megabytes. Twice the limit leaves room for what the cleaning takes out.
    text = text[: 2 * limit]
    if not text.isascii():
        text = UNSEEN.sub("", text)
    printable = text
    if not text.isprintable():  # most texts are, and then need no look at each character
        printable = "".join(" " if unicodedata.category(c) in UNPRINTABLE else c for c in text)
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shown_address(address: str) -> str:
    """A URL or host:port as it may be shown: without user, password, query and fragment."""
    try:
        parts = urlsplit(address)
        if parts.netloc:
            return plain(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", MAX_ADDRESS_CHARS)
    except ValueError:  # "http://[": urlsplit refuses it, and so will whoever is told about it
        pass
    bare = address.split("?", 1)[0].split("#", 1)[0]
    return plain(bare.rpartition("@")[2], MAX_ADDRESS_CHARS)


class CcTailscaleError(Exception):
    """Base of all of them. `str()` is the whole text; it needs no traceback to be understood.

    `happened`, `meaning` and `next_step` are its three sentences; `meaning` may be empty.
    """

    def __init__(self, happened: str, meaning: str, next_step: str) -> None:
        self.happened = happened
        self.meaning = meaning
        self.next_step = next_step
        super().__init__(" ".join(part for part in (happened, meaning, next_step) if part))
