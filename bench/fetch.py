"""One page: through the tool, through the server in TypeScript, by curl through tailscaled, and from within Go."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Iterator

from bench import socks
from bench.figures import Goal, Subject, ratios
from bench.lab import GO, OURS, PEER, TAILSCALED, TYPESCRIPT, Joined, Lab
from bench.turns import Samples, Way, flat, in_turns, medians
from tests.agent import Agent

KIB, MIB = 1 << 10, 1 << 20
PORT = 80
SOCKS = "helper's SOCKS port"
REQUESTS_A_ROUND = 30
ANEW_A_ROUND = 10
LARGE_A_ROUND = 10


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "fetch",
        "GET from the same peer, one at a time, in batches by turns. The two MCP servers: tools/call to its result at "
        "the client; 1 MiB goes to a file. SOCKS port: a plain socket. curl: its own total time for each of many in "
        "one process. Bare tsnet: within the Go program. A new connection is one to a name that was not used before, "
        "its lookup included.",
    )
    # Before anybody joins: no event tells when a node has them.
    with _names(lab, (1 + rounds) * ANEW_A_ROUND * 5) as names:
        async with lab.everybody() as joined, fetchers(joined) as fetch:
            _add(subject, "1 KiB, keep-alive", await in_turns(fetch.again(KIB, REQUESTS_A_ROUND), rounds), Goal(1))
            _add(subject, "1 KiB, new connection", await in_turns(fetch.anew(names), rounds))
            _add(subject, "1 MiB, keep-alive", await in_turns(fetch.again(MIB, LARGE_A_ROUND), rounds))
    return subject


def _add(subject: Subject, kind: str, samples: Samples, goal: Goal | None = None) -> None:
    for name, batches in samples.items():
        subject.add(f"{kind}: {name}", "ms", flat(batches))
    for name, limit in ((TYPESCRIPT, goal), (GO, None)):
        if name in samples:
            quotients = ratios(medians(samples[OURS]), medians(samples[name]))
            subject.add(f"{kind}: {OURS} / {name}, by round", "x", quotients, limit)


class Fetchers:
    """A batch of fetches each way."""

    def __init__(self, joined: Joined, kept: socket.socket) -> None:
        self._joined = joined
        self._kept = kept
        self._files = itertools.count(1)

    def again(self, size: int, count: int) -> dict[str, Way]:
        """On a connection that stays."""
        url = f"http://{PEER}{path(size)}"
        ways: dict[str, Way] = {
            name: lambda agent=agent: self._called(agent, [url] * count, save=size >= MIB)  # type: ignore[misc]
            for name, agent in self._joined.servers.items()
        }
        ways[SOCKS] = lambda: asyncio.to_thread(lambda: [_raw(self._kept, size) for _ in range(count)])
        ways[TAILSCALED] = lambda: asyncio.to_thread(lambda: self._curl([url] * (1 + count))[1:])
        ways[GO] = lambda: asyncio.to_thread(lambda: self._joined.helper.floor(url, count)["milliseconds"])
        return ways

    def anew(self, names: Iterator[str]) -> dict[str, Way]:
        """Each on a connection of its own."""

        def urls() -> list[str]:
            return [f"http://{next(names)}{path(KIB)}" for _ in range(ANEW_A_ROUND)]

        ways: dict[str, Way] = {
            name: lambda agent=agent: self._called(agent, urls())  # type: ignore[misc]
            for name, agent in self._joined.servers.items()
        }
        ways[SOCKS] = lambda: asyncio.to_thread(lambda: [self._raw_anew(next(names)) for _ in range(ANEW_A_ROUND)])
        ways[TAILSCALED] = lambda: asyncio.to_thread(lambda: self._curl(urls()))
        ways[GO] = lambda: asyncio.to_thread(
            lambda: [sample for url in urls() for sample in self._joined.helper.floor(url)["milliseconds"]]
        )
        return ways

    async def _called(self, agent: Agent, urls: list[str], *, save: bool = False) -> list[float]:
        samples = []
        for url in urls:
            file = self._joined.folder / f"page-{next(self._files)}"
            words = {"url": url, "save_to": str(file)} if save else {"url": url}
            began = time.perf_counter()
            result = await agent.succeed("tailscale_fetch", **words)
            samples.append((time.perf_counter() - began) * 1000)
            if "200 OK" not in result.text:
                raise RuntimeError(result.text)
            file.unlink(missing_ok=not save)
        return samples

    def _curl(self, urls: list[str]) -> list[float]:
        outputs = [word for _ in urls for word in ("--output", "/dev/null")]
        timed = self._joined.tailscaled.curl("--write-out", "%{time_total}\n", *outputs, *urls)
        return [float(line) * 1000 for line in timed.splitlines()]

    def _raw_anew(self, host: str) -> float:
        began = time.perf_counter()
        with socks.connect(self._joined.helper.line, host, PORT) as sock:
            _raw(sock, KIB)
            return (time.perf_counter() - began) * 1000


@contextlib.asynccontextmanager
async def fetchers(joined: Joined) -> AsyncIterator[Fetchers]:
    with socks.connect(joined.helper.line, PEER, PORT) as kept:
        yield Fetchers(joined, kept)


@contextlib.contextmanager
def _names(lab: Lab, count: int) -> Iterator[Iterator[str]]:
    """So many names of the peer."""
    names = [f"{PEER}-{number}.{lab.tailnet.magic_dns_suffix}" for number in range(count)]
    lab.tailnet.admin("PUT", "/dns", {"extra_records": [{"name": name, "value": lab.peer_address} for name in names]})
    yield iter(names)
    lab.tailnet.admin("PUT", "/dns", {"extra_records": []})


def path(size: int) -> str:
    """The peer's page with so many bytes of text."""
    return f"/bytes?n={size}&type=text/plain"


def _raw(sock: socket.socket, size: int) -> float:
    began = time.perf_counter()
    if socks.get(sock, PEER, path(size)) != size:
        raise RuntimeError("the raw request brought another body")
    return (time.perf_counter() - began) * 1000
