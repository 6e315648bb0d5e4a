"""The Claude Code plug-in and the registry's entry: what they say is what the package has.

Whether Claude Code takes the plug-in is asked of Claude Code itself, in tests/ecosystem.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cctailscale import __version__
from cctailscale.agents import place, unread
from cctailscale.agents.unread import FOLDER, Unread
from cctailscale.config import Settings, load_settings
from cctailscale.server import CHANNEL, NAME
from pages.tools import registered

ROOT = Path(__file__).parent.parent.parent
PLUGIN: dict[str, Any] = json.loads((ROOT / ".claude-plugin" / "plugin.json").read_text())
MARKETPLACE: dict[str, Any] = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text())
REGISTRY: dict[str, Any] = json.loads((ROOT / "server.json").read_text())
SKILL = (ROOT / "skills" / "tailnet" / "SKILL.md").read_text()
COMMANDS = sorted((ROOT / "commands").glob("*.md"))
README = (ROOT / "README.md").read_text()
SETTINGS = {field.validation_alias: field for field in Settings.model_fields.values() if field.validation_alias}


def tools() -> set[str]:
    return {tool.name for tool in registered()}


def named(text: str) -> set[str]:
    return set(re.findall(r"tailscale_\w+", text.replace("cc-tailscale_tailscale__", "")))


# ---- the plug-in


def test_plugin_and_registry_have_the_versions_of_the_package() -> None:
    (package,) = REGISTRY["packages"]
    assert {PLUGIN["version"], REGISTRY["version"], package["version"]} == {__version__}


def test_the_marketplace_has_the_plugin_and_leaves_its_version_to_it() -> None:
    (entry,) = MARKETPLACE["plugins"]
    assert (entry["name"], entry["source"]) == (PLUGIN["name"], "./")
    assert "version" not in entry


def test_the_plugin_starts_the_server_by_uvx_with_settings_that_there_are() -> None:
    (server,) = PLUGIN["mcpServers"].values()
    assert [server["command"], *server["args"]] == ["uvx", "cc-tailscale"]
    assert set(server["env"]) <= set(SETTINGS)
    assert set(server["env"].values()) == {f"${{user_config.{option}}}" for option in PLUGIN["userConfig"]}


def test_the_key_is_the_one_option_that_is_kept_as_a_secret() -> None:
    assert [name for name, option in PLUGIN["userConfig"].items() if option.get("sensitive")] == ["auth_key"]
    assert not [option for option in PLUGIN["userConfig"].values() if option.get("required")]


@pytest.mark.parametrize("left_empty", ["", "${user_config.option}"])
def test_options_that_are_left_empty_are_unset(left_empty: str) -> None:
    """Claude Code makes an empty text of them; it has left the placeholder."""
    (server,) = PLUGIN["mcpServers"].values()
    loaded = load_settings(dict.fromkeys(server["env"], left_empty))
    assert (loaded.problems, loaded.settings.given) == ((), ())


def test_the_channel_is_that_of_its_server() -> None:
    assert [channel["server"] for channel in PLUGIN["channels"]] == list(PLUGIN["mcpServers"]) == [NAME]
    assert CHANNEL == "claude/channel"


def test_the_skill_names_every_tool_and_no_other() -> None:
    assert named(SKILL) == tools()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_a_command_names_only_tools_that_there_are_and_is_allowed_none_that_changes_anything(command: Path) -> None:
    text = command.read_text()
    assert named(text)
    assert named(text) <= tools()
    (allowed,) = re.findall(r"^allowed-tools: (.+)$", text, flags=re.MULTILINE)
    prefix = f"mcp__plugin_{PLUGIN['name']}_{NAME}__"
    assert all(name.startswith(prefix) for name in allowed.split(", "))
    reading = {"tailscale_status", "tailscale_agents", "tailscale_check_messages", "tailscale_team_info"}
    assert {name.removeprefix(prefix) for name in allowed.split(", ")} <= reading | {"tailscale_task_list"}


def test_the_readme_names_every_command() -> None:
    first, *others = re.findall(r"`(\w+)`", README.partition("commands (`/cc-tailscale:")[2].partition(")")[0])
    assert {"status", first, *others} == {command.stem for command in COMMANDS}


# ---- its hook


def hooks() -> list[str]:
    return [hook["command"] for event in PLUGIN["hooks"].values() for group in event for hook in group["hooks"]]


def run_hook(tmp_path: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Runs the hook as Claude Code does, in a shell that has these programs and no others."""
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environ = {"PATH": str(tmp_path / "bin"), "TS_STATE_DIR": str(tmp_path), "CLAUDE_PROJECT_DIR": str(tmp_path)}
    session = place.identity(load_settings(environ | {"CLAUDE_CODE_SESSION_ID": "session-1"}).settings)
    (tmp_path / FOLDER / "inbox-0a0b").mkdir(parents=True)
    unread.write(tmp_path / FOLDER / "inbox-0a0b", Unread(session, 1, (("web.tail1234.ts.net", 1),)))
    event = json.dumps({"session_id": "session-1", "hook_event_name": "Stop", "cwd": "/", "stop_hook_active": False})
    (command,) = set(hooks())
    return subprocess.run(
        ["/bin/sh", "-c", command], input=event, capture_output=True, text=True, env=environ, timeout=30
    )


