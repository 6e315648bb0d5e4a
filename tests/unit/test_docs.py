"""The documents say what the code has: tools, settings, modules; and their links lead somewhere."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from cctailscale.agents.hosting import endpoints
from cctailscale.config import Settings
from cctailscale.teams.model import EventKind, RefusalCode
from cctailscale.tools.catalog import tools_of

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "cctailscale"
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
# Read from the environment, and set by the client or the system rather than by the user.
NOT_FOR_USERS = {"CLAUDE_PROJECT_DIR", "CLAUDE_CODE_SESSION_ID", "USER"}


def section(document: str, title: str) -> str:
    """What stands below a heading of the second level."""
    headings = list(re.finditer(r"^## (.+)$", (ROOT / document).read_text() + "\n## \n", flags=re.MULTILINE))
    (found,) = [(this.end(), following.start()) for this, following in pairwise(headings) if this[1] == title]
    return (ROOT / document).read_text()[slice(*found)]


def first_cells(table: str) -> list[str]:
    """The first cell of each row."""
    return re.findall(r"^\| (`.+?) \|", table, flags=re.MULTILINE)


def anchor(heading: str) -> str:
    """A heading's name in a link, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_readme_names_every_tool_with_its_parameters() -> None:
    anything: Any = object()
    tools = tools_of(anything, anything, anything, anything, anything, anything)
    assert set(first_cells(section("README.md", "Tools"))) == {
        f"`{tool.name}({', '.join(tool.parameters['properties'])})`" for tool in tools
    }


def test_the_readme_names_every_setting() -> None:
    told = {name for cell in first_cells(section("README.md", "Settings")) for name in re.findall(r"`(\w+)`", cell)}
    assert (
        told
        == {field.validation_alias for field in Settings.model_fields.values() if field.validation_alias}
        - NOT_FOR_USERS
    )


def test_the_architecture_names_every_module_once() -> None:
    told: list[str] = []
    for cell in first_cells(section("docs/architecture.md", "Who owns what")):
        folder = ""
        for name in re.findall(r"`([^`]+)`", cell):
            folder = name.rpartition("/")[0] + "/" if "/" in name else folder
            told.append(name if "/" in name else folder + name)
    assert len(told) == len(set(told))
    packages = {name for name in told if name.endswith("/")}
    assert all((PACKAGE / name).is_dir() or (ROOT / name).is_dir() for name in packages)
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")}
    assert set(told) - packages == {name for name in modules if not name.startswith(tuple(packages))}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_or_heading(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        linked = document.parent / name if name else document
        assert linked.is_file(), target
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
        assert not heading or heading in map(anchor, headings), target


def test_the_protocol_names_what_a_team_can_be_asked_and_answers() -> None:
    teams = section("docs/agent-protocol.md", "Teams")
    asked = [f"`{endpoint.method} {endpoint.path}`" for endpoint in endpoints(lambda: None)]
    assert [cell for cell in first_cells(teams) if "/v1/team" in cell] == asked
    kinds, codes = get_args(EventKind), get_args(RefusalCode)
    assert [word for word in (*kinds, *codes) if f"`{word}`" not in teams] == []
