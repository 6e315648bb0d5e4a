"""Devices with the tasks that hold them open, so that who asked for one may be cancelled without losing track of it."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from cctailscale.errors import CcTailscaleError, NodeClosed, NodeFailed
from cctailscale.tailnet.binding import NodeConfig

if TYPE_CHECKING:
    import anyio.abc

    from cctailscale.authkey import Key
    from cctailscale.config import Settings
    from cctailscale.tailnet.device import Device

log = logging.getLogger(__name__)

# A start takes milliseconds. One that takes longer exchanges a client secret: control has no device then.
STARTING_SECONDS = 1.0
# For a logout in a hurry whose device has lost touch with control: in an outage Go does not even send it before its
# next attempt to reconnect, and control that is there answers in a fraction of that.
OUT_OF_TOUCH_SECONDS = 1.0
# For the logout of a device that nobody waits for: a replaced or an abandoned one.
FAREWELL_SECONDS = 10.0
# For the close of what is left at the end. Where control does not answer, Go would try the logout once more, for 5 s.
LAST_CLOSE_SECONDS = 0.5
# LocalAPI answers that in a millisecond or two, and the logout waits for it.
LOOK_SECONDS = 0.1


class Held:
    """One device, from the wish for it to its end. `hold` is the task; `state_dir` is the device's alone."""

    def __init__(self, config: NodeConfig, key_source: str, seconds: float, extra_ca: Path | None = None) -> None:
        self.config = config
        self.state_dir = config.state_dir
        self._key_source = key_source
        self._seconds = seconds
        self._extra_ca = extra_ca
        self._device: Device | None = None
        self._error: CcTailscaleError | None = None
        self._opened = anyio.Event()  # it is open, or will not be
        self._scope = anyio.CancelScope()
        self._closed = anyio.Event()
        self._told: anyio.Event | None = None  # set once a logout has ended
        self.logged_out = False

    async def hold(self) -> None:
        """Opens the device and keeps it open until `close`. Never raises: `open` does."""
        try:
            from cctailscale.tailnet.device import Device  # aiohttp comes with it: not before `initialize` is answered

            with self._scope:
                async with Device.opened(self.config, self._key_source, self._seconds, self._extra_ca) as device:
                    self._device = device
                    self._opened.set()
                    await anyio.sleep_forever()
        except CcTailscaleError as error:
            self._error = error
        except Exception as error:
            log.exception("the node failed in an unforeseen way")
            self._error = NodeFailed(f"{type(error).__name__}: {error}")
        finally:
            self._opened.set()
            self._closed.set()

    @property
    def device(self) -> Device:
        """The device, which must have been opened."""
        assert self._device is not None
        return self._device

    async def open(self) -> Device:
        """Waits for the start. Raises what `Device.opened` raises; NodeClosed if it was closed meanwhile."""
        await self._opened.wait()
        if self._device is None:
            raise self._error or NodeClosed
        return self._device

    async def log_out(self, seconds: float, *, hurry: bool = False) -> bool:
        """Tells control that the device is gone; whether that is certain. Never raises. A second call joins the first.

        A join that is under way is waited for: control may have let the device in, and the node does not know its own
        key before the answer. In a `hurry` control with which the device has lost touch is given a second at most.
        """
        deadline = anyio.current_time() + seconds
        if self._told is not None:
            with anyio.move_on_after(seconds):
                await self._told.wait()
            return self.logged_out
        self._told = anyio.Event()
        try:
            with anyio.move_on_after(min(seconds, STARTING_SECONDS)):
                await self._opened.wait()
            if self._device is not None:
                with anyio.CancelScope(deadline=deadline):
                    await self._device.settled()
                if hurry and await self._out_of_touch(self._device):
                    deadline = min(deadline, anyio.current_time() + OUT_OF_TOUCH_SECONDS)
                await self._device.handle.logout(max(0.1, deadline - anyio.current_time()))
            self.logged_out = True
        except CcTailscaleError as error:
            log.warning("the logout was sent, but is not confirmed: %s", error.happened)
        except Exception:
            log.exception("the logout failed in an unforeseen way")
        finally:
            self._told.set()
        return self.logged_out

    async def _out_of_touch(self, device: Device) -> bool:
        """Whether the device runs, and control does not answer it: an outage, or its deletion."""
        with anyio.move_on_after(LOOK_SECONDS):
            return device.running and not await device.is_online()
        return False

    def begin_to_close(self, seconds: float) -> None:
        """Lets go of the device; `close` waits for it, for that long. What is left then goes on in Go."""
        if self._device is not None:
            self._device.close_seconds = seconds
        self._scope.cancel()

    async def close(self) -> None:
        """Ends the device. Its state stays."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._closed.wait()

    async def discard(self) -> None:
        """Ends the device and removes its state."""
        await self.close()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(shutil.rmtree, self.state_dir, ignore_errors=True))


class HeldDevices:
    """All devices that a node has open at the same time: the one that serves, one that waits, some on their way out.

    `left` are the states of those on their way out, which are not to be taken up again.
    """

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.left: set[Path] = set()
        self._tasks = tasks
        self._all: list[Held] = []

    def open(self, settings: Settings, hostname: str, state_dir: Path, key: Key | None) -> Held:
        """Begins to open a device; `Held.open` waits for it."""
        auth_key, client_secret = key.for_node() if key else ("", "")
        config = NodeConfig(
            hostname=hostname,
            state_dir=state_dir,
            control_url=settings.control_url,
            auth_key=auth_key,
            client_secret=client_secret,
            tags=settings.tags,
            ephemeral=settings.ephemeral,
            accept_routes=settings.accept_routes,
            upload_logs=settings.logs,
            allow_host_network=settings.allow_host_network,
            verbose=settings.verbose,
            redact=settings.secrets(),
        )
        held = Held(config, key.source if key else "", settings.join_timeout, settings.ssl_cert_file)
        self._all.append(held)
        self._tasks.start_soon(self._hold, held)
        return held

    async def _hold(self, held: Held) -> None:
        try:
            await held.hold()
        finally:
            self._all.remove(held)

    def part_with(self, held: Held, *, told: bool = True) -> None:
        """Discards a device that nobody uses any more, in the background; with `told` it is logged out first."""
        self.left.add(held.state_dir)
        self._tasks.start_soon(self._leave, held, told)

    async def _leave(self, held: Held, told: bool) -> None:
        if told:
            await held.log_out(FAREWELL_SECONDS)
        await held.discard()

    async def log_all_out(self, seconds: float) -> None:
        """As `Held.log_out` in a hurry, of all at the same time."""
        async with anyio.create_task_group() as logouts:
            for held in list(self._all):
                logouts.start_soon(partial(held.log_out, seconds, hurry=True))

    async def close_all(self) -> None:
        """Ends all; the state of those whose logout is certain is removed."""
        held_now = list(self._all)
        for held in held_now:
            held.begin_to_close(LAST_CLOSE_SECONDS)
        for held in held_now:
            await (held.discard() if held.logged_out else held.close())