def test_there_is_a_hook_before_each_prompt_and_after_each_turn() -> None:
    assert set(PLUGIN["hooks"]) == {"UserPromptSubmit", "Stop"}
    assert len(hooks()) == 2


UVX = f"""test "$*" = "--offline --quiet cc-tailscale inbox --hook" || exit 3
exec {sys.executable} -m cctailscale inbox --hook"""
INSTALLED = f'exec {sys.executable} -m cctailscale "$@"'


# uv takes some 100 ms more than the command itself: it looks for Python and for the package anew each time.
@pytest.mark.parametrize("programs", [{"uvx": UVX}, {"cc-tailscale": INSTALLED, "uvx": "echo I was run too"}])
def test_the_hook_says_that_messages_wait(tmp_path: Path, programs: dict[str, str]) -> None:
    ran = run_hook(tmp_path, **programs)
    assert ran.returncode == 0
    told = json.loads(ran.stdout)["hookSpecificOutput"]
    assert told["hookEventName"] == "Stop"
    assert "1 unread message from web.tail1234.ts.net (1)" in told["additionalContext"]


# uv ends with 2 where it finds no package; to Claude Code that would mean: take the user's prompt back.
@pytest.mark.parametrize("there", [[], ["uvx"], ["cc-tailscale"], ["cc-tailscale", "uvx"]])
def test_where_the_hook_cannot_be_run_it_is_silent_and_stops_nothing(tmp_path: Path, there: list[str]) -> None:
    ran = run_hook(tmp_path, **dict.fromkeys(there, "echo no such package >&2; exit 2"))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


# ---- the registry


def test_the_registrys_entry_is_of_its_schemas_form() -> None:
    """The rules of the schema of 2025-12-11 and of the registry, for what this entry has."""
    assert REGISTRY["$schema"].endswith("/schemas/2025-12-11/server.schema.json")
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", REGISTRY["name"])
    assert all(1 <= len(REGISTRY[field]) <= 100 for field in ("title", "description"))
    assert set(REGISTRY["repository"]) == {"url", "source"}
    (package,) = REGISTRY["packages"]
    assert (package["registryType"], package["identifier"]) == ("pypi", "cc-tailscale")
    assert package["runtimeHint"] == "uvx"
    assert package["transport"] == {"type": "stdio"}
    known = {"name", "description", "placeholder", "isSecret", "format", "default", "isRequired", "choices", "value"}
    for variable in package["environmentVariables"]:
        assert set(variable) <= known
        assert variable.get("format", "string") in ("string", "number", "boolean", "filepath")
        assert isinstance(variable.get("default", ""), str)


def test_its_variables_are_settings_as_the_package_describes_them() -> None:
    (package,) = REGISTRY["packages"]
    for variable in package["environmentVariables"]:
        field = SETTINGS[variable["name"]]
        assert variable["description"] == field.description
        assert variable.get("placeholder") in (None, *(field.examples or ()))
        assert variable.get("isSecret", False) == ("SecretStr" in str(field.annotation))


def test_the_readme_has_the_name_that_the_registry_looks_for_on_pypi() -> None:
    assert re.findall(r"<!-- mcp-name: (\S+) -->", README) == [REGISTRY["name"]]


def test_every_json_example_of_the_readme_starts_the_server_with_settings_that_there_are() -> None:
    examples = [json.loads(text) for text in re.findall(r"```json\n(.+?)```", README, flags=re.DOTALL)]
    assert len(examples) >= 4
    for example in examples:
        (server,) = (example.get("mcpServers") or example["servers"]).values()
        assert (Path(server["command"]).name, server["args"]) == ("uvx", ["cc-tailscale"])
        assert set(server["env"]) <= set(SETTINGS)
        inputs = {f"${{input:{one['id']}}}" for one in example.get("inputs", ())}
        assert inputs == {value for value in server["env"].values() if value.startswith("${input:")}
