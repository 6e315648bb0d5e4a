"""The audit log: who was called, and who called, as lines of JSON in a file that the user names (TS_AUDIT_LOG).

One line for each tool call, each request of another agent, each connection of a forward when it has ended. No bodies,
no headers, no queries; a peer is named as WhoIs names it. A line is handed over without waiting and written by a
thread: a disk that is slow or full costs lines, which are counted, and never a call.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from cctailscale.auditfile import AuditFile
from cctailscale.call import Call
from cctailscale.errors import CcTailscaleError, plain, shown_address
from cctailscale.errors.text import MAX_ADDRESS_CHARS
from cctailscale.logs import instant
from cctailscale.redact import Redactor

log = logging.getLogger(__name__)

# Lines that wait for the disk. Most have 300 bytes, none more than 20,000; agents may send some hundred a second.
MAX_WAITING_LINES = 1000
# At the end, for what still waits. Claude Code kills half a second after it has asked to stop.
CLOSE_SECONDS = 0.2
# WhoIs is answered from memory, also for a call that was cancelled. It is not waited for longer than this.
NAME_SECONDS = 0.5
# Of one call: a message to everybody has more, and then they are counted.
MAX_SHOWN_TARGETS = 20
# The arguments of tools that say what the caller wants to reach. Others (bodies, headers, files) are not shown.
TARGET_ARGUMENTS = (
    "url", "host", "port", "address", "name", "domain", "source", "to", "lead_hostname", "member", "owner",
)  # fmt: skip


class Surroundings(Protocol):
    """What the node knows. `hostname` is this device's, None before the first join."""

    @property
    def hostname(self) -> str | None: ...

    async def name_at(self, address: str) -> str | None:
        """The name of the peer with this "ip" or "ip:port", by WhoIs; None where no peer has it."""


class Audit:
    """Made by `opened`. One that is made otherwise writes nothing."""

    _lines: MemoryObjectSendStream[str] | None = None
    _redactor: Redactor
    _node: Surroundings

    def __init__(self) -> None:
        self._lost = 0  # since the last line that was written
        self._warned = False

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path | None, redactor: Redactor, node: Surroundings) -> AsyncIterator[Audit]:
        """Writes to `path` as long as the block, or nothing if that is None."""
        if path is None:
            yield OFF
            return
        audit = cls()
        lines, waiting = anyio.create_memory_object_stream[str](MAX_WAITING_LINES)
        audit._lines, audit._redactor, audit._node = lines, redactor, node
        last = anyio.CancelScope(shield=True)  # also when a defect ends all: what led to it is of interest
        async with anyio.create_task_group() as writing:
            writing.start_soon(audit._write, AuditFile(path), waiting, last)
            try:
                yield audit
            finally:
                lines.close()
                last.deadline = anyio.current_time() + CLOSE_SECONDS

    def note(self, event: str, **facts: Any) -> None:  # noqa: ANN401 - JSON
        """Takes a line. Facts that are None are left out."""
        if self._lines is None:
            return
        document = {"time": instant(time.time()), "event": event, "node": self._node.hostname, **facts}
        shown = self._redactor.value({name: value for name, value in document.items() if value is not None})
        try:
            self._lines.send_nowait(json.dumps(shown))  # ASCII: no terminal obeys it
        except (anyio.WouldBlock, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._lost += 1

    @asynccontextmanager
    async def entry(self, event: str, work: Call, /, **facts: Any) -> AsyncIterator[dict[str, Any]]:  # noqa: ANN401
        """Takes a line about `work` at the end of the block, which is the work, however that ends.

        The block may put more facts into what it is given, "outcome" and "error" included.
        """
        if self._lines is None:
            yield {}
            return
        began = time.monotonic()
        ended: dict[str, str] = {"outcome": "cancelled"}
        try:
            yield facts
            ended = {"outcome": "ok"}
        except Exception as error:
            ended = {"outcome": "failed", "error": _kind(error)}
            raise
        finally:
            passed = math.ceil((time.monotonic() - began) * 10_000) / 10
            self.note(
                event,
                **facts,
                **await self._targets(work),
                sent_bytes=work.sent,
                received_bytes=work.received,
                **{name: value for name, value in ended.items() if name not in facts},
                duration_ms=passed,
            )

    async def _targets(self, work: Call) -> dict[str, Any]:
        """What was dialled: each address, and the name that WhoIs has for it."""
        if not work.targets:
            return {}
        shown = [{"address": address} for address in list(work.targets)[:MAX_SHOWN_TARGETS]]
        try:
            with anyio.move_on_after(NAME_SECONDS, shield=True):
                for target in shown:
                    name = await self._node.name_at(target["address"])
                    if name is not None:
                        target["name"] = plain(name)
        except Exception:  # whatever is wrong with the names must not become the outcome of the call
            log.exception("who was reached cannot be told")
        more = len(work.targets) > len(shown)
        return {"targets": shown, "targets_total": len(work.targets) if more else None}

    async def _write(self, file: AuditFile, waiting: MemoryObjectReceiveStream[str], until: anyio.CancelScope) -> None:
        """Writes what waits, all of it at a time, until no more comes."""
        with waiting, until:
            async for line in waiting:
                lines = [line]
                while waiting.statistics().current_buffer_used:
                    lines.append(waiting.receive_nowait())
                await self._append(file, lines)

    async def _append(self, file: AuditFile, lines: list[str]) -> None:
        lost = self._lost
        if lost:
            lines = [json.dumps({"time": instant(time.time()), "event": "lost", "lines": lost}), *lines]
        text = "".join(f"{line}\n" for line in lines)
        try:
            await anyio.to_thread.run_sync(file.append, text.encode(), abandon_on_cancel=True)
            self._lost -= lost
        except OSError as error:
            self._lost += len(lines) - (1 if lost else 0)
            if not self._warned:
                self._warned = True
                log.warning(
                    "The audit log cannot be written: %s. Calls go on without it; the lines that are lost are "
                    "counted, and the count is written once that can be done. Free the disk, or change TS_AUDIT_LOG.",
                    error.strerror or error,
                )


OFF = Audit()


def _kind(error: Exception) -> str:
    """What went wrong, by the name of ours for it; the SDK's errors have it as their cause."""
    return type(error if isinstance(error, CcTailscaleError) else error.__cause__ or error).__name__


def asked(arguments: Mapping[str, Any], redact: Redactor) -> dict[str, Any]:
    """What the caller of a tool wants to reach, in its own words: without passwords and queries, and cut short."""

    def shown(text: str) -> str:
        # What will be cut is redacted before, since half of a secret is not known as one.
        return shown_address(text if len(text) <= MAX_ADDRESS_CHARS else redact(text))

    found: dict[str, Any] = {}
    for name in TARGET_ARGUMENTS:
        match arguments.get(name):
            case str(text):
                found[name] = shown(text)
            case int(number):
                found[name] = number
            case [*several]:
                found[name] = [shown(text) for text in several[:MAX_SHOWN_TARGETS] if isinstance(text, str)]
    return found
