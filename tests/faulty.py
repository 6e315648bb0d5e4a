"""The real cc-tailscale with one thing wrong in its process: `python -P tests/faulty.py WHAT NUMBER`.

killed NUMBER: it is killed after that commit of a member's command, before anybody hears of it.
clock NUMBER: its clock goes wrong by so many seconds; what is monotonic, and the node, go right. On Linux SIGRTMAX puts
    it forward by an hour, the signal before that back.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

HOUR_SECONDS = 3600


def command(what: str, number: int) -> tuple[str, ...]:
    """For tests.agent.Agent.started."""
    return (sys.executable, "-P", str(Path(__file__).resolve()), what, str(number))


def _killed(number: int) -> None:
    from cctailscale.teams import sqlite

    commit, left = sqlite._Rows.commit, number

    def last_commit(self: sqlite._Rows, change: Any, answered: Any) -> None:
        nonlocal left
        commit(self, change, answered)
        left -= answered is not None
        if answered is not None and not left:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlite._Rows.commit = last_commit  # type: ignore[method-assign]


def _clock(seconds: int) -> None:
    from pydantic_core import core_schema  # which has to know the real class

    right, right_time = datetime.datetime, time.time

    class Anytime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, right)

    class Shifted(right, metaclass=Anytime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return right.now(tz) + datetime.timedelta(seconds=seconds)

        @classmethod
        def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
            return core_schema.datetime_schema()

    datetime.datetime = Shifted  # type: ignore[misc]
    time.time = lambda: right_time() + seconds

    def moving(moves: dict[int, int]) -> None:
        nonlocal seconds
        while True:
            seconds += moves[signal.sigwait(moves)]

    if sys.platform == "linux":
        # Signals that queue; without handlers, since the server takes one that has a handler for the end; and not
        # SIGRTMIN, which Go unblocks in its threads.
        moves = {int(signal.SIGRTMAX): HOUR_SECONDS, signal.SIGRTMAX - 1: -HOUR_SECONDS}
        signal.pthread_sigmask(signal.SIG_BLOCK, moves)
        threading.Thread(target=moving, args=[moves], daemon=True).start()


if __name__ == "__main__":
    {"killed": _killed, "clock": _clock}[sys.argv[1]](int(sys.argv[2]))
    sys.argv[1:] = []
    from cctailscale.cli import main

    main()
