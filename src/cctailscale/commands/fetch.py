"""`cc-tailscale fetch`: the tool's request and its guard; of the answer what a person, or a pipe, wants."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from dataclasses import asdict
from typing import Any

from cctailscale.commands.calls import Tools, WrongArguments
from cctailscale.commands.screen import Screen, apart
from cctailscale.errors import shown_address
from cctailscale.redact import Redactor
from cctailscale.tailnet.fetch import Answer, Request, fetch
from cctailscale.tools.networking import body_text

# Of the command line, what has the name and the form of the tool's parameter.
AS_THEY_ARE = ("url", "method", "body", "max_bytes", "timeout_seconds")


async def fetched(arguments: argparse.Namespace, screen: Screen, tools: Tools) -> int:
    """0, or 1 if a body that goes to a pipe was cut."""
    checked = tools.checked("tailscale_fetch", _for_the_tool(arguments))
    whole = not (screen.is_terminal or arguments.include or arguments.json)
    request = Request(
        url=checked["url"],
        method=checked["method"],
        headers=checked["headers"],
        body=None if checked["body"] is None else checked["body"].encode(),
        seconds=checked["timeout_seconds"],
        max_bytes=checked["max_bytes"],
        follow_redirects=checked["follow_redirects"],
        verify_tls=checked["verify_tls"],
    )
    device = await tools.joined()
    tools.progress.show(f"Waiting for {shown_address(request.url)}")
    out = _Stdout()
    try:
        answer = await fetch(device.dialer, request, out if whole else None)
        tools.progress.pause()
        if arguments.json:
            await apart(screen.result_json, _as_json(answer))
        elif screen.is_terminal:
            _show(answer, request.max_bytes, screen, tools.parts.redactor, head=arguments.include)
        else:
            await out.write((_head(answer) if arguments.include else b"") + answer.body)
    except _Unwritten as unwritten:
        raise unwritten.error from None
    if not arguments.include and answer.status >= 400:
        screen.note(f"{answer.version} {answer.status} {answer.reason}")
    if notice := await tools.parts.node.notice():
        screen.note(notice, "yellow")
    if answer.complete:
        return 0
    cut = f"The body was cut after {len(answer.body)} bytes (--max-bytes)."
    screen.note(f"{cut} A pipe or a file gets all of it, without -i and --json.")
    return 0 if screen.is_terminal else 1


def _for_the_tool(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name, value in vars(arguments).items() if name in AS_THEY_ARE}
    headers = {}
    for line in arguments.header:
        name, colon, value = line.partition(":")
        if not colon:
            raise WrongArguments("a header is given as 'NAME: VALUE'")
        headers[name.strip()] = value.strip()
    given |= {"headers": headers, "follow_redirects": not arguments.no_redirects, "verify_tls": not arguments.insecure}
    return {"method": "POST" if "body" in given else "GET"} | given


class _Unwritten(Exception):  # noqa: N818 - a way through `fetch`, to whom an OSError is one of the network's
    """Stdout does not take what is written to it."""

    def __init__(self, error: OSError) -> None:
        self.error = error


class _Stdout:
    """Where the body goes that is read by a program: as it is, piece by piece, as fast as that program reads."""

    async def expect(self, count: int) -> None:
        """Nothing to prepare."""

    async def write(self, data: bytes) -> None:
        try:
            await apart(_write, data)
        except OSError as error:
            raise _Unwritten(error) from error


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


def _head(answer: Answer) -> bytes:
    lines = [f"{answer.version} {answer.status} {answer.reason}".rstrip()]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def _show(answer: Answer, max_bytes: int, screen: Screen, redact: Redactor, *, head: bool) -> None:
    if head:
        screen.as_is(_head(answer).decode("utf-8", "replace"))
    text, note = body_text(answer, max_bytes, redact)
    screen.as_is(text)
    if note and answer.complete:  # it is binary, or there is none
        screen.note("To keep it, send the output to a file.")


def _as_json(answer: Answer) -> dict[str, Any]:
    shown = asdict(answer)
    for name in ("around", "passed", "saved"):
        del shown[name]
    try:
        shown["body"] = answer.body.decode()
    except UnicodeDecodeError:
        del shown["body"]
        shown["body_base64"] = base64.b64encode(answer.body).decode()
    return shown
