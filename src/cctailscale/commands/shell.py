"""Runs one command: calls the tool behind it as the server would, and shows what it answers."""

from __future__ import annotations

import argparse
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import anyio

from cctailscale import app
from cctailscale.commands.arguments import TOOLS
from cctailscale.commands.calls import Tools, WrongArguments
from cctailscale.commands.doctor import examined
from cctailscale.commands.fetch import fetched
from cctailscale.commands.login import STORED, logged_in
from cctailscale.commands.render import exit_code, rendered
from cctailscale.commands.screen import Screen, apart
from cctailscale.commands.team import watched
from cctailscale.config import Loaded, child_environment, load_settings
from cctailscale.errors import CcTailscaleError
from cctailscale.redact import Redactor
from cctailscale.tools.diagnostics import MAX_ROWS

log = logging.getLogger(__name__)

WRONG_COMMAND_LINE = 2  # as argparse has it
OURS = ("command", "json")  # of the command line; all else is the tool's


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> NoReturn:
    """Runs the command of the command line, to the end of the process."""
    loaded = _for_command(load_settings(environ), arguments.command)
    redactor = Redactor(*loaded.settings.secrets())
    screen = Screen(redactor)
    app.perform(loaded, redactor, screen.handler, partial(_carried_out, arguments, screen, child_environment(environ)))


def _for_command(loaded: Loaded, command: str) -> Loaded:
    """The settings with which a command joins, whatever session it is run in and whatever TS_EPHEMERAL says."""
    # But for a login: no other process has this identity, so no directory is taken up, nor taken away from a session.
    of_its_own = {"session_id": f"command-{secrets.token_hex(16)}", "ephemeral": True}
    changed = STORED if command == "login" else of_its_own
    return replace(loaded, settings=loaded.settings.model_copy(update=changed))


async def _carried_out(
    arguments: argparse.Namespace, screen: Screen, children: Mapping[str, str], parts: app.Parts
) -> int:
    """The exit code. Raises nothing: what goes wrong is shown."""
    try:
        with screen.progress() as progress:
            tools = Tools(parts, screen, progress)
            if arguments.command == "doctor":
                return await examined(arguments, screen, tools, children)
            for warning in parts.loaded.settings.warnings:
                screen.note(warning, "yellow")
            return await _COMMANDS.get(arguments.command, _called)(arguments, screen, tools)
    except CcTailscaleError as error:
        screen.error(error)
    except WrongArguments as error:
        screen.note(f"cc-tailscale {arguments.command}: {error}.")
        return WRONG_COMMAND_LINE
    except BrokenPipeError:
        pass  # who reads has had enough
    except OSError as error:  # stdout cannot be written to
        screen.note(f"cc-tailscale: the result could not be written: {error.strerror}.", "bold red")
    except Exception:
        log.exception("this is a defect")
    return 1


async def _called(arguments: argparse.Namespace, screen: Screen, tools: Tools) -> int:
    given = {name: value for name, value in vars(arguments).items() if name not in OURS}
    result = await tools.call(TOOLS[arguments.command], **given)
    await _show(result, arguments, screen, tools)
    return exit_code(result)


async def _devices(arguments: argparse.Namespace, screen: Screen, tools: Tools) -> int:
    """All pages: a terminal scrolls, and a pipe has no end."""
    given = {"filter": " ".join(arguments.filter), "limit": MAX_ROWS}
    if "online_only" in arguments:
        given["online_only"] = arguments.online_only
    result = await tools.call("tailscale_devices", **given)
    while result.cursor is not None:
        page = await tools.call("tailscale_devices", **given, cursor=result.cursor)
        result = page.model_copy(update={"devices": [*result.devices, *page.devices]})
    await _show(result, arguments, screen, tools)
    if not arguments.json:
        screen.note(f"{result.online} of {result.total} devices are online", "dim")
    return exit_code(result)


async def _forward(arguments: argparse.Namespace, screen: Screen, tools: Tools) -> NoReturn:
    """Until a signal ends the command."""
    given = {name: value for name, value in vars(arguments).items() if name not in OURS}
    made = await tools.call("tailscale_port_forward", action="create", **given)
    tools.progress.pause()
    if arguments.json:
        screen.result_json(made.model_dump(mode="json", exclude_none=True))
    else:
        screen.result(screen.text(made.local))
        screen.note(f"{made.note} Ctrl-C closes it.", "dim")
    try:
        while True:
            await anyio.sleep_forever()
    finally:
        for forward in tools.parts.forwards.all():
            sent, received = f"{forward.sent} bytes", f"{forward.received} bytes"
            screen.note(f"Connections: {forward.total}. Sent to {forward.target}: {sent}; received: {received}.", "dim")
            if forward.last_error:
                screen.note(f"The last that failed: {forward.last_error}", "yellow")


async def _show(result: Any, arguments: argparse.Namespace, screen: Screen, tools: Tools) -> None:  # noqa: ANN401 - a result
    tools.progress.pause()
    if arguments.json:
        await apart(screen.result_json, result.model_dump(mode="json"))
        return
    await apart(screen.result, *rendered(result, screen))
    if notice := getattr(result, "notice", None):
        screen.note(notice, "yellow")


_COMMANDS: dict[str, Callable[[argparse.Namespace, Screen, Tools], Awaitable[int]]] = {
    "devices": _devices,
    "fetch": fetched,
    "forward": _forward,
    "login": logged_in,
    "team": watched,
}
