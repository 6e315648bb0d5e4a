"""What the doctor says, as types, and the verdict that its findings come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

from cctailscale import __version__

Outcome = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found: one sentence or phrase, and what to do unless all is well."""

    outcome: Outcome
    detail: str
    next_step: str | None = None


class Finding(BaseModel):
    """What became of one check."""

    name: str
    outcome: Outcome
    detail: str = Field(description="what was found, or why it was skipped")
    next_step: str | None = None
    took_ms: int


class Diagnosis(BaseModel):
    """All findings, and what they come to."""

    version: str = __version__
    healthy: bool = Field(description="no check failed")
    verdict: str
    next_step: str | None
    checks: list[Finding]


def diagnosed(findings: list[Finding]) -> Diagnosis:
    """The verdict, and the next step: of the first check that failed, else of the first that warns."""
    failed = [finding for finding in findings if finding.outcome == "failed"]
    warned = [finding for finding in findings if finding.outcome == "warning"]
    if failed:
        verdict = f"It does not work: {_named(failed)} failed."
    elif warned:
        verdict = f"It works, but look at {_named(warned)}."
    else:
        verdict = f"All is well: {len(findings)} checks."
    steps = [finding.next_step for finding in (*failed, *warned) if finding.next_step]
    return Diagnosis(healthy=not failed, verdict=verdict, next_step=steps[0] if steps else None, checks=findings)


def _named(findings: list[Finding]) -> str:
    names = [finding.name for finding in findings]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
