"""`cc-tailscale doctor`: one check after the other, then one line with the verdict and the next step."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping

import anyio
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cctailscale.commands.arguments import in_shell_words
from cctailscale.commands.calls import Tools
from cctailscale.commands.checks import CHECKS, Check, Examination
from cctailscale.commands.findings import Diagnosis, Finding, Found, Outcome, diagnosed
from cctailscale.commands.screen import Screen
from cctailscale.errors import CcTailscaleError

log = logging.getLogger(__name__)

STYLES: dict[Outcome, str] = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
OUTCOME_COLUMNS = 8
NAME_COLUMNS = 16


async def examined(arguments: argparse.Namespace, screen: Screen, tools: Tools, children: Mapping[str, str]) -> int:
    """0 if no check failed, else 1. `children` is the environment for programs that a check runs."""
    examination = Examination(tools, children)
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        if screen.is_terminal:
            tools.progress.show(check.name)
        finding = _skipped(check, findings) or await _checked(check, examination)
        findings[check.name] = finding
        tools.progress.pause()
        if not arguments.json:
            screen.result(_line(finding, screen))
    diagnosis = diagnosed(list(findings.values()))
    if arguments.json:
        screen.result_json(diagnosis.model_dump(mode="json"))
    else:
        _conclude(diagnosis, screen)
    return 0 if diagnosis.healthy else 1


def _skipped(check: Check, findings: Mapping[str, Finding]) -> Finding | None:
    """The finding of a check that needs another one, which has not succeeded."""
    missing = [name for name in check.needs if findings[name].outcome in ("failed", "skipped")]
    if not missing:
        return None
    detail = f"needs {' and '.join(missing)}, which did not succeed"
    return Finding(name=check.name, outcome="skipped", detail=detail, took_ms=0)


async def _checked(check: Check, examination: Examination) -> Finding:
    began, seconds = time.perf_counter(), check.seconds(examination.settings)
    try:
        with anyio.fail_after(seconds):
            found = await check.look(examination)
    except CcTailscaleError as error:
        found = Found("failed", f"{error.happened} {error.meaning}".strip(), error.next_step)
    except TimeoutError:
        found = Found("failed", f"nothing came of it within {seconds:g} s", "Run it again; TS_VERBOSE=1 shows the log.")
    except Exception as error:
        log.exception("the check %s is defective", check.name)
        found = Found("failed", f"the check itself failed ({type(error).__name__})", "Report this, with the log.")
    took = round((time.perf_counter() - began) * 1000)
    step = in_shell_words(found.next_step) if found.next_step else None
    return Finding(
        name=check.name, outcome=found.outcome, detail=in_shell_words(found.detail), next_step=step, took_ms=took
    )


def _line(finding: Finding, screen: Screen) -> RenderableType:
    style = STYLES[finding.outcome]
    detail = screen.text(finding.detail, "dim" if finding.outcome == "skipped" else "")
    if finding.next_step:
        between = "\n" if screen.is_terminal else " "
        detail.append_text(screen.text(f"{between}-> {finding.next_step}", style))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=OUTCOME_COLUMNS, style=style)
    grid.add_column(width=NAME_COLUMNS)
    grid.add_column(overflow="fold")
    grid.add_row(Text(finding.outcome), Text(finding.name), detail)
    return grid


def _conclude(diagnosis: Diagnosis, screen: Screen) -> None:
    good = diagnosis.healthy
    line = screen.text(diagnosis.verdict, "bold green" if good else "bold red")
    if diagnosis.next_step:
        line.append_text(screen.text(f" Next: {diagnosis.next_step}", ""))
    if screen.is_terminal:
        screen.result(Text(""))
    screen.result(line)
