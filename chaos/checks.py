"""What holds after any plan. Each gives sentences about what does not."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.history import History, Operation, Sent
from chaos.work import who
from tests.agent import Json

if TYPE_CHECKING:
    from chaos.crew import Crew

PROGRAM = "CCTAILSCALE_LINEARIZE"
DEFAULT_PROGRAM = Path(__file__).parent.parent / "build" / "linearize"
CHECK_SECONDS = 300


def wrong(crew: Crew, final: Iterable[Json]) -> list[str]:
    """Everything that does not hold of a run whose agents have all ended."""
    history = crew.history
    stored = [message for member in crew.members for message in kept(Path(member.environ["TS_STATE_DIR"]))]
    return [*history.defects, *messages(history, stored), *tasks(history, final), *linearizable(history.operations)]


def messages(history: History, stored: Iterable[tuple[Sent, bool]]) -> list[str]:
    """Acknowledged messages are read once or lie in an inbox (`stored`, with whether they are marked as read)."""
    unread = {message for message, read in stored if not read}
    marked = {message for message, read in stored if read}
    found = [f"read {count} times: {message}" for message, count in history.read.items() if count > 1]
    for message in sorted(history.acknowledged, key=str):
        if history.read[message] or message in unread:
            continue
        if message not in marked:
            found.append(f"acknowledged, and lost: {message}")
        elif message.to not in history.unanswered:
            found.append(f"marked as read, and shown to nobody: {message}")
    return found


def tasks(history: History, final: Iterable[Json]) -> list[str]:
    """No task that its creator was told of is lost, and all could be completed."""
    status = {task["id"]: task["status"] for task in final}
    lost = [f"created, and lost: {task}" for task in sorted(history.created - status.keys())]
    return lost + [f"not completed: {task} is {how}" for task, how in status.items() if how != "completed"]


def linearizable(operations: Iterable[Operation]) -> list[str]:
    """One list of tasks could have answered like that: each claim has one owner at a time."""
    program = os.environ.get(PROGRAM, DEFAULT_PROGRAM)
    history = list(operations)
    text = "\n".join(operation.to_json() for operation in history)
    finished = subprocess.run([program], input=text, capture_output=True, text=True, timeout=CHECK_SECONDS, check=True)
    failed = json.loads(finished.stdout)["failed"]
    return [
        f"not linearizable: {task}\n" + "\n".join(one.to_json() for one in history if one.task == task)
        for task in failed
    ]


def kept(state: Path) -> list[tuple[Sent, bool]]:
    """The messages in the inboxes below an agent's state directory."""
    name = state.parent.name
    found = []
    for path in state.glob("inboxes/*/inbox.db"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT name, id, read FROM received").fetchall()
        database.close()
        found += [(Sent(who(sender), number, name), read is not None) for sender, number, read in rows]
    return found


def left_over(crew: Crew) -> list[str]:
    """Devices, their folders and processes that are still there though every agent has left."""
    found = [f"the device {node['name']}" for node in crew.tailnet.agents()]
    for member in crew.members:
        state = member.environ["TS_STATE_DIR"]
        found += [f"the folder {path}" for path in Path(state).glob("*/device-*")]
        found += [f"the process {pid}" for pid in processes(f"TS_STATE_DIR={state}")]
    return [f"left over: {what}" for what in found]


def processes(variable: str) -> list[int]:
    """Those that have NAME=VALUE in their environment, as their children have."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def nanoseconds(time: str) -> int:
    """Since the epoch, of an RFC 3339 time."""
    return int(datetime.fromisoformat(time).timestamp() * 1e9)
