"""The documents say what the code has: tools, settings, modules; and their links lead somewhere."""

import ast
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.agents.hosting import endpoints
from cctailscale.commands.checks import CHECKS
from cctailscale.config import Settings
from cctailscale.teams.model import EventKind, RefusalCode
from demo.scenes import STEPS
from pages import answers, recording, settings, team, tools

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
    assert set(first_cells(section("README.md", "Tools"))) == {
        f"`{tool.name}({', '.join(tool.parameters['properties'])})`" for tool in tools.registered()
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
        assert document.parent.name != "docs" or document.parent in linked.resolve().parents, "the site has docs/ alone"
        headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.MULTILINE)
        assert not heading or heading in map(anchor, headings), target


def test_the_sites_menu_has_every_page() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    assert sorted(re.findall(r": ([\w-]+\.md)$", menu, flags=re.MULTILINE)) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md")
    )


def test_the_protocol_names_what_a_team_can_be_asked_and_answers() -> None:
    teams = section("docs/agent-protocol.md", "Teams")
    asked = [f"`{endpoint.method} {endpoint.path}`" for endpoint in endpoints(lambda: None)]
    assert [cell for cell in first_cells(teams) if "/v1/team" in cell] == asked
    kinds, codes = get_args(EventKind), get_args(RefusalCode)
    assert [word for word in (*kinds, *codes) if f"`{word}`" not in teams] == []


# ---- what is made from the code


def test_the_page_of_tools_is_what_the_tools_and_their_answers_make() -> None:
    assert tools.PAGE.read_text() == tools.page(answers.kept()), "nox -s docs makes it anew"


def test_the_page_of_settings_is_what_the_settings_make() -> None:
    assert settings.PAGE.read_text() == settings.page(), "nox -s docs makes it anew"


def test_every_tool_has_a_real_answer_without_what_differs_from_run_to_run() -> None:
    kept = answers.kept()
    assert set(kept) == {tool.name for tool in tools.registered()}
    assert all(answers.shaped(one.answer) == one.answer for one in kept.values())


def test_answers_of_two_runs_differ_in_nothing() -> None:
    one, other = (
        {"regions": [{"code": code, "latency_ms": number} for code in codes], "os": system, "lease_ms": 90000}
        for codes, number, system in (("ab", 0.1, "linux"), ("ba", 0.2, "macOS"))
    )
    assert answers.steady(one) == answers.steady(other) != answers.steady(one | {"lease_ms": 5000})
    text = "<data {}>\nDate: {}\nat {} on 127.0.0.1:{}\n</data {}>"
    first = text.format("0" * 16, "Wed, 25 Nov 2026 14:39:48 GMT", "2026-11-25T14:39:48Z", 1, "0" * 16)
    second = text.format("f" * 16, "Thu, 26 Nov 2026 01:02:03 GMT", "2026-11-26T01:02:03.5Z", 65535, "f" * 16)
    assert answers.shaped(first) == answers.shaped(second)


def test_a_transcript_takes_the_place_of_the_one_before_and_of_nothing_else() -> None:
    written = "One.\n\n<!-- scene: a -->\nold\n<!-- end -->\n\nTwo.\n\n<!-- scene: b -->\n<!-- end -->\n"
    assert team.marks(written) == ["a", "b"]
    filled = team.page(written, {"a": "new\n", "b": "more\n"})
    assert filled == written.replace("old\n", "new\n").replace("b -->\n", "b -->\nmore\n")
    with pytest.raises(KeyError):
        team.page(written, {"a": "new\n"})


def test_each_transcript_of_a_team_is_there_and_has_nothing_of_one_run_alone() -> None:
    written = team.PAGE.read_text()
    assert len(team.marks(written)) == len(set(team.marks(written))) == written.count("<!-- ") / 2
    assert answers.shaped(written) == written
    assert "<!-- end -->\n<!-- scene" not in written
    assert not re.search(r"-->\n+<!-- end", written)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_that_is_laid_out_is_the_same_and_what_fits_is_on_one_line(value: Any) -> None:
    laid_out = team.laid_out(value)
    assert json.loads(laid_out) == value
    assert ("\n" in laid_out) <= (len(json.dumps(value, ensure_ascii=False)) > team.COLUMNS)


def test_the_recording_shows_each_step_of_the_demo_and_is_small() -> None:
    drawn = recording.FILE.read_text()
    shown = recording.words(drawn)
    assert [step.title for step in STEPS if step.title not in shown] == []
    assert "All of that was real" in shown
    assert len(drawn) < 300_000
    assert not re.search(r"(?:href|src)=|url\((?!#)|<script", drawn)  # GitHub shows it, and nothing is fetched


# ---- troubleshooting


def words_of(text: ast.expr) -> str:
    """The longest piece that a sentence has whatever its values are; "" unless that is two words or more."""
    pieces = [str(part.value) for part in ast.walk(text) if isinstance(part, ast.Constant)]
    longest = max((piece.strip(' ().;:,"') for piece in pieces), key=len, default="")
    return longest if " " in longest else ""


def findings() -> Iterator[str]:
    """Of each finding of the doctor that is not all well, what it says in any case."""
    for name in ("checks", "committed", "doctor"):
        for node in ast.walk(ast.parse((PACKAGE / "commands" / f"{name}.py").read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Found":
                outcome, detail = node.args[:2]
                if ast.literal_eval(outcome) != "ok":
                    yield words_of(detail)


def errors() -> Iterator[tuple[str, str]]:
    """Each error, and what it says in any case: that it happened, else what that means."""
    for path in (PACKAGE / "errors").glob("*.py"):
        for cls in (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)):
            for node in ast.walk(cls):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "super().__init__":
                    yield cls.name, next(filter(None, map(words_of, node.args)), "")


def test_each_check_of_the_doctor_has_its_place_in_troubleshooting() -> None:
    headings = re.findall(r"^### (.+)$", section("docs/troubleshooting.md", "What the doctor finds"), re.MULTILINE)
    assert headings == [*(check.name for check in CHECKS), "Any of them"]


@pytest.mark.parametrize("said", sorted({*findings()} - {""}))
def test_each_finding_of_the_doctor_has_its_place_in_troubleshooting(said: str) -> None:
    assert said in section("docs/troubleshooting.md", "What the doctor finds")


@pytest.mark.parametrize(("error", "said"), [(error, said) for error, said in errors() if said])
def test_each_error_has_its_place_in_troubleshooting(error: str, said: str) -> None:
    assert said in (ROOT / "docs" / "troubleshooting.md").read_text(), error


# ---- the security review


def threats() -> list[str]:
    """Each threat of docs/security.md, with its defence and its tests."""
    return re.split(r"^- ", section("docs/security.md", "Threats").replace("\n  - ", "\n"), flags=re.MULTILINE)[1:]


def defined_in(file: Path) -> set[str]:
    return set(
        re.findall(r"^(?:async def|def|func) (test_\w+|(?:Test|Fuzz)\w+)\(", file.read_text(), flags=re.MULTILINE)
    )


def test_every_test_that_the_security_review_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.(?:py|go))::(\w+)`", section("docs/security.md", "Threats"))
    assert len(named) > 100
    folders = {".py": ROOT / "tests", ".go": ROOT / "libtailscale"}
    missing = [name for name in named if name[1] not in defined_in(folders[name[0][-3:]] / name[0])]
    assert missing == []


def test_the_security_review_shows_each_defence_by_a_test_or_says_that_there_is_none() -> None:
    assert [threat for threat in threats() if "::" not in threat and not re.search(r"No\s+test:", threat)] == []
