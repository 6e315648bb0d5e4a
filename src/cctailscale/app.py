"""The composition root: builds everything and owns every lifetime."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import anyio
import anyio.abc

from cctailscale.agents.agent import Agent
from cctailscale.agents.inbound import InboundForwards
from cctailscale.audit import Audit
from cctailscale.config import Loaded, Settings, load_settings
from cctailscale.errors import CcTailscaleError
from cctailscale.logs import LineFormatter, log_to
from cctailscale.redact import Redactor
from cctailscale.server import Server, serve
from cctailscale.tailnet.attempt import unheard
from cctailscale.tailnet.forward import Forwards
from cctailscale.tailnet.node import Node

if TYPE_CHECKING:
    from mcp.server.mcpserver.tools import Tool

    from cctailscale.agents.hints import Hint
    from cctailscale.agents.teamwork import Teamwork

log = logging.getLogger("cctailscale")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The logout's answer is waited for that long. Claude Code kills after half a second; the request has gone out by then,
# and takes effect all the same.
LOGOUT_SECONDS = 5.0
# No event tells that a parent is gone; its end usually closes stdin, and this is for when it does not.
PARENT_POLL_SECONDS = 1.0
# With TS_JOIN=start: after a client that only looks (claude mcp list) has gone.
JOIN_AFTER_SECONDS = 5.0


@dataclass(frozen=True)
class Parts:
    """What a command works with."""

    loaded: Loaded
    redactor: Redactor
    node: Node
    forwards: Forwards
    inbound: InboundForwards


def run(environ: Mapping[str, str]) -> NoReturn:
    """Serves MCP on stdin and stdout until told to stop, and ends the process with exit code 0."""
    _fill_standard_streams()
    loaded = load_settings(environ)
    redactor = Redactor(*loaded.settings.secrets())
    handler = logging.StreamHandler(sys.stderr)
    log_to(handler, redactor, _level(loaded.settings, logging.INFO), LineFormatter())
    for problem in loaded.problems:
        log.error("%s", problem)
    for warning in loaded.settings.warnings:
        log.warning("%s", warning)
    with _stop_signals() as wake:
        anyio.run(_serve, loaded, redactor, wake)
    logging.shutdown()
    # All is closed. Taking the interpreter apart would need another 0.2 s, in which Claude Code's KILL may come.
    os._exit(0)


def perform(
    loaded: Loaded, redactor: Redactor, handler: logging.Handler, command: Callable[[Parts], Awaitable[int]]
) -> NoReturn:
    """Runs one command and ends the process with the exit code that it returns; 128 + number of a signal that ended it.

    Its device is the one that `loaded` asks for; an ephemeral one is logged out at the end. `handler` gets the log. The
    command raises nothing.
    """
    for_people = logging.Formatter("cc-tailscale: %(message)s")
    log_to(handler, redactor, _level(loaded.settings, logging.WARNING), for_people)
    with _stop_signals() as wake:
        code = anyio.run(_perform, loaded, redactor, command, wake)
    logging.shutdown()
    os._exit(code)  # as in `run`; what the command wrote, it has flushed


async def _perform(
    loaded: Loaded, redactor: Redactor, command: Callable[[Parts], Awaitable[int]], wake: socket.socket
) -> int:
    code = 0
    running = anyio.CancelScope()  # of the command alone: the node has to live until it is logged out

    def stop() -> None:
        nonlocal code
        code = 128 + wake.recv(1)[0]
        running.cancel()

    loop = asyncio.get_running_loop()
    # What killed sessions left is for a process that lives longer; and their restart may still want it.
    async with (
        Node.opened(loaded, redactor, sweeps=False) as node,
        Forwards.opened(node) as forwards,
        InboundForwards.opened(node, forwards) as inbound,
    ):
        loop.add_reader(wake, stop)
        try:
            with running:
                code = await command(Parts(loaded, redactor, node, forwards, inbound))
        finally:
            loop.remove_reader(wake)
            await node.stop(LOGOUT_SECONDS)
    return code


def _fill_standard_streams() -> None:
    """Puts /dev/null where a standard stream was closed before the start.

    Otherwise the next descriptor that is opened takes its number, and the wire or Go's log goes there.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


