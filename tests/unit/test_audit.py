"""The audit log: what stands in its lines, and the file that they go to."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import stat
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale import audit as audit_module
from cctailscale.audit import MAX_SHOWN_TARGETS, MAX_WAITING_LINES, OFF, Audit, asked
from cctailscale.auditfile import AuditFile
from cctailscale.call import Call, answering, carried, dialled
from cctailscale.errors import ConnectionRefused
from cctailscale.errors.text import MAX_ADDRESS_CHARS
from cctailscale.redact import Redactor

SECRET = "hunter22-is-a-secret"
LINE = b'{"time":"x","n":%d}\n'


class Names:
    """A node that knows one peer."""

    hostname: str | None = "cc-ada-app-1a2b"

    async def name_at(self, address: str) -> str | None:
        return "web.tail1234.ts.net" if address.startswith("100.64.0.2") else None


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


# ---- lines -----------------------------------------------------------------------------------------------------------


async def test_a_call_has_a_line_with_what_it_reached_and_how_it_ended(path: Path) -> None:
    async with Audit.opened(path, Redactor(SECRET), Names()) as audit:
        with answering("7") as call:
            async with audit.entry("tool", call, call="7", tool="tailscale_fetch", asked={"url": f"http://{SECRET}/"}):
                dialled("100.64.0.2:80")
                dialled("10.1.2.3:80")
                carried(5, 120)
    (line,) = read(path)
    assert line.pop("time").endswith("Z")
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "tool", "node": "cc-ada-app-1a2b", "call": "7", "tool": "tailscale_fetch",
        "asked": {"url": "http://[secret]/"},
        "targets": [{"address": "100.64.0.2:80", "name": "web.tail1234.ts.net"}, {"address": "10.1.2.3:80"}],
        "sent_bytes": 5, "received_bytes": 120, "outcome": "ok",
    }  # fmt: skip


async def test_a_call_that_fails_or_is_cancelled_says_so(path: Path) -> None:
    async with Audit.opened(path, Redactor(), Names()) as audit:
        with pytest.raises(ConnectionRefused):
            async with audit.entry("tool", Call("1")):
                raise ConnectionRefused("web:80") from OSError()
        with pytest.raises(RuntimeError):  # as the SDK wraps ours
            async with audit.entry("tool", Call("2")):
                raise RuntimeError from ConnectionRefused("web:80")
        with anyio.CancelScope() as scope:
            async with audit.entry("tool", Call("3", {"100.64.0.2:80": None})):
                scope.cancel()
                await anyio.sleep_forever()
    failed, wrapped, cancelled = read(path)
    assert (failed["outcome"], failed["error"]) == ("failed", "ConnectionRefused")
    assert (wrapped["outcome"], wrapped["error"]) == ("failed", "ConnectionRefused")
    assert cancelled["outcome"] == "cancelled"
    assert cancelled["targets"][0]["name"] == "web.tail1234.ts.net"


async def test_a_call_to_many_shows_some_and_counts_the_rest(path: Path) -> None:
    targets = dict.fromkeys(f"100.64.1.{n}:9321" for n in range(MAX_SHOWN_TARGETS + 5))
    async with Audit.opened(path, Redactor(), Names()) as audit, audit.entry("tool", Call("1", targets)):
        pass
    (line,) = read(path)
    assert len(line["targets"]) == MAX_SHOWN_TARGETS
    assert line["targets_total"] == MAX_SHOWN_TARGETS + 5


def test_what_was_asked_for_shows_no_user_password_query_body_or_header() -> None:
    arguments = {
        "url": "https://ada:pw@web/a?token=t#f", "to": ["web", 7, "x\n\x1b[2J"], "port": 80,
        "body": "b", "headers": {"Authorization": "h"}, "save_to": "p", "host": None,
    }  # fmt: skip
    assert asked(arguments, Redactor()) == {"url": "https://web/a", "to": ["web", "x [2J"], "port": 80}


@pytest.mark.parametrize("name", ["lead_hostname", "member", "owner"])
def test_a_device_that_a_tool_for_teams_is_called_with_is_shown(name: str) -> None:
    assert asked({name: "cc-ada-app-3f2a", "subject": "Publish"}, Redactor()) == {name: "cc-ada-app-3f2a"}


@pytest.mark.parametrize("before", range(MAX_ADDRESS_CHARS - len(SECRET), MAX_ADDRESS_CHARS + 1))
def test_no_part_of_a_secret_is_left_where_an_address_is_cut(before: int) -> None:
    url = f"http://web/{'x' * (before - 11)}{SECRET}/more"
    assert "hu" not in asked({"url": url}, Redactor(SECRET))["url"]


class Defective(Names):
    async def name_at(self, address: str) -> str | None:
        raise KeyError(address)


async def test_a_defect_in_the_audit_fails_no_call(path: Path) -> None:
    async with Audit.opened(path, Redactor(), Defective()) as audit, audit.entry("tool", Call("1", {"x:1": None})):
        pass
    assert read(path)[0]["targets"] == [{"address": "x:1"}]


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=50), max_size=5))
def test_whatever_the_facts_a_line_is_one_line_of_ascii(facts: dict[str, str]) -> None:
    async def written() -> list[str]:
        lines, waiting = anyio.create_memory_object_stream[str](1)
        audit = Audit()
        audit._lines, audit._redactor, audit._node = lines, Redactor(), Names()
        with lines, waiting:
            audit.note("tool", asked=facts)
            return [waiting.receive_nowait()]

    (line,) = anyio.run(written)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["asked"] == facts


async def test_without_a_file_nothing_is_made_of_it(tmp_path: Path) -> None:
    async with Audit.opened(None, Redactor(), Names()) as audit, audit.entry("tool", Call("1")) as entry:
        entry["status"] = 200
    OFF.note("tool")
    assert list(tmp_path.iterdir()) == []


# ---- a disk that does not take them ----------------------------------------------------------------------------------


class Stuck:
    """A file that takes nothing before `free` is set."""

    def __init__(self, path: Path) -> None:
        self.free = threading.Event()
        self.begun = threading.Event()
        self._file = AuditFile(path)

    def append(self, lines: bytes) -> None:
        self.begun.set()
        self.free.wait(20)
        self._file.append(lines)


async def test_a_disk_that_hangs_holds_nothing_up_and_what_is_lost_is_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(path)
    monkeypatch.setattr(audit_module, "AuditFile", lambda _: stuck)
    monkeypatch.setattr(audit_module, "CLOSE_SECONDS", 20.0)
    async with Audit.opened(path, Redactor(), Names()) as audit:
        audit.note("first")
        await anyio.to_thread.run_sync(stuck.begun.wait, 20)
        for _ in range(MAX_WAITING_LINES + 3):
            audit.note("tool")
        stuck.free.set()
    events = [line["event"] for line in read(path)]
    assert events == ["first", "lost", *["tool"] * MAX_WAITING_LINES]
    assert read(path)[1]["lines"] == 3


async def test_the_end_does_not_wait_for_a_disk_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck(path)
    monkeypatch.setattr(audit_module, "AuditFile", lambda _: stuck)
    try:
        with anyio.fail_after(5):
            async with Audit.opened(path, Redactor(), Names()) as audit:
                audit.note("first")
                await anyio.to_thread.run_sync(stuck.begun.wait, 20)
    finally:
        stuck.free.set()


async def test_lines_are_written_though_all_is_cancelled(path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with Audit.opened(path, Redactor(), Names()) as audit:
            audit.note("last")
            scope.cancel()
            await anyio.sleep_forever()
    assert [line["event"] for line in read(path)] == ["last"]


async def test_a_file_that_cannot_be_written_is_warned_of_once_and_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    async with Audit.opened(path, Redactor(), Names()) as audit:
        for _ in range(3):
            audit.note("tool")
            await until(lambda: audit._lines is not None and not audit._lines.statistics().current_buffer_used)
        with anyio.fail_after(10):
            while audit._lost < 3:  # noqa: ASYNC110 - the thread tells nobody
                await anyio.sleep(0.005)
        path.rmdir()
        audit.note("tool")
    assert [(line["event"], line.get("lines")) for line in read(path)] == [("lost", 3), ("tool", None)]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "Is a directory" in warnings[0].getMessage()


async def until(condition: Any) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - the writer tells nobody
            await anyio.sleep(0.005)


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        AuditFile(path).append(LINE % 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    AuditFile(path).append(LINE % 2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == LINE % 1 + LINE % 2


def test_a_full_file_makes_place_and_the_oldest_goes(path: Path) -> None:
    file = AuditFile(path, max_bytes=2 * len(LINE % 0), kept=2)
    for number in range(9):
        file.append(LINE % number)
    assert path.read_bytes() == LINE % 8
    assert path.with_name("audit.jsonl.1").read_bytes() == LINE % 6 + LINE % 7
    assert path.with_name("audit.jsonl.2").read_bytes() == LINE % 4 + LINE % 5
    assert len(list(path.parent.iterdir())) == 3


def test_a_link_is_not_followed(path: Path) -> None:
    target = path.with_name("target.jsonl")
    target.write_bytes(LINE % 0)
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        AuditFile(path).append(LINE % 1)
    assert target.read_bytes() == LINE % 0


def test_a_file_of_another_kind_is_left_alone(path: Path) -> None:
    path.write_text("alias ls=ls\n")
    path.chmod(0o644)
    with pytest.raises(OSError, match="of another kind"):
        AuditFile(path).append(LINE % 1)
    assert path.read_text() == "alias ls=ls\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_pipe_does_not_hang_it(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        AuditFile(path).append(LINE % 1)


def append_many(path: Path, whose: int) -> None:
    file = AuditFile(path, max_bytes=4000, kept=100)
    for number in range(200):
        file.append(LINE % (1000 * whose + number))


def test_processes_that_share_a_file_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(path, whose)) for whose in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(50)
        assert writer.exitcode == 0
    files = list(path.parent.iterdir())
    assert len(files) > 2
    found = [json.loads(line)["n"] for file in files for line in file.read_bytes().splitlines()]
    assert sorted(found) == [1000 * whose + number for whose in range(3) for number in range(200)]


def write_past_the_end(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    AuditFile(path).append(LINE % 1 * 100)


def test_a_disk_that_is_full_leaves_no_part_of_a_line(path: Path) -> None:
    AuditFile(path).append(LINE % 0)
    writer = multiprocessing.get_context("spawn").Process(target=write_past_the_end, args=(path,))
    writer.start()
    writer.join(50)
    assert writer.exitcode == 1  # the error was raised
    assert path.read_bytes() == LINE % 0
