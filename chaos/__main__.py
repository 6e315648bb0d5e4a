"""`python -m chaos`: plays plans until one fails, or as many as asked for. Exit code 1, and its seed, if one does."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import traceback
from collections.abc import Sequence

from chaos import plan
from chaos.crew import NAMES
from chaos.run import play
from chaos.soak import soak


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Agents at work while things go wrong.")
    parser.add_argument("--seed", type=int, help="play this one plan; default: seeds by chance")
    parser.add_argument("--runs", type=int, default=3, help="plans to play, each of a seed of its own (default: 3)")
    parser.add_argument("--agents", type=int, default=4, choices=range(2, len(NAMES) + 1), help="default: 4")
    parser.add_argument("--steps", type=int, default=40, help="of each plan (default: 40)")
    parser.add_argument("--only", nargs="+", choices=plan.KINDS, default=plan.KINDS, help="go wrong; default: all")
    parser.add_argument("--plan", action="store_true", help="print the plan, and do not play it")
    parser.add_argument("--soak", action="store_true", help="nothing goes wrong; is anything held that was not before?")
    options = parser.parse_args(argv)
    if options.soak:
        options.only = ()
    first = random.randrange(1 << 32) if options.seed is None else options.seed
    runs = 1 if options.seed is not None else options.runs
    kind = soak if options.soak else play
    for seed in range(first, first + runs):
        made = plan.made(seed, options.agents, options.steps, tuple(options.only))
        if options.plan:
            print(*(step.to_json() for step in made.steps), sep="\n")
            continue
        print(f"seed {seed}: {made.agents} agents, {len(made.steps)} steps, {made.tasks} tasks", flush=True)
        try:
            wrong = asyncio.run(kind(made, lambda line: print(f"  {line}", flush=True)))
        except Exception:  # noqa: BLE001 - whatever it is, the seed that led to it is told
            wrong = [traceback.format_exc()]
        if wrong:
            print(*wrong, sep="\n")
            print(f"FAILED. To play it again: nox -s chaos -- --seed {seed} {_the_rest(options)}".rstrip())
            return 1
    return 0


def _the_rest(options: argparse.Namespace) -> str:
    only = "" if options.only == plan.KINDS else f" --only {' '.join(options.only)}"
    if options.soak:
        only = " --soak"
    return f"--agents {options.agents} --steps {options.steps}{only}"


if __name__ == "__main__":
    sys.exit(main())
