"""A short plan of a seed, with every part real; `nox -s chaos` plays long ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SECONDS = 55


@pytest.mark.parametrize("seed", [1])
def test_agents_that_are_killed_stopped_and_restarted_lose_no_message_and_no_task(seed: int) -> None:
    plan = ["--seed", str(seed), "--agents", "3", "--steps", "24", "--only", "kill", "stop", "restart"]
    finished = subprocess.run(
        [sys.executable, "-m", "chaos", *plan], capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "well again, and all done, after" in finished.stdout
