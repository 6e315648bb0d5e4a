"""Stand-ins for what a test cannot make the real thing do: stall at one place, fail at another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import anyio

from cctailscale.config import Key
from cctailscale.errors import KeyRefused
from cctailscale.tailnet.binding import NodeConfig
from cctailscale.tailnet.models import IPNState


class Gate:
    """Lets a call through unless it is shut; an error set on it is raised instead. `reached` counts."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.reached = 0
        self.pause = lambda: 0.0  # seconds that a call takes
        self._open = anyio.Event()
        self._open.set()
        self._arrival = anyio.Event()

    def shut(self) -> None:
        self._open = anyio.Event()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        self.reached += 1
        self._arrival.set()
        self._arrival = anyio.Event()
        await self._open.wait()
        await anyio.sleep(self.pause())
        if self.error is not None:
            raise self.error

    async def arrival(self, count: int = 1) -> None:
        """Waits until the call has come here that often."""
        with anyio.fail_after(5):
            while self.reached < count:
                await self._arrival.wait()


class FakeTailnet:
    """The devices that were made, and what happened to them, in order: (event, name of the state folder)."""

    def __init__(self) -> None:
        self.devices: list[FakeDevice] = []
        self.events: list[tuple[str, str]] = []
        self.opening, self.joining, self.logout, self.closing = Gate(), Gate(), Gate(), Gate()
        self.after_login: Callable[[], object] = lambda: None
        self.known: bool | None = True
        # What `joined` of every device raises, if anything; and of the n-th.
        self.obstacle: BaseException | None = None
        self.obstacles: dict[int, BaseException | None] = {}

    def device_class(self) -> type[FakeDevice]:
        """A class for the place of `cctailscale.tailnet.device.Device`."""
        tailnet = self

        class Device(FakeDevice):
            @classmethod
            @asynccontextmanager
            async def opened(cls, config: NodeConfig, *_: object) -> AsyncIterator[Self]:
                device = cls(tailnet, config)
                tailnet.devices.append(device)
                device.tell("open")
                (config.state_dir / "tailscaled.state").write_text("{}")
                try:
                    await tailnet.opening.passed()
                    yield device
                finally:
                    device.tell("close")
                    with anyio.CancelScope(shield=True):
                        await tailnet.closing.passed()

        return Device

    def happened(self, folder: str) -> list[str]:
        return [event for event, name in self.events if name == folder]


class FakeDevice:
    """As `device.Device`, with a handle of its own in it."""

    def __init__(self, tailnet: FakeTailnet, config: NodeConfig) -> None:
        self.tailnet = tailnet
        self.config = config
        self.state = IPNState.NoState
        self.login_url: str | None = None
        self.online = True
        self.needs_new_login = False
        self.close_seconds = 1.0
        self.logout_seconds: float | None = None
        self.handle = self
        self.number = len(tailnet.devices) + 1

    def tell(self, event: str) -> None:
        self.tailnet.events.append((event, self.config.state_dir.name))

    @property
    def running(self) -> bool:
        return self.state is IPNState.Running

    def expire(self) -> None:
        self.state, self.needs_new_login = IPNState.NeedsLogin, True

    def log_in(self, key: Key | None, _seconds: float) -> None:
        self.tell("login with a key" if key else "login")
        self.needs_new_login = False
        self.tailnet.after_login()

    async def joined(self, _seconds: float) -> None:
        self.tell("join")
        await self.tailnet.joining.passed()
        obstacle = self.tailnet.obstacles.get(self.number, self.tailnet.obstacle)
        if obstacle is not None:
            self.needs_new_login = isinstance(obstacle, KeyRefused)
            raise obstacle
        self.state = IPNState.Running

    async def settled(self) -> None:
        self.tell("settled")

    async def is_online(self) -> bool:
        return self.online

    async def is_known(self) -> bool | None:
        if self.state is IPNState.NeedsLogin:
            return None
        self.tell("asked")
        return self.tailnet.known

    async def logout(self, seconds: float) -> None:
        self.logout_seconds = seconds
        self.tell("logout")
        await self.tailnet.logout.passed()
