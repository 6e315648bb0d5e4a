"""What GitHub runs for this project: code of others by its commit, no right too many, nothing published unattested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent.parent / ".github" / "workflows"
WORKFLOWS = {file.name: file.read_text() for file in sorted(FOLDER.glob("*.yml"))}
OWN = "$/.github/workflows/"
RIGHTS = {
    ("attest", "attestations: write"),
    ("attest", "id-token: write"),
    ("pypi", "id-token: write"),
    ("github", "contents: write"),
}


def jobs(workflow: str) -> dict[str, str]:
    """The text of each job by its name."""
    _, *parts = re.split(r"^  ([\w-]+):\n", WORKFLOWS[workflow].partition("\njobs:\n")[2], flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_action_of_others_is_named_by_a_commit_with_its_version_beside_it(workflow: str) -> None:
    used = re.findall(r"uses: (.+)", WORKFLOWS[workflow])
    assert used
    assert [
        one for one in used if not one.startswith(OWN) and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\S+", one)
    ] == []


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_no_workflow_may_do_anything_that_a_job_has_not_asked_for(workflow: str) -> None:
    assert re.findall(r"^permissions: (.+)$", WORKFLOWS[workflow], flags=re.MULTILINE) == ["{}"]
    checkouts = WORKFLOWS[workflow].count("actions/checkout@")
    assert WORKFLOWS[workflow].count("persist-credentials: false") == checkouts


def test_only_what_attests_and_publishes_may_write() -> None:
    found = {
        (name, right)
        for workflow in WORKFLOWS
        for name, text in jobs(workflow).items()
        for right in re.findall(r"[\w-]+: write", text)
    }
    assert found == RIGHTS


def test_what_is_published_was_tried_and_attested_before() -> None:
    before = {
        name: re.findall(r"^    needs: (.+)$", text, flags=re.MULTILINE) for name, text in jobs("release.yml").items()
    }
    assert before == {"check": [], "build": ["check"], "attest": ["build"], "pypi": ["attest"], "github": ["pypi"]}


def test_there_is_no_secret_that_could_leak() -> None:
    assert [name for name, text in WORKFLOWS.items() if "secrets." in text] == []
