"""The log on stderr: one line of logfmt for each record, which a person reads and a program parses.

::

    time=2026-05-04T10:11:12.345Z level=info source=tailnet.node call=7 msg="joined the tailnet of …"

`source` is the module, `call` the id of the MCP call that caused it (absent where none did), `error` a traceback. The
form is that of Go's slog.TextHandler. Texts are quoted as in JSON, and what could break a line or steer a terminal is
escaped in them: no text can look like a line of its own.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from datetime import UTC, datetime

from cctailscale.call import current_id
from cctailscale.errors import UNPRINTABLE
from cctailscale.redact import RedactingFilter, Redactor

# These need no quotes: nothing in them separates, quotes or escapes.
_BARE = re.compile(r"[A-Za-z0-9_.:/@+-]+")


class LineFormatter(logging.Formatter):
    """A record as one line. It has to be formatted in the context that logged it, as handlers that do not queue do."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = {
            "time": instant(record.created),
            "level": record.levelname.lower(),
            "source": record.name.removeprefix("cctailscale."),
            "call": current_id(),
            "msg": record.getMessage(),
            "error": self._trouble(record),
        }
        return " ".join(f"{name}={_value(value)}" for name, value in fields.items() if value is not None)

    def _trouble(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return "\n".join(filter(None, (record.exc_text, record.stack_info))) or None


def log_to(handler: logging.Handler, redactor: Redactor, level: int, formatter: logging.Formatter) -> None:
    """Sends this package's log from `level` on, and the warnings of others, to `handler` and to nothing else."""
    handler.setFormatter(formatter)
    handler.addFilter(RedactingFilter(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("cctailscale").setLevel(level)


def instant(seconds: float) -> str:
    """A time since the epoch as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _value(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)  # escapes what ends the quotes, and line feeds
    return quoted if quoted.isprintable() else "".join(map(_escaped, quoted))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in UNPRINTABLE:
        return character
    return json.dumps(character)[1:-1] if ord(character) > 0x7F else f"\\u{ord(character):04x}"
