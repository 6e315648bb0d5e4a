"""A large file: by save_to, and by curl through the SOCKS port of a bare tsnet program."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import socks
from bench.figures import Goal, Subject, rates, ratios
from bench.lab import PEER, Lab
from bench.process import MIB
from tests.agent import Agent

FILE_BYTES = 256 * MIB
URL = f"http://{PEER}/bytes?n={FILE_BYTES}"
MAX_ROUNDS = 5
CURL_SECONDS = 120.0


async def measure(lab: Lab, rounds: int) -> Subject:
    count = min(rounds, MAX_ROUNDS)
    curl = shutil.which("curl")
    how = "curl, into the same folder" if curl else "there is no curl here: a plain socket, whose bytes are dropped"
    subject = Subject(
        "save",
        f"A file of {FILE_BYTES // MIB} MiB from the same peer, {count} times in turns. save_to: tools/call to its "
        f"result at the client, SHA-256 and progress included. Through the helper: {how}.",
    )
    seconds: list[tuple[float, float]] = []
    settings = lab.environ()
    saved = Path(settings["CLAUDE_PROJECT_DIR"]) / "saved"
    with lab.helper() as (helper, _):
        async with lab.joined_agent(settings) as agent:
            for _ in range(1 + count):
                ours = await _saved(agent, saved)
                seconds.append((ours, await asyncio.to_thread(_through_helper, curl, helper, saved)))
    # The first round only warms up.
    save_to, other = (rates(FILE_BYTES, samples) for samples in zip(*seconds[1:], strict=True))
    subject.add("save_to", "MiB/s", save_to)
    subject.add("curl through the helper" if curl else "plain socket through the helper", "MiB/s", other)
    subject.add("save_to / the other, by round", "x", ratios(save_to, other), Goal(0.8, "at least"))
    return subject


async def _saved(agent: Agent, file: Path) -> float:
    began = time.perf_counter()
    await agent.succeed("tailscale_fetch", url=URL, save_to=file.name)
    passed = time.perf_counter() - began
    _removed(file)
    return passed


def _through_helper(curl: str | None, helper: Mapping[str, Any], file: Path) -> float:
    if curl is None:
        return socks.download(helper, PEER, FILE_BYTES)
    proxy = ["--proxy", f"socks5h://{helper['socks']}", "--proxy-user", f"{helper['user']}:{helper['password']}"]
    began = time.perf_counter()
    subprocess.run([curl, "--silent", "--fail", *proxy, "--output", file, URL], check=True, timeout=CURL_SECONDS)
    passed = time.perf_counter() - began
    _removed(file)
    return passed


def _removed(file: Path) -> None:
    size = file.stat().st_size
    if size != FILE_BYTES:
        raise RuntimeError(f"{size} bytes came, not {FILE_BYTES}")
    file.unlink()
