"""One device on the tailnet, from its start to its end: the node in Go, its LocalAPI, and what its bus says."""

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
from pydantic import TypeAdapter

from cctailscale.authkey import Key
from cctailscale.config import DEFAULT_CONTROL_URL
from cctailscale.errors import (
    ApprovalNeeded,
    CcTailscaleError,
    ControlUnreachable,
    JoinTimeout,
    KeyRefused,
    LocalApiError,
    LockedOut,
    LoginNeeded,
    NodeClosed,
    NodeFailed,
    TimedOut,
    Unreachable,
)
from cctailscale.tailnet.binding import NodeConfig, NodeHandle
from cctailscale.tailnet.dial import Dialer
from cctailscale.tailnet.localapi import LocalAPI
from cctailscale.tailnet.models import IPNState, Notify, Warning_, WhoIs

log = logging.getLogger(__name__)

# How long control may fail to answer before the join is given up, well before the whole time-out: a server that is
# down is not worth a minute, and a short gap is bridged.
CONTROL_SECONDS = 10.0
# health.LoginStateWarnable; its text ends with the last error of a login, and there is no other way to see that.
LOGIN_STATE = "login-state"
LOGIN_ERROR = "The last login error was: "
# For control to say whether it has the device. It answers within one round trip; the call that asks waits meanwhile.
ASK_SECONDS = 3.0
# While a login begins, Go may have the former key refused once more. A refusal from that time counts for the new key if
# control has said nothing else so much later.
EARLY_SECONDS = 3.0
# Go closes in milliseconds; but it logs an ephemeral device out first, if that was not done, and gives that 5 s.
CLOSE_SECONDS = 7.0

_WHOIS: TypeAdapter[WhoIs | None] = TypeAdapter(WhoIs | None)


