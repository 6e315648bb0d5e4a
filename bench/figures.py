"""What was measured: samples, what they amount to, and how that compares to its goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Goal:
    """At most (or at least) so much, of the median or of the worst sample."""

    limit: float
    kind: Literal["at most", "at least"] = "at most"
    of: Literal["median", "worst"] = "median"

    def __str__(self) -> str:
        sign = "<=" if self.kind == "at most" else ">="
        return f"{sign} {self.limit:g}" + (" (worst)" if self.of == "worst" else "")


@dataclass(frozen=True)
class Row:
    """One line of a table. Its samples are in the order of the rounds."""

    name: str
    unit: str
    samples: Sequence[float]
    goal: Goal | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def percentile(self, percent: int) -> float:
        """Linear between neighbouring samples; of one sample, that sample."""
        if len(self.samples) == 1:
            return self.samples[0]
        return statistics.quantiles(self.samples, n=100, method="inclusive")[percent - 1]

    @property
    def judged(self) -> float:
        """What the goal is compared to."""
        if self.goal is None or self.goal.of == "median":
            return self.median
        return max(self.samples) if self.goal.kind == "at most" else min(self.samples)

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.judged <= self.goal.limit if self.goal.kind == "at most" else self.judged >= self.goal.limit

    @property
    def verdict(self) -> str:
        """ "met by 12 %" or "MISSED by 3 %", of the limit; "" without a goal."""
        if self.goal is None:
            return ""
        word = "met" if self.met else "MISSED"
        if self.goal.limit == 0:
            return word
        return f"{word} by {abs(self.judged - self.goal.limit) / abs(self.goal.limit):.0%}".replace("%", " %")

    def to_json(self) -> dict[str, Any]:
        goal = self.goal and {
            "limit": self.goal.limit,
            "kind": self.goal.kind,
            "of": self.goal.of,
            "text": str(self.goal),
            "met": self.met,
        }
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "q1": self.percentile(25),
            "q3": self.percentile(75),
            "p95": self.percentile(95),
            "min": min(self.samples),
            "max": max(self.samples),
            "goal": goal,
            "samples": list(self.samples),
        }


@dataclass
class Subject:
    """One table; `about` says exactly what was measured."""

    name: str
    about: str
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, unit: str, samples: Sequence[float], goal: Goal | None = None) -> None:
        self.rows.append(Row(name, unit, samples, goal))


def number(value: float) -> str:
    """Three digits that tell something."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 or value == int(value) else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def rates(count: int, seconds: Sequence[float]) -> list[float]:
    """MiB/s, of transfers of `count` bytes."""
    return [count / (1 << 20) / passed for passed in seconds]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round, so that a machine that is slow for a while slows both sides of a quotient."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """As `ratios`."""
    return [one - other for one, other in zip(ours, theirs, strict=True)]
