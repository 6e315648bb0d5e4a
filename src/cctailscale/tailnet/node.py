"""The node that tools use: joined on first use, shared, watched, and replaced when its device is gone.

::

    idle -> joining -> running -> closed
              |  ^        |
              v  |        v
       needs login / needs approval / locked out

One device serves at a time. Where its key has expired, or an administrator has taken its approval back, the next call
goes on with the same device, which control then keeps with its name and addresses: it is logged in again with the key,
or by a person through a link. Where it has lost touch with control, control is asked whether it still has it: if not, a
replacement is built beside it and takes over once it runs; while control does not answer, the old one goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.to_thread

from cctailscale.authkey import Key
from cctailscale.config import Loaded, Settings
from cctailscale.errors import (
    ApprovalNeeded,
    CcTailscaleError,
    ControlUnreachable,
    JoinError,
    JoinTimeout,
    KeyRefused,
    LocalApiError,
    LockedOut,
    LoginNeeded,
    NodeClosed,
    NodeError,
    NodeFailed,
    NodeGone,
    StateDirError,
)
from cctailscale.redact import Redactor
from cctailscale.tailnet.attempt import Attempt, Report, unheard
from cctailscale.tailnet.held import Held, HeldDevices
from cctailscale.tailnet.models import IPNState
from cctailscale.tailnet.peers import away
from cctailscale.tailnet.session import Session
from cctailscale.tailnet.sweep import sweep

if TYPE_CHECKING:
    from cctailscale.tailnet.device import Device

__all__ = ["Node", "NodeState", "Report"]

log = logging.getLogger(__name__)

# A look at whether control still has the device serves all calls of one second.
CHECK_SECONDS = 1.0
# Control that does not answer costs a call some seconds, and is asked again so much later.
CHECK_AGAIN_SECONDS = 10.0
# A call of a tool notices that control has deleted this device. While nobody calls, others still count on it: agents
# that send messages, programs that use a forward.
LOOK_SECONDS = 20.0
# Each time that this does not succeed, control is left alone for twice as long, up to this.
MAX_LOOK_SECONDS = 600.0


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
# A device that control has, and that does not run: its key has expired, or an administrator has taken the approval
# back; and what comes between that and Running.
_CAN_RUN_AGAIN = (IPNState.NeedsLogin, IPNState.NeedsMachineAuth, IPNState.Starting)


class Node:
    """The tailnet for the tools. `opened` owns its lifetime; `device` gives the device that runs, joining first."""

    def __init__(self, loaded: Loaded, redactor: Redactor, tasks: anyio.abc.TaskGroup, *, sweeps: bool = True) -> None:
        self._loaded = loaded
        self._redactor = redactor
        self._tasks = tasks
        self._session: Session | None = None
        self._serving: Held | None = None  # runs, or ran until control took it away
        self._waiting: Held | None = None  # for a login, an approval or a signature; the next call goes on with it
        self._devices = HeldDevices(tasks)
        self._attempt: Attempt | None = None
        self._obstacle: CcTailscaleError | None = None
        self._looking = anyio.Lock(fast_acquire=True)
        self._next_look = 0.0
        self._swept = not sweeps
        self._stopping = False
        self._served = anyio.Event()  # the next device has begun to serve
        self.started_at: float | None = None  # monotonic; when the device began to run

    @classmethod
    @asynccontextmanager
    async def opened(cls, loaded: Loaded, redactor: Redactor, *, sweeps: bool = True) -> AsyncIterator[Node]:
        """A node that has done nothing yet. On the way out every device is closed; see `stop` for the logout.

        `sweeps`: once joined, it clears away what killed sessions have left.
        """
        async with anyio.create_task_group() as tasks:
            node = cls(loaded, redactor, tasks, sweeps=sweeps)
            tasks.start_soon(node._look_again)
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
        """What the last join or replacement ended with, or that control does not answer; None while all is well."""
        return self._obstacle

    @property
    def hostname(self) -> str | None:
        """The name that control is asked for; None before the first join."""
        return self._session.hostname if self._session else None

    @property
    def running_device(self) -> Device | None:
        """The device, if one serves and runs now."""
        return self._serving.device if self._serving is not None and self._serving.device.running else None

    @property
    def settings(self) -> Settings:
        """The settings as loaded; unsound ones only have defaults in place of what is wrong."""
        return self._loaded.settings

    def checked_settings(self) -> Settings:
        """The settings, once they are sound. Raises SettingsError."""
        return self._loaded.check()

    async def device(self, report: Report) -> Device:
        """The device, running. The first call joins; later ones return at once while control has the device.

        `report` is told the stages of a join that this call waits for. Raises SettingsError, StateDirError, JoinError
        (which one says what is needed), NodeGone, NodeClosed, NodeFailed.
        """
        if self._stopping:
            raise NodeClosed
        if self._serving is None:
            await self._attempted(self._join, report)
        elif not await self._is_sound():
            await self._attempted(self._replace, report)
        if self._serving is None:
            raise NodeClosed
        return self._serving.device

    async def attempt(self, report: Report) -> Device | None:
        """As `device`, but None where the join does not succeed; `state` and `obstacle` then say why.

        Raises SettingsError, StateDirError and NodeClosed.
        """
        try:
            return await self.device(report)
        except (JoinError, NodeGone, NodeFailed):
            return None

    async def notice(self) -> str | None:
        """What an answer has to say beside itself: that control is away. None while it is not, and before a join."""
        if self._serving is None:
            return None
        try:
            return away(await self._serving.device.api.shared_status(peers=False))
        except (LocalApiError, NodeClosed):  # the node closes
            return None

    async def name_at(self, address: str) -> str | None:
        """The MagicDNS name of the peer with this "ip" or "ip:port", by WhoIs; None if nobody has it, or none says."""
        device = self.running_device
        try:
            who = await device.whois(address) if device is not None else None
        except CcTailscaleError:
            return None
        return who.node.name or None if who is not None else None

    async def next_device(self, before: Device | None) -> Device:
        """The device that serves, as soon as it is another one than `before`. It does not join: others do, by need."""
        while self._serving is None or self._serving.device is before:
            await self._served.wait()
        return self._serving.device

    async def _look_again(self) -> None:
        """Sees to it that a device which control has deleted is replaced, also while nobody calls a tool."""
        await self.next_device(None)
        pause = LOOK_SECONDS
        while True:
            await anyio.sleep(pause)
            pause = min(2 * pause, MAX_LOOK_SECONDS)
            try:
                await self.device(unheard)
                pause = LOOK_SECONDS
            except CcTailscaleError as error:
                log.info("the node does not run: %s", error.happened)
            except Exception:  # a defect in there must not end the session
                log.exception("the node could not be looked at")

    async def passed(self, obstacle: JoinError) -> None:
        """Returns once a person has done what `obstacle`, the last one, asks for, or it reads otherwise by now."""
        waiting = self._waiting
        if waiting is not None:
            device = waiting.device
            await device.wait_until(lambda: str(device.obstacle()) != str(obstacle))

    async def _is_sound(self) -> bool:
        """Whether the device is to go on serving: it runs, and control does not say that it has no such device."""
        async with self._looking:
            if self._serving is None or self._attempt is not None:  # somebody else has found out meanwhile
                return False
            device = self._serving.device
            if not device.running:
                return False
            if time.monotonic() < self._next_look:
                return True
            online = await device.is_online()
            known = True if online else await device.is_known()
            if known is False:
                return False
            if known is None:
                self._next_look = time.monotonic() + CHECK_AGAIN_SECONDS
                self._obstacle = ControlUnreachable(device.config.control_url, joined=True)
                log.warning("%s", self._obstacle)
            else:
                self._next_look = time.monotonic() + CHECK_SECONDS
                self._obstacle = None
            return True

    # ---- attempts ---------------------------------------------------------------------------------------------------

    async def _attempted(self, work: Callable[[Attempt], Awaitable[None]], report: Report) -> None:
        """Waits for the attempt under way, or for a new one that does `work`. Raises what it ended with."""
        while self._attempt is not None and self._attempt.abandoned:
            await self._attempt.done.wait()
        if self._stopping:
            raise NodeClosed
        if self._attempt is None:
            self._attempt = Attempt()
            self._tasks.start_soon(self._run, self._attempt, work)
        await self._attempt.wait(report)

    async def _run(self, attempt: Attempt, work: Callable[[Attempt], Awaitable[None]]) -> None:
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
            if attempt.error is None or not attempt.abandoned:
                self._obstacle = attempt.error
            self._attempt = None
            attempt.done.set()

    async def _join(self, attempt: Attempt) -> None:
        settings = self._loaded.check()
        self._serve(await self._joined(attempt, settings))
        if not self._swept:
            self._swept = True
            self._tasks.start_soon(sweep, settings)

    async def _joined(self, attempt: Attempt, settings: Settings) -> Held:
        waiting = self._waiting
        if waiting is not None:
            goes_on = await self._goes_on(attempt, waiting, settings)
            self._waiting = None
            if goes_on:
                return waiting
            await waiting.discard()
        if self._session is None:
            self._session = await anyio.to_thread.run_sync(Session.claim, settings)
        key = await self._read_key(settings)
        states = await anyio.to_thread.run_sync(self._session.kept_states)
        kept = [state_dir for state_dir in states if state_dir not in self._devices.left]
        for state_dir in kept:
            resumed = await self._resume(attempt, settings, state_dir, key, last=state_dir == kept[-1])
            if resumed is not None:
                await anyio.to_thread.run_sync(self._session.keep_only, state_dir)
                return resumed
        return await self._join_new(attempt, settings, key)

    async def _goes_on(self, attempt: Attempt, waiting: Held, settings: Settings) -> bool:
        """Whether the device that waits runs now; False if it is of no use any more. Else it goes on waiting."""
        try:
            device = await waiting.open()
        except CcTailscaleError:  # it was cancelled while it started, and failed then
            return False
        try:
            if device.needs_new_login:
                await self._log_in(attempt, waiting, settings)
            else:
                await self._run_or_wait(waiting, settings)
        except (ControlUnreachable, JoinTimeout):
            if await device.is_known() is not False:
                raise
            return False
        except NodeError:
            return False
        return True

    async def _log_in(self, attempt: Attempt, held: Held, settings: Settings) -> None:
        """Logs a device in again in its place: control keeps it, its name and its addresses.

        Whatever ends it before the device runs, the next call goes on with the same device.
        """
        self._waiting = held
        attempt.say(f"Logging the device {held.config.hostname} in again")
        held.device.log_in(await self._read_key(settings), settings.join_timeout)
        await self._run_or_wait(held, settings)
        self._waiting = None

    async def _run_or_wait(self, held: Held, settings: Settings) -> None:
        """Returns when the device runs. One that waits for a person is kept open, and the error says for what."""
        device = await held.open()
        try:
            await device.joined(settings.join_timeout)
        except _FOR_A_PERSON:
            self._waiting = held
            raise

    async def _join_new(self, attempt: Attempt, settings: Settings, key: Key | None) -> Held:
        assert self._session is not None
        attempt.say(f"Joining the tailnet as {self._session.hostname}")
        state_dir = await anyio.to_thread.run_sync(self._session.new_state)
        held = self._devices.open(settings, self._session.hostname, state_dir, key)
        try:
            await self._run_or_wait(held, settings)
        except _FOR_A_PERSON:
            raise
        except (KeyRefused, StateDirError, NodeError):  # control has not let it in
            await held.discard()
            raise
        except BaseException:  # cancelled, or out of time: control may have let it in
            self._take_back(held, settings)
            raise
        return held

    def _take_back(self, held: Held, settings: Settings) -> None:
        """Gives up a join that is under way. Nothing is awaited: the caller may be cancelled."""
        if not settings.ephemeral:
            self._waiting = held  # a logout would not remove the device; the next call goes on with it
        elif not self._stopping:  # `stop` logs all out itself
            self._devices.part_with(held)

    async def _resume(
        self, attempt: Attempt, settings: Settings, kept: Path, key: Key | None, *, last: bool
    ) -> Held | None:
        """Takes this session's device up again; None if that cannot be done.

        At first without the key: control refuses also a sound device, for a key that has expired since. One that is not
        logged in any more, because it has expired or was deleted, is logged in again if it is the `last` hope.
        """
        assert self._session is not None
        attempt.say(f"Taking up the device {self._session.hostname} again")
        held = self._devices.open(settings, self._session.hostname, kept, None)
        try:
            await self._run_or_wait(held, settings)
        except LoginNeeded:
            if last and key is None:
                raise
            if last:
                await self._log_in(attempt, held, settings)
                return held
            self._waiting = None
        except KeyRefused:
            pass
        except _FOR_A_PERSON:
            raise
        except BaseException:
            await held.close()  # its state stays: control may only be away
            raise
        else:
            return held
        await held.discard()
        return None

    async def _replace(self, attempt: Attempt) -> None:
        """Puts a new device in the place of one that control does not have any more; others are gone on with."""
        settings = self._loaded.check()
        old = self._serving
        if old is not None and old.device.running and await old.device.is_online():
            return  # an attempt that was cancelled too late has done it
        gone = old is not None and await old.device.is_known() is False
        if old is None or (not gone and old.device.state in _CAN_RUN_AGAIN):
            self._waiting, self._serving = old or self._waiting, None
            await self._join(attempt)
            return
        assert self._session is not None
        key = await self._read_key(settings)
        try:
            new = await self._join_new(attempt, settings, key)
        except KeyRefused as error:
            raise NodeGone(self._session.hostname, single_use=True, refusal=error.reason) from error
        except _FOR_A_PERSON:
            self._serving = None
            self._devices.part_with(old, told=not gone)
            raise
        self._serve(new)
        self._devices.part_with(old, told=not gone)

    def _serve(self, held: Held) -> None:
        self._serving = held
        self.started_at = time.monotonic()
        self._next_look = self.started_at + CHECK_SECONDS
        served, self._served = self._served, anyio.Event()
        served.set()
        log.info("joined the tailnet of %s as %s", held.config.control_url, held.config.hostname)

    async def _read_key(self, settings: Settings) -> Key | None:
        key = await anyio.to_thread.run_sync(settings.read_key)
        if key is not None:
            self._redactor.add(*key.secrets())
        return key

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def stop(self, seconds: float) -> None:
        """Logs out, which is the first thing sent, then closes all. Never raises; `seconds` bounds the logout.

        A device that has lost touch with control is given a second: its state stays for a later start to log it out.
        An ephemeral device's state is removed once control has confirmed. A device that is not ephemeral keeps both.
        """
        if self._stopping:
            return
        self._stopping = True
        attempt = self._attempt
        if attempt is not None:
            attempt.scope.cancel()  # it must not begin anything new
        try:
            if self._loaded.settings.ephemeral:
                await self._devices.log_all_out(seconds)
            await self._devices.close_all()
            if attempt is not None:
                await attempt.done.wait()
            if self._session is not None:
                await anyio.to_thread.run_sync(self._session.end, self._devices.left)
        except Exception:
            log.exception("the end is not as tidy as it should be")