class Device:
    """A device that joins, or has joined. Made by `opened`, which also ends it.

    `state`, `login_url` and `warnings` are what the bus said last; `wait_until` waits for them. With `needs_new_login`
    only `log_in` helps: the key has expired, or `joined` has told that a login led to nothing. `api` is the node's
    LocalAPI, `dialer` makes connections through it, `handle` is the node itself.
    """

    handle: NodeHandle
    api: LocalAPI
    dialer: Dialer
    _tasks: anyio.abc.TaskGroup

    def __init__(self, config: NodeConfig, key_source: str) -> None:
        self.config = config
        self.state = IPNState.NoState
        self.login_url: str | None = None
        self.warnings: list[Warning_] = []
        self.needs_new_login = False
        self.close_seconds = CLOSE_SECONDS
        self._key_source = key_source
        self._new_key: Key | None = None  # of the last login but the first
        self._refusal: str | None = None
        self._login_begins = False
        self._early_refusal: str | None = None  # while the login began: of the former one, or of this one
        self._login_failure: CcTailscaleError | None = None  # the login did not even begin
        self._failure: CcTailscaleError | None = None
        self._answered = False  # whether control has said anything about the login
        self._has_run = False  # since the last login
        self._changed = anyio.Event()
        self._asking_who = anyio.Lock(fast_acquire=True)
        self._who_lately: tuple[float, WhoIs | None] = (-math.inf, None)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, config: NodeConfig, key_source: str, seconds: float, extra_ca: Path | None = None
    ) -> AsyncIterator["Device"]:
        """Starts a device and watches its bus. It need not run yet: see `joined`.

        `seconds` bounds the start, which is an exchange of the client secret if there is one; `key_source` is the
        variable that the key came from, for errors. Raises what `NodeHandle.start` raises.
        """
        device = cls(config, key_source)
        handle = await NodeHandle.open(config)
        try:
            try:
                await handle.start(seconds)
            except KeyRefused as refused:  # the contract does not know which variable the secret came from
                raise KeyRefused(refused.reason, key_source or refused.source) from refused
            loopback = await handle.loopback()
            async with (
                LocalAPI(loopback) as api,
                Dialer(loopback, api, extra_ca) as dialer,
                anyio.create_task_group() as watching,
            ):
                device.handle, device.api, device.dialer, device._tasks = handle, api, dialer, watching
                watching.start_soon(device._watch)
                try:
                    yield device
                finally:
                    watching.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await handle.close(device.close_seconds)

    async def _watch(self) -> None:
        """Follows the bus. Whatever ends it is kept for who waits, and does not end the device's task group."""
        try:
            async for notice in self.api.watch_ipn_bus():
                self._take(notice)
            self._failure = NodeClosed()
        except Exception as error:  # aiohttp's, the parser's: a device that is deaf is of no use, whatever the reason
            log.debug("the bus ended", exc_info=True)
            self._failure = NodeFailed(f"its bus ended ({error})")
        self._tell()

    def _take(self, notice: Notify) -> None:
        if notice.state is not None:
            self.state = notice.state
            if notice.state is IPNState.Running:
                self._answered = self._has_run = True
                self.needs_new_login = False
                self.login_url = self._refusal = self._login_failure = None
            elif notice.state is IPNState.NeedsLogin and self._has_run:
                self.needs_new_login = True
        if notice.browse_to_url:
            self._answered = True
            self.login_url = notice.browse_to_url
        if notice.login_finished is not None:
            self._answered = True
            self.login_url = None
        if notice.err_message:
            self._take_refusal(notice.err_message)
        if notice.health is not None:
            self.warnings = list(notice.health.warnings.values())
        self._tell()

    def _take_refusal(self, reason: str) -> None:
        if self._new_key is not None and not self._new_key.may_be_meant(reason):
            log.debug("a former key was refused once more: %s", reason)
        elif self._login_begins:
            self._early_refusal = reason
        else:
            self._refusal = reason

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Returns once `condition()` holds; it is looked at whenever the bus has said something."""
        while not condition():
            await self._changed.wait()

    @property
    def running(self) -> bool:
        return self._failure is None and self.state is IPNState.Running

    @property
    def login_error(self) -> str:
        """What the last attempt to reach control ended with, or ""."""
        text = next((w.text for w in self.warnings if w.code == LOGIN_STATE), "")
        return text.partition(LOGIN_ERROR)[2]

    def obstacle(self) -> CcTailscaleError | None:
        """What keeps the device from running and does not pass by itself; None while there is hope, or no need."""
        if self._failure is not None:
            return self._failure
        if self.running:
            return None
        if self._login_failure is not None:
            return self._login_failure
        if self._refusal is not None:
            return KeyRefused(self._refusal, self._key_source)
        if self.state is IPNState.NeedsMachineAuth:
            return ApprovalNeeded(self.config.hostname, self.config.other_control)
        if self.login_url is not None:
            return LoginNeeded(self.login_url)
        return None

    def log_in(self, key: Key | None, seconds: float) -> None:
        """Begins to log the device in again, in its place; `joined` tells what comes of it: without a key, a link.

        `seconds` bounds the exchange of a client secret. It is the device's own task: a call that waits for it may be
        cancelled, and the next one waits for the same login.
        """
        # What the bus has said of the former login counts no more.
        self._has_run = self._answered = self.needs_new_login = False
        self._login_begins, self._early_refusal = True, None
        self._refusal = self._login_failure = self.login_url = None
        self._new_key, self._key_source = key, key.source if key else ""
        self._tasks.start_soon(self._log_in, key, seconds)

    async def _log_in(self, key: Key | None, seconds: float) -> None:
        try:
            await self.handle.login(*(key.for_node() if key else ("", "")), seconds)
        except KeyRefused as refused:
            self._login_failure = KeyRefused(refused.reason, self._key_source)
        except CcTailscaleError as error:
            self._login_failure = error
        self._login_begins = False
        self._tell()
        if self._early_refusal is not None:
            await anyio.sleep(EARLY_SECONDS)
            if not self.running and self.obstacle() is None:
                self._refusal = self._early_refusal
                self._tell()

    async def joined(self, seconds: float) -> None:
        """Returns when the device runs. Raises the JoinError that says why it does not, NodeClosed or NodeFailed.

        It may be called again: what was in the way may have passed.
        """
        decided, obstacle = False, None
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(self._give_up_on_control, waiting.cancel_scope)
                await self.wait_until(lambda: self.running or self.obstacle() is not None)
                # Noted here: while the task group ends, the bus may speak again.
                decided, obstacle = True, self.obstacle()
                waiting.cancel_scope.cancel()
        if obstacle is not None:
            self.needs_new_login = isinstance(obstacle, KeyRefused) or obstacle is self._login_failure
            raise obstacle
        if not decided:
            if self.login_error or not self._answered:
                reason = self.login_error or f"nothing within {seconds:g} s"
                raise ControlUnreachable(self.config.control_url or DEFAULT_CONTROL_URL, reason)
            raise JoinTimeout(seconds, self.state.name)
        self.dialer.magic_dns_suffix = await self._magic_dns_suffix()
        lock = await self.api.lock()
        if lock.locks_us_out:
            raise LockedOut(lock.node_key or "")

    async def _magic_dns_suffix(self) -> str:
        tailnet = (await self.api.status(peers=False)).current_tailnet
        return tailnet.magic_dns_suffix if tailnet else ""

    async def _give_up_on_control(self, waiting: anyio.CancelScope) -> None:
        """Ends the waiting once control has been failing for a while."""
        while True:
            await self.wait_until(lambda: bool(self.login_error))
            with anyio.move_on_after(CONTROL_SECONDS) as patience:
                await self.wait_until(lambda: not self.login_error)
            if patience.cancelled_caught:
                waiting.cancel()
                return

    async def settled(self) -> None:
        """Returns when the device can be logged out, or when it is clear that there is nothing to log out.

        Control may have let a device in whose join is under way, but the node keeps its key, without which it cannot
        log out, only once it has its first netmap (controlclient.Auto.sendStatus).
        """
        await self.wait_until(lambda: self._has_run or self.obstacle() is not None or bool(self.login_error))

    async def whois(self, address: str) -> WhoIs | None:
        """The device that has `address` (an IP, or "ip:port") and what it may do here; None if no device has it.

        It says what the policy in force grants: a change shows with the next question. Raises what `NodeHandle.whois`
        raises.
        """
        return _WHOIS.validate_json(await self.handle.whois(address))

    async def me(self, max_age: float = 0.0) -> WhoIs | None:
        """This device, as `whois` has it, at most `max_age` seconds ago; None before it has joined."""
        if not max_age:
            return await self.whois("")
        async with self._asking_who:  # who comes meanwhile takes the same answer
            asked, me = self._who_lately
            if me is None or time.monotonic() - asked > max_age:
                self._who_lately = time.monotonic(), (me := await self.whois(""))
            return me

    async def is_online(self) -> bool:
        """Whether control has this device in its map poll. A deletion and an outage of control look the same here."""
        try:
            status = await self.api.status(peers=False)
        except (LocalApiError, NodeClosed):
            return False
        return status.me is not None and status.me.online

    async def is_known(self) -> bool | None:
        """Asks control whether it still has this device; None if it does not say, or cannot be asked during a login."""
        if self.state in (IPNState.NoState, IPNState.NeedsLogin):
            return None  # the node has no map yet that names the key which control has now
        try:
            return await self.handle.known(ASK_SECONDS)
        except (TimedOut, Unreachable, NodeFailed) as error:
            log.info("control does not say whether it has this device: %s", error.happened)
            return None
