"""The node that tools use: joined on first use, shared, watched, and replaced when its device is gone.

::

    idle -> joining -> running -> closed
              |  ^        |
              v  |        v
       needs login / needs approval / locked out

One `Device` serves at a time. While a replacement joins there are two: the old one serves until the new one runs, since
a device that control has deleted and a control server that is down look the same from here.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread

from cctailscale import statedir
from cctailscale.config import Key, Loaded, Settings
from cctailscale.errors import (
    ApprovalNeeded,
    CcTailscaleError,
    ControlUnreachable,
    JoinError,
    JoinTimeout,
    KeyRefused,
    LockedOut,
    LoginNeeded,
    NodeClosed,
    NodeError,
    NodeFailed,
    NodeGone,
)
from cctailscale.redact import Redactor
from cctailscale.tailnet.binding import NodeConfig
from cctailscale.tailnet.models import IPNState
from cctailscale.tailnet.session import Session

if TYPE_CHECKING:
    from cctailscale.tailnet.device import Device

log = logging.getLogger(__name__)

# Says what is going on while a call waits for the join.
Report = Callable[[str], Awaitable[None]]

# A look at whether control still has the device serves all calls of one second.
CHECK_SECONDS = 1.0
# A control server that was restarted is back in its map poll within this time; a deleted device never is.
RECONNECT_SECONDS = 3.0
# How often is looked whether it is back: LocalAPI has no event for it.
RECONNECT_POLL_SECONDS = 0.2
# A call waits so long for a replacement, then goes on with the old device: peers may be reachable without control.
PATIENCE_SECONDS = 8.0
# The pause between two attempts at a replacement.
REPLACE_EVERY_SECONDS = 30.0
# For the logout of a device that nobody waits for: a replaced or an abandoned one.
FAREWELL_SECONDS = 10.0


class NodeState(StrEnum):
    """Where the node is in its life; the value is what people read."""

    IDLE = "idle"
    JOINING = "joining"
    NEEDS_LOGIN = "needs login"
    NEEDS_APPROVAL = "needs approval"
    LOCKED_OUT = "locked out"
    RUNNING = "running"
    CLOSED = "closed"


_WAITING_STATES: dict[type, NodeState] = {
    LoginNeeded: NodeState.NEEDS_LOGIN,
    ApprovalNeeded: NodeState.NEEDS_APPROVAL,
    LockedOut: NodeState.LOCKED_OUT,
}
# What a person has to do something about while the device stays open.
_FOR_A_PERSON = (LoginNeeded, ApprovalNeeded, LockedOut)


class _Held:
    """A device with the scope of the task that holds it open: cancelling the scope closes the device."""

    def __init__(self, device: Device, scope: anyio.CancelScope, state_dir: Path) -> None:
        self.device = device
        self.scope = scope
        self.state_dir = state_dir
        self.closed = anyio.Event()


class _Attempt:
    """One join that any number of calls wait for. It is cancelled when the last of them is."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.error: CcTailscaleError | None = None
        self.waiting = 0
        self.stage = "Starting the Tailscale node"
        self._stage_changed = anyio.Event()

    def say(self, stage: str) -> None:
        self.stage = stage
        self._stage_changed.set()
        self._stage_changed = anyio.Event()

    async def reported_to(self, report: Report) -> None:
        """Tells each stage, until cancelled."""
        while True:
            changed = self._stage_changed
            await report(self.stage)
            await changed.wait()

    async def wait(self, report: Report, seconds: float) -> bool:
        """Waits for the end; False if `seconds` passed first. Raises the error that the attempt ended with."""
        self.waiting += 1
        try:
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as reporting:
                    reporting.start_soon(self.reported_to, report)
                    await self.done.wait()
                    reporting.cancel_scope.cancel()
        except BaseException:
            if self.waiting == 1 and not self.done.is_set():
                self.scope.cancel()
            raise
        finally:
            self.waiting -= 1
        if self.done.is_set() and self.error is not None:
            raise self.error
        return self.done.is_set()


