"""`cc-tailscale login`: once, by a person; afterwards the server of that project has the same device."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent
from tests.inprocess import kinds, state_folders
from tests.integration.test_shell import login_link
from tests.localnet import Localnet
from tests.shell import Ran, ran, started

KEPT = {"TS_EPHEMERAL": "false"}


@pytest.fixture
def by_hand(own_environ: dict[str, str]) -> dict[str, str]:
    """The environment of a person without a key."""
    del own_environ["TS_AUTHKEY"]
    return own_environ


async def logged_in(tailnet: Localnet, environ: dict[str, str], *words: str) -> Ran:
    """Runs the command; somebody opens its link. What it printed after that."""
    async with started(environ, "login", *words) as process:
        url = await login_link(process)
        tailnet.admin("POST", "/logins/complete", {"url": url, "user": "bob@example.com"})
        out, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


async def status_of_server(environ: dict[str, str]) -> dict[str, Any]:
    """What the MCP server of the project says of its device."""
    async with Agent.started(environ) as agent:
        status = await agent.status()
        assert await agent.stop() == 0
        return status


async def test_the_device_that_a_person_logs_in_is_the_one_that_the_server_uses(
    own_tailnet: Localnet, by_hand: dict[str, str]
) -> None:
    result = await logged_in(own_tailnet, by_hand, "--json")
    assert result.code == 0
    shown = json.loads(result.out)
    assert (shown["state"], shown["owner"]) == ("running", "bob@example.com")
    assert "This device is logged in now." in result.err
    assert f"sessions in {by_hand['CLAUDE_PROJECT_DIR']} use it" in result.err
    (device,) = own_tailnet.agents()  # it was not logged out
    assert not device["ephemeral"]
    for session in ("one", "another"):
        status = await status_of_server(by_hand | KEPT | {"CLAUDE_CODE_SESSION_ID": session})
        assert (status["state"], status["problem"]) == ("running", None)
        assert (status["magic_dns_name"], status["ips"]) == (shown["magic_dns_name"], shown["ips"])
    (after,) = own_tailnet.agents()
    assert after["id"] == device["id"]
    assert "logout" not in kinds(own_tailnet, device["hostname"])


async def test_the_confirmation_has_name_and_address(own_tailnet: Localnet, by_hand: dict[str, str]) -> None:
    result = await logged_in(own_tailnet, by_hand)
    (device,) = own_tailnet.agents()
    assert device["name"].rstrip(".") in result.out
    assert device["addresses"][0].partition("/")[0] in result.out


async def test_who_is_logged_in_already_is_told_so_without_a_link(
    own_tailnet: Localnet, by_hand: dict[str, str]
) -> None:
    await logged_in(own_tailnet, by_hand)
    (device,) = own_tailnet.agents()
    again = await ran(by_hand, "login")
    assert again.code == 0
    assert "This device was logged in already." in again.err
    assert "To log this device in" not in again.err
    assert device["name"].rstrip(".") in again.out
    assert [one["id"] for one in own_tailnet.agents()] == [device["id"]]


async def test_an_expired_login_is_renewed_in_its_place(own_tailnet: Localnet, by_hand: dict[str, str]) -> None:
    await logged_in(own_tailnet, by_hand)
    (before,) = own_tailnet.agents()
    own_tailnet.admin("POST", f"/nodes/{before['hostname']}/expire", {})
    result = await logged_in(own_tailnet, by_hand)
    assert result.code == 0
    assert "This device is logged in now." in result.err
    (after,) = own_tailnet.agents()
    assert (after["id"], after["name"], after["addresses"]) == (before["id"], before["name"], before["addresses"])
    assert not after["expired"]


async def test_a_key_that_is_set_does_not_take_the_place_of_the_person(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    result = await logged_in(own_tailnet, own_environ, "--json")
    assert json.loads(result.out)["owner"] == "bob@example.com"  # the key is alice's


async def test_another_project_has_another_device(own_tailnet: Localnet, by_hand: dict[str, str]) -> None:
    await logged_in(own_tailnet, by_hand)
    other = Path(by_hand["HOME"]) / "other"
    other.mkdir()
    await logged_in(own_tailnet, by_hand | {"CLAUDE_PROJECT_DIR": str(other)})
    assert len(own_tailnet.agents()) == 2


async def test_without_a_project_s_variable_it_is_the_folder_it_is_run_in(
    own_tailnet: Localnet, by_hand: dict[str, str]
) -> None:
    project = Path(by_hand.pop("CLAUDE_PROJECT_DIR"))
    async with started(by_hand, "login", "--json", cwd=project) as process:
        url = await login_link(process)
        own_tailnet.admin("POST", "/logins/complete", {"url": url, "user": "bob@example.com"})
        out, _ = await asyncio.wait_for(process.communicate(), 20)
    status = await status_of_server(by_hand | KEPT | {"CLAUDE_PROJECT_DIR": str(project)})
    assert status["ips"] == json.loads(out)["ips"]


async def test_a_device_that_a_session_uses_is_left_to_it(own_tailnet: Localnet, by_hand: dict[str, str]) -> None:
    await logged_in(own_tailnet, by_hand)
    async with Agent.started(by_hand | KEPT) as agent:
        hostname = (await agent.status())["hostname"]
        result = await ran(by_hand, "login")
        assert (result.code, result.out) == (1, "")
        assert f"The device {hostname} of this project is in use by a session that runs now." in result.err
        assert (await agent.status())["state"] == "running"
    assert len(own_tailnet.agents()) == 1


async def test_a_login_that_does_not_come_can_be_begun_again(own_tailnet: Localnet, by_hand: dict[str, str]) -> None:
    late = await ran(by_hand | {"TS_JOIN_TIMEOUT": "1"}, "login")
    assert (late.code, late.out) == (1, "")
    assert "Nobody has logged in within 1 s. The command ends here; a link" in " ".join(late.err.split())
    async with started(by_hand, "login") as process:
        await login_link(process)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 128 + signal.SIGINT
    assert own_tailnet.nodes() == []
    assert (await logged_in(own_tailnet, by_hand)).code == 0
    assert len(state_folders(by_hand)) == 1
    assert len(own_tailnet.agents()) == 1
