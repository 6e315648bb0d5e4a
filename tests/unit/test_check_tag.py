"""`.ci/check_tag.py`, which stands between a tag and its release."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "check_tag.py"
disagreements: Callable[[str, str, str], list[str]] = runpy.run_path(str(SCRIPT))["disagreements"]

PACKAGE = '"""A package."""\n\n__version__ = "1.2.0"\n'
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 1.2.0 - 2026-12-01\n\n- Something.\n"


def test_a_tag_with_the_packages_version_and_a_section_in_the_changelog_may_be_released() -> None:
    assert disagreements("v1.2.0", PACKAGE, CHANGELOG) == []
    assert disagreements("v1.2.0", PACKAGE, "## [1.2.0] - 2026-12-01\n") == []


@pytest.mark.parametrize("tag", ["1.2.0", "v1.2", "v1.2.0rc1", "v1.2.01", "v1.3.0", "main", ""])
def test_any_other_tag_is_told_which_one_it_has_to_be(tag: str) -> None:
    (line,) = disagreements(tag, PACKAGE, CHANGELOG)
    assert "it has to be v1.2.0" in line


@pytest.mark.parametrize(
    "changelog", ["", "## Unreleased\n", "## 1.2.0rc1\n", "## 11.2.0\n", "- ## 1.2.0\n", "## 1x2.0\n"]
)
def test_a_version_without_its_section_in_the_changelog_is_not_released(changelog: str) -> None:
    (line,) = disagreements("v1.2.0", PACKAGE, changelog)
    assert line.startswith("CHANGELOG.md has no section 1.2.0")


def test_a_package_without_a_version_is_not_released() -> None:
    assert len(disagreements("v1.2.0", "version = '1.2.0'\n", CHANGELOG)) == 2


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=30)


def test_the_exit_code_tells_the_workflow_and_stderr_tells_the_person() -> None:
    refused = run("v0.0.0")
    assert refused.returncode == 1
    assert "check_tag: the tag is v0.0.0 and __version__" in refused.stderr
    assert run().returncode == 2
