"""From exec to the answer to `initialize`, beside an empty server on the same SDK; and what is loaded by then."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from os import environ

from bench.figures import Goal, Subject, ratios
from bench.lab import SERVER, Lab

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
    for command in (SERVER, EMPTY):  # the first run writes bytecode and fills the page cache
        answer_of(command, settings)
    ours: list[float] = []
    empty: list[float] = []
    for number in range(rounds):
        pair = [(SERVER, ours), (EMPTY, empty)]
        for command, samples in pair if number % 2 else reversed(pair):
            samples.append(answer_of(command, settings).milliseconds)
    subject.add("cc-tailscale", "ms", ours)
    subject.add("empty MCPServer", "ms", empty)
    subject.add("cc-tailscale / empty, by round", "x", ratios(ours, empty), Goal(1.25))
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