class Node:
    """The tailnet for the tools. `opened` owns its lifetime; `device` gives the device that runs, joining first."""

    def __init__(self, loaded: Loaded, redactor: Redactor, tasks: anyio.abc.TaskGroup) -> None:
        self._loaded = loaded
        self._redactor = redactor
        self._tasks = tasks
        self._session: Session | None = None
        self._serving: _Held | None = None  # runs, or ran until control or the key's expiry took it away
        self._waiting: _Held | None = None  # for a login, an approval or a signature
        self._all: list[_Held] = []
        self._attempt: _Attempt | None = None
        self._obstacle: CcTailscaleError | None = None  # what the last attempt ended with
        self._checked = 0.0
        self._next_replacement = 0.0
        self._stopping = False
        self.started_at: float | None = None  # monotonic; when the device began to run

    @classmethod
    @asynccontextmanager
    async def opened(cls, loaded: Loaded, redactor: Redactor) -> AsyncIterator[Node]:
        """A node that has done nothing yet. On the way out every device is closed; see `stop` for the logout."""
        async with anyio.create_task_group() as tasks:
            node = cls(loaded, redactor, tasks)
            try:
                yield node
            finally:
                node._stopping = True
                tasks.cancel_scope.cancel()

    @property
    def state(self) -> NodeState:
        """Where the node is now."""
        if self._stopping:
            return NodeState.CLOSED
        if self._attempt is not None:
            return NodeState.JOINING
        if self._waiting is not None:
            return _WAITING_STATES.get(type(self._obstacle), NodeState.NEEDS_LOGIN)
        return NodeState.RUNNING if self._serving is not None else NodeState.IDLE

    @property
    def obstacle(self) -> CcTailscaleError | None:
        """What the last join or replacement ended with; None once the node runs."""
        return self._obstacle

    @property
    def hostname(self) -> str | None:
        """The name that control is asked for; None before the first join."""
        return self._session.hostname if self._session else None

    @property
    def settings(self) -> Settings:
        """The settings as loaded; unsound ones only have defaults in place of what is wrong."""
        return self._loaded.settings

    async def device(self, report: Report) -> Device:
        """The device, running. The first call joins; later ones return at once while control has the device.

        `report` is told the stages of a join that this call waits for. Raises SettingsError, StateDirError, JoinError
        (which one says what is needed), NodeGone, NodeClosed, NodeFailed.
        """
        if self._stopping:
            raise NodeClosed
        if self._serving is None:
            await self._begin(self._join).wait(report, math.inf)
        elif not await self._is_sound(self._serving.device):
            await self._replaced(report)
        if self._serving is None:
            raise NodeClosed
        return self._serving.device

    async def _replaced(self, report: Report) -> None:
        """Waits for a replacement, but not for long, and not anew for each call while control does not answer."""
        if self._attempt is None and time.monotonic() < self._next_replacement:
            if isinstance(self._obstacle, NodeGone):
                raise self._obstacle
            return
        try:
            await self._begin(self._replace).wait(report, PATIENCE_SECONDS)
        except (ControlUnreachable, JoinTimeout):
            log.warning("control does not answer; going on with the device as it is")

    async def attempt(self, report: Report) -> Device | None:
        """As `device`, but None where the join does not succeed; `state` and `obstacle` then say why.

        Raises SettingsError, StateDirError and NodeClosed.
        """
        try:
            return await self.device(report)
        except (JoinError, NodeGone, NodeFailed):
            return None

    async def _is_sound(self, device: Device) -> bool:
        """Whether the device runs and control has it; asked at most once a second."""
        now = time.monotonic()
        if device.running and now - self._checked < CHECK_SECONDS:
            return True
        if not device.running or not await device.is_online():
            return False
        self._checked = now
        self._obstacle = None
        return True

    # ---- attempts ---------------------------------------------------------------------------------------------------

    def _begin(self, work: Callable[[_Attempt], Awaitable[None]]) -> _Attempt:
        """The attempt under way, or a new one that does `work`."""
        if self._attempt is None:
            self._attempt = _Attempt()
            self._tasks.start_soon(self._run, self._attempt, work)
        return self._attempt

    async def _run(self, attempt: _Attempt, work: Callable[[_Attempt], Awaitable[None]]) -> None:
        attempt.error = NodeClosed()  # unless the work gets to its end
        try:
            with attempt.scope:
                await work(attempt)
                attempt.error = None
        except CcTailscaleError as error:
            attempt.error = error
        except Exception as error:
            log.exception("the join failed in an unforeseen way")
            attempt.error = NodeFailed(self._redactor(f"{type(error).__name__}: {error}"))
        finally:
            self._obstacle = attempt.error
            self._attempt = None
            attempt.done.set()

    async def _join(self, attempt: _Attempt) -> None:
        settings = self._loaded.check()
        self._serve(await self._joined(attempt, settings))
        if self._session is not None and not self._session.swept:
            self._session.swept = True
            self._tasks.start_soon(self._sweep, settings)

    async def _joined(self, attempt: _Attempt, settings: Settings) -> _Held:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            try:
                await self._run_or_wait(waiting, settings)
            except (KeyRefused, NodeError):  # the link has expired, say: begin again
                await self._discard(waiting)
            else:
                return waiting
        if self._session is None:
            self._session = await anyio.to_thread.run_sync(Session.claim, settings)
        key = await self._read_key(settings)
        kept = await anyio.to_thread.run_sync(self._session.kept_state)
        resumed = await self._resume(attempt, settings, kept, key) if kept else None
        return resumed or await self._join_new(attempt, settings, key)

    async def _run_or_wait(self, held: _Held, settings: Settings) -> None:
        """Returns when the device runs. One that waits for a person is kept open, and the error says for what."""
        try:
            await held.device.joined(settings.join_timeout)
        except _FOR_A_PERSON:
            self._waiting = held
            raise

    async def _join_new(self, attempt: _Attempt, settings: Settings, key: Key | None) -> _Held:
        assert self._session is not None
        attempt.say(f"Joining the tailnet as {self._session.hostname}")
        held = await self._open(settings, await anyio.to_thread.run_sync(self._session.new_state), key)
        try:
            await self._run_or_wait(held, settings)
        except BaseException:
            if self._waiting is not held:
                await self._discard(held)
            raise
        return held

    async def _resume(self, attempt: _Attempt, settings: Settings, kept: Path, key: Key | None) -> _Held | None:
        """Takes this session's device up again, without the key. None if control does not know it any more."""
        assert self._session is not None
        attempt.say(f"Taking up the device {self._session.hostname} again")
        held = await self._open(settings, kept, None)
        try:
            await self._run_or_wait(held, settings)
        except (LoginNeeded, KeyRefused) as error:
            if key is None and isinstance(error, LoginNeeded):
                raise
            self._waiting = None
            await self._discard(held)
            return None
        except BaseException:
            if self._waiting is not held:
                await self._close(held)  # its state stays: control may only be away
            raise
        return held

    async def _replace(self, attempt: _Attempt) -> None:
        """Puts a new device in the place of one that control does not have any more."""
        settings = self._loaded.check()
        old = self._serving
        assert old is not None
        assert self._session is not None
        if old.device.running and await self._came_back(old.device):
            return
        self._next_replacement = time.monotonic() + REPLACE_EVERY_SECONDS
        key = await self._read_key(settings)
        if key is None and old.device.state is IPNState.NeedsLogin:
            self._waiting, self._serving = old, None
            raise LoginNeeded(old.device.login_url)
        if old.device.state is IPNState.NeedsLogin:  # expired: it would hold the name that the new one asks for
            self._serving = None
            await self._leave(old)
        try:
            new = await self._join_new(attempt, settings, key)
        except KeyRefused as error:
            raise NodeGone(self._session.hostname, single_use=True) from error
        except _FOR_A_PERSON:
            self._retire(old)
            raise
        if old.device.running and await old.device.is_online():  # it was an outage, and both are back
            await self._leave(new)
            return
        self._retire(old)
        self._serve(new)

    def _retire(self, old: _Held) -> None:
        """Takes a device out of service, and logs it out while nobody waits for that."""
        if self._serving is old:
            self._serving = None
            self._tasks.start_soon(self._leave, old)

    async def _came_back(self, device: Device) -> bool:
        with anyio.move_on_after(RECONNECT_SECONDS):
            while True:
                if await device.is_online():
                    self._checked = time.monotonic()
                    return True
                await anyio.sleep(RECONNECT_POLL_SECONDS)
        return False

    def _serve(self, held: _Held) -> None:
        self._serving = held
        self._checked = self.started_at = time.monotonic()
        self._next_replacement = 0.0
        log.info("joined the tailnet of %s as %s", held.device.config.control_url, held.device.config.hostname)

    # ---- devices ----------------------------------------------------------------------------------------------------

    async def _open(self, settings: Settings, state_dir: Path, key: Key | None) -> _Held:
        assert self._session is not None
        value = key.value.get_secret_value() if key else ""
        config = NodeConfig(
            hostname=self._session.hostname,
            state_dir=state_dir,
            control_url=settings.control_url,
            auth_key="" if key and key.oauth else value,
            client_secret=value if key and key.oauth else "",
            tags=settings.tags,
            ephemeral=settings.ephemeral,
            accept_routes=settings.accept_routes,
            upload_logs=settings.logs,
            allow_host_network=settings.allow_host_network,
            verbose=settings.verbose,
            redact=settings.secrets(),
        )
        held: _Held = await self._tasks.start(
            self._hold, config, key.source if key else "", settings.join_timeout, settings.ssl_cert_file
        )
        return held

    async def _hold(
        self,
        config: NodeConfig,
        key_source: str,
        seconds: float,
        extra_ca: Path | None,
        *,
        task_status: anyio.abc.TaskStatus[_Held],
    ) -> None:
        """Keeps one device open until its scope is cancelled."""
        from cctailscale.tailnet.device import Device  # aiohttp comes with it: not before `initialize` is answered

        held: _Held | None = None
        try:
            with anyio.CancelScope() as scope:
                async with Device.opened(config, key_source, seconds, extra_ca) as device:
                    held = _Held(device, scope, config.state_dir)
                    self._all.append(held)
                    task_status.started(held)
                    await anyio.sleep_forever()
        finally:
            if held is not None:
                self._all.remove(held)
                held.closed.set()

    async def _close(self, held: _Held) -> None:
        held.scope.cancel()
        with anyio.CancelScope(shield=True):
            await held.closed.wait()

    async def _discard(self, held: _Held) -> None:
        """Closes a device that never ran, and removes what it had written."""
        await self._close(held)
        await anyio.to_thread.run_sync(partial(shutil.rmtree, held.state_dir, ignore_errors=True))

    async def _leave(self, held: _Held) -> None:
        """Logs a device out that nobody uses any more, then discards it."""
        try:
            await held.device.handle.logout(FAREWELL_SECONDS)
        except CcTailscaleError as error:
            log.info("the old device could not be logged out: %s", error.happened)
        await self._discard(held)

    # ---- the session's directory, and those of others ---------------------------------------------------------------

    async def _read_key(self, settings: Settings) -> Key | None:
        key = await anyio.to_thread.run_sync(settings.read_key)
        if key is not None:
            self._redactor.add(*key.secrets())
        return key

    async def _sweep(self, settings: Settings) -> None:
        """Logs out and removes what sessions that were killed have left."""
        try:
            abandoned = await anyio.to_thread.run_sync(statedir.abandoned, settings.state_dir)
            with ExitStack() as claimed:
                for directory in abandoned:
                    claimed.enter_context(directory)
                for directory in abandoned:
                    await self._sweep_one(settings, directory)
        except CcTailscaleError as error:
            log.info("sessions that were killed are left for later: %s", error.happened)
        except Exception:
            log.exception("the sweep failed in an unforeseen way")

    async def _sweep_one(self, settings: Settings, directory: statedir.SessionDir) -> None:
        from cctailscale.tailnet.device import Device

        kept = Session(directory).kept_state()
        if kept is not None:
            config = NodeConfig(
                hostname=directory.hostname,
                state_dir=kept,
                control_url=directory.record.control_url,
                ephemeral=True,
                verbose=settings.verbose,
                redact=settings.secrets(),
            )
            # Without a key: a device that control has removed by now is not made anew.
            async with Device.opened(config, "", FAREWELL_SECONDS) as device:
                with suppress(*_FOR_A_PERSON, KeyRefused):  # gone already, or has never been let in
                    await device.joined(FAREWELL_SECONDS)
                if device.state is not IPNState.NeedsLogin:
                    await device.handle.logout(FAREWELL_SECONDS)
        await anyio.to_thread.run_sync(directory.remove)

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def stop(self, seconds: float) -> None:
        """Logs out, which is the first thing sent, then closes all. Never raises; `seconds` bounds the logout.

        An ephemeral device's directory is removed once control has confirmed. A device that is not ephemeral keeps
        both.
        """
        if self._stopping:
            return
        self._stopping = True
        confirmed = True
        if self._loaded.settings.ephemeral:
            confirmed = await self._log_all_out(seconds)
        for held in list(self._all):
            held.scope.cancel()
        if self._attempt is not None:
            self._attempt.scope.cancel()
        for held in list(self._all):
            await held.closed.wait()
        if self._session is not None:
            try:
                await anyio.to_thread.run_sync(self._session.end, confirmed and self._loaded.settings.ephemeral)
            except CcTailscaleError as error:
                log.warning("%s", error)

    async def _log_all_out(self, seconds: float) -> bool:
        confirmed: list[bool] = []

        async def one(held: _Held) -> None:
            try:
                await held.device.handle.logout(seconds)
                confirmed.append(True)
            except CcTailscaleError as error:
                log.warning("the logout was sent, but is not confirmed: %s", error.happened)
                confirmed.append(False)

        async with anyio.create_task_group() as logouts:
            for held in list(self._all):
                logouts.start_soon(one, held)
        return all(confirmed)
