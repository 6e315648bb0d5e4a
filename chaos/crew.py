"""The agents of a run: real processes that are killed, stopped, starved and started anew."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from chaos.history import History
from chaos.plan import OF_TAILNET, Act, Fault
from chaos.work import Worker
from tests import faulty
from tests.agent import Agent, Json, RpcError
from tests.localnet import Localnet
from tests.talking import settings

T = TypeVar("T")

NAMES = ("ann", "ben", "cat", "dan", "eve", "fay", "gus", "hal")
TEAM = "chaos"
# The shortest that the settings take: claims are lost while an agent is away for some steps.
LEASE_SECONDS = 5
# To join, and to have the team again; control may be away for as long as a fault lasts.
START_SECONDS = 60.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.2
# What is wrong with control or the relays, as localnet takes it. A relay is late with each piece of what it is sent.
_OF_TAILNET: dict[str, Json] = {
    "outage": {"outage": True},
    "hang": {"hang": True},
    "delay": {"delay_ms": 300},
    "relays": {"derp_outage": True},
    "lag": {"derp_delay_ms": 100},
}
# magicsock's knob: the agent takes no direct path, as behind a hard NAT. One end of a path is enough.
_RELAYED = {"TS_DEBUG_NEVER_DIRECT_UDP": "true"}
# An hour, by tests/faulty.py.
_FORWARD, _BACK = signal.SIGRTMAX, signal.SIGRTMAX - 1
# Beyond what a process has open already: less than it takes to open its inbox once more.
_SPARE_FDS = 1


class Member:
    """One agent through all its processes."""

    def __init__(self, environ: dict[str, str], worker: Worker) -> None:
        self.environ, self.worker = environ, worker
        self.agent: Agent | None = None
        self.stopped = False
        self._new = False  # its process has not been heard of yet
        self._process: AsyncExitStack | None = None

    async def start(self) -> None:
        """Starts a process, which joins and takes its part in the team up again by itself. None may run."""
        self._process = AsyncExitStack()
        started = Agent.started(self.environ, command=faulty.command("clock", 0))
        self.agent = await self._process.enter_async_context(started)
        self._new = True

    async def perform(self, act: Act) -> None:
        """Does it, or, in a new process, joins instead. Whatever comes of either."""
        assert self.agent is not None
        if not self._new:
            await self.worker.perform(self.agent, act)
            return
        with suppress(EOFError, OSError, RpcError, TimeoutError):  # something goes wrong with it again
            await self.join()

    async def join(self, seconds: float = START_SECONDS) -> None:
        """Returns once the node runs; the name that it has now is known from then on."""
        async with asyncio.timeout(seconds):
            while True:
                assert self.agent is not None
                status = await self.agent.call("tailscale_status", seconds)
                if status.structured is not None and status.structured["state"] == "running":
                    self.worker.names[self.worker.name] = status.structured["magic_dns_name"]
                    self._new = False
                    return

    async def end(self, how: signal.Signals | None) -> None:
        """Ends the process: by a signal that it cannot take, or in peace, which takes its device away."""
        agent, process = self.agent, self._process
        if agent is None or process is None:
            return
        self.agent = self._process = None
        history, name = self.worker.history, self.worker.name
        try:
            if agent.process.returncode is not None:
                history.defects.append(f"{name}: ended by itself, with exit code {agent.process.returncode}")
            elif how is None:
                code = await agent.stop(None, STOP_SECONDS)
                if code != 0:
                    history.defects.append(f"{name}: ended with exit code {code}")
            else:
                agent.process.send_signal(how)
        except TimeoutError:
            history.defects.append(f"{name}: did not end within {STOP_SECONDS:g} s")
        finally:
            self.stopped = False
            await process.aclose()
        if "Traceback" in agent.stderr:
            history.defects.append(f"{name}: {agent.stderr[agent.stderr.index('Traceback') :][:8000]}")

    async def replaced(self) -> None:
        """Puts a new process in the place of one that has ended by itself, which is told of as a defect."""
        if self.agent is not None and self.agent.process.returncode is not None:
            await self.end(None)
            await self.start()

    def signal(self, number: int) -> None:
        if self.agent is not None and self.agent.process.returncode is None:
            self.agent.process.send_signal(number)

    def limit(self, what: int, soft: int | None) -> None:
        """Sets the soft limit of the running process; None: what it may have at most."""
        if self.agent is not None and self.agent.process.returncode is None:
            _, hard = resource.prlimit(self.agent.pid, what)
            resource.prlimit(self.agent.pid, what, (hard if soft is None else soft, hard))

    def open_fds(self) -> int:
        assert self.agent is not None
        return max(int(fd.name) for fd in Path(f"/proc/{self.agent.pid}/fd").iterdir()) + 1


class Crew:
    """All of them on a tailnet, and what is wrong with them."""

    def __init__(self, tailnet: Localnet, folder: Path, count: int, lease_seconds: int = LEASE_SECONDS) -> None:
        self.tailnet = tailnet
        self.history = History()
        self._cuts: list[tuple[str, str]] = []
        names = NAMES[:count]
        device_names: dict[str, str] = {}
        more = {"TS_ENABLE_TEAMS": "1", "TS_TEAM_LEASE": str(lease_seconds)}
        self.members = [
            Member(
                settings(tailnet, folder, name, **more) | (_RELAYED if number % 2 else {}),
                Worker(name, device_names, names, self.history, set(), {}),
            )
            for number, name in enumerate(names)
        ]

    @classmethod
    @asynccontextmanager
    async def joined(
        cls, tailnet: Localnet, folder: Path, count: int, lease_seconds: int = LEASE_SECONDS
    ) -> AsyncIterator[Crew]:
        """As many agents in one team. All end with the block, however that ends."""
        crew = cls(tailnet, folder, count, lease_seconds)
        try:
            await together(*(member.start() for member in crew.members))
            await together(*(member.join() for member in crew.members))
            lead, *others = crew.members
            assert lead.agent is not None
            await lead.agent.succeed("tailscale_team_create", name=TEAM)
            for member in others:
                assert member.agent is not None
                await member.agent.succeed("tailscale_team_join", lead_hostname=crew.device(0))
            yield crew
        finally:
            for member in crew.members:
                await member.end(signal.SIGKILL)

    def device(self, agent: int) -> str:
        """The tailnet name of an agent, as it was last known."""
        worker = self.members[agent].worker
        return worker.names[worker.name]

    async def begin(self, fault: Fault) -> None:
        if fault.kind in OF_TAILNET:
            await self._admin("PUT", "/faults", _OF_TAILNET[fault.kind])
            return
        assert fault.agent is not None
        member = self.members[fault.agent]
        match fault.kind:
            case "kill":
                await member.end(signal.SIGKILL)
            case "restart":
                member.worker.forget_device()
                await member.end(None)
            case "stop":
                member.stopped = True
                member.signal(signal.SIGSTOP)
            case "cut":
                assert fault.other is not None
                self._cuts.append((self.device(fault.agent), self.device(fault.other)))
                await self._admin("PUT", "/cuts", {"cuts": self._cuts})
            case "disk":
                member.limit(resource.RLIMIT_FSIZE, 0)
            case "fds":
                member.limit(resource.RLIMIT_NOFILE, member.open_fds() + _SPARE_FDS)
            case "ahead" | "behind":
                member.signal(_FORWARD if fault.kind == "ahead" else _BACK)
            case "expire" | "delete":
                member.worker.forget_device()
                await self._on_device(fault.agent, fault.kind)

    async def lift(self, fault: Fault) -> None:
        if fault.kind in OF_TAILNET:
            await self._admin("PUT", "/faults", {})
            return
        assert fault.agent is not None
        member = self.members[fault.agent]
        match fault.kind:
            case "kill" | "restart":
                await member.start()
            case "stop":
                member.stopped = False
                member.signal(signal.SIGCONT)
            case "cut":
                self._cuts.clear()  # one at a time: `plan` never cuts an agent off twice, and names change
                await self._admin("PUT", "/cuts", {"cuts": []})
            case "disk":
                member.limit(resource.RLIMIT_FSIZE, None)
            case "fds":
                member.limit(resource.RLIMIT_NOFILE, None)
            case "ahead" | "behind":
                member.signal(_BACK if fault.kind == "ahead" else _FORWARD)

    async def seen(self) -> None:
        """Returns once control has heard of every device again: one that has lost touch cannot be logged out."""
        while True:
            nodes = await asyncio.to_thread(self.tailnet.nodes)
            online = {node["name"] for node in nodes if node["online"]}
            if online.issuperset(map(self.device, range(len(self.members)))):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _on_device(self, agent: int, kind: str) -> None:
        name = self.device(agent)
        nodes = await asyncio.to_thread(self.tailnet.nodes)
        if name in [node["name"] for node in nodes]:
            method, path = ("DELETE", "") if kind == "delete" else ("POST", "/expire")
            await self._admin(method, f"/nodes/{name}{path}", {})

    async def _admin(self, method: str, path: str, body: Json) -> None:
        await asyncio.to_thread(self.tailnet.admin, method, path, body)


async def together(*calls: object) -> None:
    """All at once; the first error ends the others."""
    async with asyncio.TaskGroup() as tasks:
        for call in calls:
            tasks.create_task(call)  # type: ignore[arg-type]
