"""From exec to the answer to `initialize`, beside other servers; and what is loaded by then."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from os import environ

from bench.figures import Goal, Subject, ratios
from bench.lab import OURS, SERVER, TYPESCRIPT, Lab
from bench.turns import Way, flat, in_turns

NPX = "TypeScript, by npx out of its cache"
EMPTY = (sys.executable, "-m", "bench.empty_server")
# For one process, from its start to its end.
PROCESS_SECONDS = 60.0
# What belongs to the tailnet or to commands, and may load only after `initialize` is answered. Not rich: the SDK itself
# takes it for its log where it is installed, in an empty server too.
LATE = re.compile(
    r"(aiohttp|aiohttp_socks|python_socks|dns|cctailscale\.commands)(\..+)?"
    r"|cctailscale\._libtailscale|cctailscale\.tailnet\.device"
)

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
}


@dataclass(frozen=True)
class Started:
    """How long a process took to answer, in ms, and what it wrote to stderr in its life."""

    milliseconds: float
    errors: str


async def measure(lab: Lab, rounds: int) -> Subject:
    subject = Subject(
        "start",
        "Process created to `initialize` answered, over pipes, one at a time, in turns. Nothing else was sent. "
        "The modules are those of aiohttp, SOCKS, DNS and the Go extension that were imported by then.",
    )
    settings = lab.environ()
    servers: dict[str, tuple[str, ...]] = {OURS: SERVER, "empty MCPServer": EMPTY}
    if lab.typescript is not None:
        settings = lab.typescript.environ(settings)
        servers |= {TYPESCRIPT: lab.typescript.command, NPX: lab.typescript.npx}
    # The round before the first writes bytecode and fills the page cache.
    ways: dict[str, Way] = {
        name: lambda command=command: asyncio.to_thread(  # type: ignore[misc]
            lambda: [answer_of(command, settings).milliseconds]
        )
        for name, command in servers.items()
    }
    samples = {name: flat(batches) for name, batches in (await in_turns(ways, rounds)).items()}
    for name, values in samples.items():
        subject.add(name, "ms", values)
    for name, goal in (("empty MCPServer", Goal(1.25)), (TYPESCRIPT, None), (NPX, Goal(1))):
        if name in samples:
            subject.add(f"{OURS} / {name}, by round", "x", ratios(samples[OURS], samples[name]), goal)
    loaded = imported(answer_of((sys.executable, "-X", "importtime", *SERVER[1:]), settings).errors)
    subject.add("modules loaded too early", "", [sum(bool(LATE.fullmatch(name)) for name in loaded)], Goal(0))
    subject.add("modules loaded in all", "", [len(loaded)])
    return subject


def answer_of(command: tuple[str, ...], settings: dict[str, str]) -> Started:
    """Starts a server, says `initialize`, waits for the answer and hangs up."""
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": environ["PATH"]} | settings,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        bound = threading.Timer(PROCESS_SECONDS, child.kill)
        bound.start()
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.append(child.stderr.read() if child.stderr else ""))
        reader.start()
        child.stdin.write(json.dumps(INITIALIZE) + "\n")
        child.stdin.flush()
        line = child.stdout.readline()
        passed = (time.perf_counter() - began) * 1000
        child.stdin.close()
        child.wait()
        reader.join()
        bound.cancel()
    if not line or "serverInfo" not in json.loads(line).get("result", {}):
        raise RuntimeError(f"{command[-1]} did not answer initialize: {line or errors[0]}")
    return Started(passed, errors[0])


def imported(errors: str) -> list[str]:
    """The modules that `-X importtime` lists."""
    return re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", errors, flags=re.MULTILINE)
