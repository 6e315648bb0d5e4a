"""The site's pages, held against the real thing: the tools' answers, and the environment of the Node plug-in."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cctailscale.config import load_settings
from pages import answers, team
from tests.agent import Agent
from tests.localnet import Localnet

PAGE = Path(__file__).parent.parent.parent / "docs" / "changing-over.md"


@pytest.fixture
def block() -> dict[str, str]:
    """The `env` block that somebody has who changes over."""
    (written,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    server: dict[str, Any] = json.loads(written)["mcpServers"]["tailscale"]
    return dict(server["env"])


async def test_the_answers_that_the_site_shows_are_those_that_the_tools_give() -> None:
    assert await answers.asked() == answers.kept(), "nox -s docs makes the page anew"


@pytest.mark.timeout(180)  # five agents, of which two are killed and waited for: half a minute on a quiet machine
async def test_the_transcripts_of_a_team_are_what_its_agents_say() -> None:
    scenes, written = await team.played(), team.PAGE.read_text()
    assert sorted(team.marks(written)) == sorted(scenes)
    assert team.page(written, scenes) == written, "nox -s docs makes them anew"


def test_the_plug_ins_environment_is_taken_without_a_word(block: dict[str, str]) -> None:
    loaded = load_settings(block | {"HOME": "/home/ada"})
    assert loaded.problems == ()
    assert loaded.settings.warnings == ()
    assert set(block) <= {str(field.validation_alias) for field in type(loaded.settings).model_fields.values()}


async def test_the_plug_ins_environment_works_as_it_is(
    tailnet: Localnet, tmp_path: Path, block: dict[str, str]
) -> None:
    # What Claude Code does with the block: what is set is put in, the rest stays as it stands. Only control is ours.
    expanded = {name: value.replace("${TS_AUTHKEY}", tailnet.auth_key) for name, value in block.items()}
    environ = expanded | {"TS_CONTROL_URL": tailnet.control_url, "HOME": str(tmp_path), "USER": "ada"}
    async with Agent.started(environ, cwd=tmp_path) as agent:
        assert "Hello from web." in (await agent.succeed("tailscale_fetch", url="http://web/")).text
        status = await agent.status()
        assert status["hostname"].startswith("build-box-")
        assert {"tailscale_team_create", "tailscale_task_list"} <= {
            tool["name"] for tool in (await agent.request("tools/list"))["tools"]
        }
        assert await agent.stop() == 0
    assert (tmp_path / ".cache" / "claude-code-tailscale").is_dir()
