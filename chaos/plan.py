"""What happens in a run, made of a seed alone: who does what, and what goes wrong meanwhile. Data, and no clock."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import Literal, get_args

What = Literal["send", "repeat", "check", "fetch", "create", "claim", "complete", "release"]
# How an agent's work is made up: claims and what follows on them weigh as much as messages.
_WEIGHTS: dict[What, int] = {
    "send": 6, "repeat": 4, "check": 4, "fetch": 2, "create": 1, "claim": 6, "complete": 3, "release": 1,
}  # fmt: skip

Kind = Literal[
    "kill",  # SIGKILL; started anew when it is over
    "stop",  # SIGSTOP, then SIGCONT
    "restart",  # ended in peace, so that its device goes; started anew when it is over
    "cut",  # no packet passes between two agents
    "outage",  # control's port is closed
    "hang",  # control takes requests and answers none
    "delay",  # control's answers are late
    "relays",  # every relay's port is closed
    "lag",  # what goes over a relay is late
    "disk",  # no file of the agent's can grow
    "fds",  # the agent can open next to nothing
    "ahead",  # its clock is put forward by an hour, then right again
    "behind",  # its clock is put back by an hour, then right again
    "expire",  # the device's key
    "delete",  # the device, at control
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# They are over as soon as they have happened.
_MOMENTARY = frozenset({"expire", "delete"})
OF_TAILNET = frozenset({"outage", "hang", "delay", "relays", "lag"})
# Tasks among which all agents choose at a time, so that they want the same ones.
_WINDOW = 3
# What one page of the list shows, with room for those that agents create meanwhile.
MAX_TASKS = 100
_FIRST_TASKS = 50
# Long enough for a lease to lapse meanwhile, short enough for several in a run.
_LONGEST_STEPS = 4
# After the acts of a step have begun, so that it comes into their midst.
_LATEST_MS = 40


@dataclass(frozen=True)
class Act:
    """What an agent does. `number`: of the agent that is written to, or of the task; it means nothing to the others."""

    agent: int
    what: What
    number: int = 0


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an agent (None: with the tailnet), from its step until another begins, which is `until`."""

    kind: Kind
    until: int
    agent: int | None = None
    other: int | None = None


@dataclass(frozen=True)
class Step:
    """`acts` begin all at once, `faults` so many milliseconds after them."""

    number: int
    acts: tuple[Act, ...]
    faults: tuple[Fault, ...] = ()
    after_ms: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Plan:
    """The whole of it. Agent 0 leads the team, in which there are so many `tasks` from the beginning."""

    seed: int
    agents: int
    tasks: int
    steps: tuple[Step, ...]


def made(seed: int, agents: int, steps: int, kinds: tuple[Kind, ...] = KINDS) -> Plan:
    """The plan of a seed; of the faults only those `kinds`. The same arguments give the same plan."""
    chance = random.Random(seed)
    tasks = min(max(_WINDOW, steps // 2), _FIRST_TASKS)
    busy: dict[int | None, int] = {}  # until which step something is wrong with it
    made_steps = []
    for number in range(steps):
        acts = tuple(_act(chance, agent, agents, number * tasks // steps, tasks) for agent in range(agents))
        faults = tuple(_faults(chance, number, steps, agents, kinds, busy))
        made_steps.append(Step(number, acts, faults, chance.randrange(_LATEST_MS)))
    return Plan(seed, agents, tasks, tuple(made_steps))


def _act(chance: random.Random, agent: int, agents: int, first: int, tasks: int) -> Act:
    (what,) = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
    if what == "send":
        return Act(agent, what, chance.choice([other for other in range(agents) if other != agent]))
    if what in ("claim", "complete", "release"):
        return Act(agent, what, 1 + min(first + chance.randrange(_WINDOW), tasks - 1))
    return Act(agent, what)


def _faults(
    chance: random.Random, number: int, steps: int, agents: int, kinds: tuple[Kind, ...], busy: dict[int | None, int]
) -> list[Fault]:
    """Something begins in one of three steps, and never two things with one agent at a time."""
    if not kinds or chance.randrange(3):
        return []
    kind = chance.choice(kinds)
    until = number + 1 if kind in _MOMENTARY else min(number + chance.randint(1, _LONGEST_STEPS), steps)
    places: list[int | None] = [None] if kind in OF_TAILNET else list(range(agents))
    free = [place for place in places if busy.get(place, 0) <= number]
    wanted = 2 if kind == "cut" else 1
    if len(free) < wanted:
        return []
    chosen = chance.sample(free, wanted)
    busy.update(dict.fromkeys(chosen, until))
    return [Fault(kind, until, *chosen)]
