"""The log's lines: each is one line, says what was logged, and shows no secret."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale import app
from cctailscale.call import answering
from cctailscale.config import load_settings
from cctailscale.errors import UNPRINTABLE
from cctailscale.logs import LineFormatter, log_to
from cctailscale.redact import Redactor

SECRET = "hunter22-is-a-secret"
LINE = re.compile(r'([a-z]+)=("(?:[^"\\]|\\.)*"|[A-Za-z0-9_.:/@+-]+)(?: |\Z)')
LOG = logging.getLogger("cctailscale.tailnet.node")


def read(line: str) -> dict[str, str]:
    """The fields of a line, all of which has to be fields."""
    fields, at = {}, 0
    while at < len(line):
        found = LINE.match(line, at)
        assert found, line[at:]
        assert found[1] not in fields
        fields[found[1]] = json.loads(found[2]) if found[2].startswith('"') else found[2]
        at = found.end()
    return fields


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the log writes, from debug on."""
    out, root, ours = io.StringIO(), logging.getLogger(), logging.getLogger("cctailscale")
    before = (root.handlers[:], root.level, ours.level)
    log_to(logging.StreamHandler(out), Redactor(SECRET), logging.DEBUG, LineFormatter())
    yield out
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def lines(written: io.StringIO) -> list[dict[str, str]]:
    return [read(line) for line in written.getvalue().splitlines()]


def formatted(text: str, **fields: object) -> str:
    record = {"name": "root", "levelname": "INFO", "msg": "%s", "args": (text,), "created": 0.0}
    return LineFormatter().format(logging.makeLogRecord(record | fields))


def test_a_line_says_when_how_bad_where_and_what() -> None:
    record = {"name": "cctailscale.tailnet.node", "levelname": "INFO", "created": 1_777_889_472.345678}
    assert formatted('joined "x"', **record) == (
        r'time=2026-05-04T10:11:12.345Z level=info source=tailnet.node msg="joined \"x\""'
    )


@given(st.text())
def test_any_text_is_one_line_that_reads_as_it_was(text: str) -> None:
    line = formatted(text)
    assert len(line.splitlines()) <= 1
    assert not [c for c in line if unicodedata.category(c) in UNPRINTABLE]
    assert read(line)["msg"] == text


@pytest.mark.parametrize(
    "forged", ["x\ntime=1970-01-01T00:00:00.000Z level=error msg=forged", 'x" level=error call=9 msg="forged', "x\\"]
)
def test_a_text_cannot_look_like_a_line_or_a_field(forged: str) -> None:
    assert read(formatted(forged)) == {
        "time": "1970-01-01T00:00:00.000Z", "level": "info", "source": "root", "msg": forged,
    }  # fmt: skip


def test_a_traceback_is_part_of_its_line(written: io.StringIO) -> None:
    try:
        raise ValueError("no\nway")
    except ValueError:
        LOG.exception("it failed")
    (line,) = lines(written)
    assert line["msg"] == "it failed"
    assert line["error"].startswith("Traceback (most recent call last):\n")
    assert line["error"].endswith("ValueError: no\nway")


def test_no_secret_shows(written: io.StringIO) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        LOG.exception("%s", f"key {SECRET}", stack_info=True)
    assert SECRET not in written.getvalue()
    assert lines(written)[0]["msg"] == "key [secret]"


# ---- the call --------------------------------------------------------------------------------------------------------


async def test_what_a_call_starts_is_logged_with_its_id(written: io.StringIO) -> None:
    async def call(number: str, begun: anyio.Event, other: anyio.Event) -> None:
        with answering(number):
            begun.set()
            await other.wait()  # both are under way
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, f"task of {number}")
            await anyio.to_thread.run_sync(LOG.info, f"thread of {number}")
        LOG.info("after it")

    async def say(text: str) -> None:
        LOG.info("%s", text)

    first, second = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as calls:
        calls.start_soon(call, "1", first, second)
        calls.start_soon(call, "b 2", second, first)
    assert {(line.get("call"), line["msg"]) for line in lines(written)} == {
        ("1", "task of 1"), ("1", "thread of 1"), ("b 2", "task of b 2"), ("b 2", "thread of b 2"), (None, "after it"),
    }  # fmt: skip


def test_what_comes_in_during_a_call_is_of_no_call(written: io.StringIO) -> None:
    with answering("7"), answering(None):
        LOG.info("a connection")
    assert "call" not in lines(written)[0]


# ---- the level -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "least"),
    [
        ({}, logging.INFO),
        ({"TS_LOG_LEVEL": "Debug"}, logging.DEBUG),
        ({"TS_LOG_LEVEL": "error"}, logging.ERROR),
        ({"TS_VERBOSE": "1"}, logging.DEBUG),
        ({"TS_VERBOSE": "1", "TS_LOG_LEVEL": "warning"}, logging.WARNING),
        ({"TS_LOG_LEVEL": "loud"}, logging.INFO),
    ],
)
def test_the_level_is_the_one_that_was_asked_for(environ: dict[str, str], least: int) -> None:
    assert app._level(load_settings(environ).settings, logging.INFO) == least


def test_other_packages_are_heard_from_warnings_on(written: io.StringIO) -> None:
    other = logging.getLogger("asyncio")
    other.info("quiet")
    other.warning("loud")
    assert [line["source"] for line in lines(written)] == ["asyncio"]
    log_to(logging.StreamHandler(sys.stderr), Redactor(), logging.ERROR, LineFormatter())
    assert not other.isEnabledFor(logging.WARNING)
