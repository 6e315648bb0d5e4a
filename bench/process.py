"""What /proc tells about a process: its memory, its CPU time, and whether it rests."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
SETTLE_SECONDS = 30.0
LOOK_SECONDS = 0.05
# So many looks in a row at a process whose threads all wait and that has used no CPU.
QUIET_LOOKS = 4


@dataclass(frozen=True)
class Memory:
    """In MiB. `pss` shares what several processes map among them; `peak` is of the RSS, since the last `reset_peak`."""

    rss: float
    pss: float
    peak: float


def memory(pid: int) -> Memory:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    status = Path(f"/proc/{pid}/status").read_text()
    return Memory(_kib(rollup, "Rss"), _kib(rollup, "Pss"), _kib(status, "VmHWM"))


def family(pid: int) -> list[int]:
    """A process and all that it has started, as far as they still run."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def pss(pid: int) -> float:
    """MiB of a process and all that it has started."""
    return sum(memory(member).pss for member in family(pid))


def cpu_seconds(pid: int) -> float:
    """Of a process and all that it has started, and of what has ended and was waited for (proc_pid_stat(5), 14-17)."""
    ticks = 0
    for member in family(pid):
        ticks += sum(int(field) for field in Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def _kib(text: str, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"/proc has no {name}")
    return int(found[1]) * 1024 / MIB


def reset_peak(pid: int) -> None:
    """The peak of the RSS begins anew (proc_pid_clear_refs(5), 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def maps(pid: int, name: str) -> bool:
    """Whether a file with `name` in its path is mapped."""
    return name in Path(f"/proc/{pid}/maps").read_text()


async def settled(pid: int, *mapped: str) -> None:
    """Returns once the process has mapped all of these files and then rests. There is no event for either.

    A machine under load is no excuse for a process that only waits for a CPU: that shows as a thread that runs.
    """
    quiet, before = 0, -1
    async with asyncio.timeout(SETTLE_SECONDS):
        while quiet < QUIET_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            now, waiting = _activity(pid)
            ready = waiting and now == before and all(maps(pid, name) for name in mapped)
            quiet = quiet + 1 if ready else 0
            before = now


def _activity(pid: int) -> tuple[int, bool]:
    """CPU ticks so far, and whether every thread waits."""
    ticks, waiting = 0, True
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that has ended since the listing
        ticks += int(fields[11]) + int(fields[12])
        waiting = waiting and fields[0] == "S"
    return ticks, waiting