@contextlib.contextmanager
def _stop_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable at each stop signal. At the end they are ignored: only the exit remains.

    Not the event loop's own handlers: those are taken off when the loop closes, and the second signal of a client's
    stop sequence would kill the process in the moment between.
    """
    wake, woken = socket.socketpair()
    with wake, woken:
        wake.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)  # the wake-up descriptor does it
        try:
            yield wake
        finally:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)


def _level(settings: Settings, default: int) -> int:
    """The least level of our own log. TS_VERBOSE, for the node's log, asks for all of ours too, unless it is told."""
    if settings.log_level is not None:
        return logging.getLevelNamesMapping()[settings.log_level.upper()]
    return logging.DEBUG if settings.verbose else default


async def _serve(loaded: Loaded, redactor: Redactor, wake: socket.socket) -> None:
    stop = anyio.Event()
    asyncio.get_running_loop().add_reader(wake, stop.set)
    loading = False
    async with (
        Node.opened(loaded, redactor) as node,
        Audit.opened(loaded.settings.audit_log, redactor, node) as audit,
        Forwards.opened(node, audit) as forwards,
        InboundForwards.opened(node, forwards, audit) as inbound,
        Agent.opened(node, audit) as agent,
        _teamwork(node, agent) as teamwork,
        anyio.create_task_group() as tasks,
    ):

        def initialized() -> None:
            nonlocal loading
            if loading:
                return
            loading = True
            # A daemon: a client that only looks (claude mcp list) stops at once, and must not wait for it.
            threading.Thread(target=_load, name="load", daemon=True).start()
            if loaded.settings.join == "start":
                tasks.start_soon(_join_soon, node)

        def tools() -> list[Tool]:
            from cctailscale.tools.catalog import tools_of

            return tools_of(node, forwards, inbound, agent, teamwork, redactor)

        server = Server(tools, redactor, initialized, node.notice, audit, teams=loaded.settings.enable_teams)
        tasks.start_soon(_watch_parent, stop)
        hints = None if loaded.settings.channels == "off" else agent.hints()
        tasks.start_soon(_talk, server, stop, hints)
        try:
            await stop.wait()
        finally:  # also when a defect ends the task group: the device is logged out
            with anyio.CancelScope(shield=True):
                asyncio.get_running_loop().remove_reader(wake)
                await node.stop(LOGOUT_SECONDS)
            tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def _teamwork(node: Node, agent: Agent) -> AsyncIterator[Teamwork | None]:
    """This session's part in a team. Nothing of it is loaded unless the user wants teams."""
    if not node.settings.enable_teams:
        yield None
        return
    from cctailscale.agents.teamwork import Teamwork

    async with Teamwork.opened(node, agent) as teamwork:
        yield teamwork


async def _talk(server: Server, stop: anyio.Event, hints: AsyncIterator[Hint] | None) -> None:
    try:
        await serve(server, stop, hints)
    except Exception:  # whatever ends the conversation, the device is logged out
        log.exception("the conversation with the client broke off")
    finally:
        stop.set()


async def _watch_parent(stop: anyio.Event) -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event to wait for
        await anyio.sleep(PARENT_POLL_SECONDS)
    stop.set()


def _load() -> None:
    """Loads what the first tool call needs, once `initialize` is answered and while nobody waits."""
    try:
        from cctailscale.tailnet import binding, models

        binding.load()
        importlib.import_module("cctailscale.tailnet.device")
        importlib.import_module("cctailscale.tailnet.fetch")
        importlib.import_module("cctailscale.agents.server")
        models.build()
    except Exception:  # the first tool call will say it
        log.debug("what the tools need cannot be loaded", exc_info=True)


async def _join_soon(node: Node) -> None:
    await anyio.sleep(JOIN_AFTER_SECONDS)
    try:
        await node.device(unheard)
    except CcTailscaleError as error:
        log.warning("%s", error)
