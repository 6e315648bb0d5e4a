"""A device whose key has expired is logged in again in its place: control keeps it, its name and its addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from cctailscale.errors import ControlUnreachable, KeyRefused, LoginNeeded
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.forward import Forwards
from cctailscale.tailnet.node import Node, NodeState
from tests.agent import Agent
from tests.inprocess import Stages, event, get, kinds, node_in, session_folders, state_folders, unheard
from tests.localnet import Localnet

EPHEMERAL = pytest.mark.parametrize("ephemeral", ["true", "false"], ids=["ephemeral", "kept"])


def identity(tailnet: Localnet, hostname: str | None) -> dict[str, Any]:
    """What has to stay, of the one device that there is of this name."""
    assert hostname is not None
    device = tailnet.node(hostname)
    return {field: device[field] for field in ("id", "name", "addresses", "machine_key", "ephemeral")}


async def expired(tailnet: Localnet, node: Node) -> Device:
    """Has the key of the node's device expire, and waits until the device knows. The device."""
    device = await node.device(unheard)
    tailnet.admin("POST", f"/nodes/{node.hostname}/expire", {})
    with anyio.fail_after(10):
        await device.wait_until(lambda: not device.running)
    return device


async def logged_in(tailnet: Localnet, url: str | None, node: Node) -> Device:
    """A person opens the link. The device, once it is back: the news is on its way to it, and nothing here tells."""
    tailnet.admin("POST", "/logins/complete", {"url": url})
    with anyio.fail_after(10):
        while (device := await node.attempt(unheard)) is None:
            assert isinstance(node.obstacle, LoginNeeded)
            assert node.obstacle.url == url
            await anyio.sleep(0.01)
    return device


def key_file(folder: Path, key: str) -> dict[str, str]:
    """The setting for a key in a file."""
    file = folder / "key"
    file.write_text(key)
    file.chmod(0o600)
    return {"TS_AUTHKEY_FILE": str(file)}


# ---- with a key ------------------------------------------------------------------------------------------------------


@EPHEMERAL
async def test_with_a_key_the_next_call_logs_the_same_device_in(
    ephemeral: str, own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    with own_tailnet.peer("web"):
        async with node_in(own_environ | {"TS_EPHEMERAL": ephemeral}) as node:
            device = await node.device(unheard)
            assert (await get(device.dialer, "http://web/")).status == 200
            before, began = identity(own_tailnet, node.hostname), own_tailnet.last_event()
            assert before["name"].startswith(f"{node.hostname}.")
            await expired(own_tailnet, node)
            stages = Stages()
            assert await node.device(stages) is device
            assert device.running
            assert (node.state, node.obstacle) == (NodeState.RUNNING, None)
            assert f"Logging the device {node.hostname} in again" in stages
            assert identity(own_tailnet, node.hostname) == before
            assert not own_tailnet.node(node.hostname or "")["expired"]
            assert (await get(device.dialer, "http://web/")).status == 200
            happened = kinds(own_tailnet, node.hostname or "", after=began)
            assert happened.count("rotated") == 1
            assert not {"registered", "removed", "logout"} & set(happened)  # it was the only one at any moment
            assert state_folders(own_environ) == [f"{node.hostname}/device-1"]
    assert len(own_tailnet.agents()) == (0 if ephemeral == "true" else 1)
    assert len(session_folders(own_environ)) == len(own_tailnet.agents())


async def test_a_forward_and_the_connections_through_it_go_on(tailnet: Localnet, environ: dict[str, str]) -> None:
    async with node_in(environ) as node, Forwards.opened(node) as forwards:
        forward, _ = await forwards.create("web", 7, 0, unheard)

        async def echoed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> None:
            writer.write(text)
            assert await asyncio.wait_for(reader.readexactly(len(text)), 15) == text

        old = await asyncio.open_connection("127.0.0.1", forward.local_port)
        await echoed(*old, b"before")
        await expired(tailnet, node)
        new = await asyncio.open_connection("127.0.0.1", forward.local_port)
        await echoed(*new, b"new")
        await echoed(*old, b"old")
        for _, writer in (old, new):
            writer.close()


async def test_calls_at_the_same_time_share_one_login(tailnet: Localnet, environ: dict[str, str]) -> None:
    async with node_in(environ) as node:
        device = await expired(tailnet, node)
        began = tailnet.last_event()
        devices = set()

        async def call() -> None:
            devices.add(await node.device(unheard))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(call)
        assert devices == {device}
        assert kinds(tailnet, node.hostname or "", after=began).count("rotated") == 1


async def test_a_client_secret_logs_the_same_device_in(tailnet: Localnet, environ: dict[str, str]) -> None:
    del environ["TS_AUTHKEY"]
    async with node_in(environ | {"TS_CLIENT_SECRET": tailnet.client_secret, "TS_TAGS": "tag:agent"}) as node:
        await node.device(unheard)
        before = identity(tailnet, node.hostname)
        device = await expired(tailnet, node)
        assert await node.device(unheard) is device
        assert identity(tailnet, node.hostname) == before
        assert tailnet.node(node.hostname or "")["tags"] == ["tag:agent"]


async def test_an_oauth_server_that_is_away_is_said_and_the_login_begins_anew(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    del own_environ["TS_AUTHKEY"]
    own_environ |= {"TS_CLIENT_SECRET": own_tailnet.client_secret, "TS_TAGS": "tag:agent", "TS_JOIN_TIMEOUT": "2"}
    async with node_in(own_environ) as node:
        await node.device(unheard)
        before = identity(own_tailnet, node.hostname)
        device = await expired(own_tailnet, node)
        for fault in ("oauth_outage", "oauth_hang"):
            own_tailnet.faults(**{fault: True})
            with pytest.raises(ControlUnreachable):
                await node.device(unheard)
        own_tailnet.faults()
        while await node.attempt(unheard) is None:  # the one that hung is told first
            assert isinstance(node.obstacle, ControlUnreachable)
        assert await node.device(unheard) is device
        assert identity(own_tailnet, node.hostname) == before


@EPHEMERAL
async def test_a_key_that_is_refused_is_said_each_time_and_a_new_one_logs_the_same_device_in(
    ephemeral: str, tailnet: Localnet, environ: dict[str, str], tmp_path: Path
) -> None:
    del environ["TS_AUTHKEY"]
    environ |= key_file(tmp_path, tailnet.key(reusable=False)) | {"TS_EPHEMERAL": ephemeral}
    async with node_in(environ) as node:
        await node.device(unheard)
        before = identity(tailnet, node.hostname)
        device = await expired(tailnet, node)
        for _ in range(2):
            with pytest.raises(KeyRefused, match=r"from TS_AUTHKEY_FILE: invalid key: API key k\w+ not valid\."):
                await node.device(unheard)
            assert node.state is NodeState.NEEDS_LOGIN
        assert identity(tailnet, node.hostname) == before
        single_use = tailnet.key(reusable=False)
        key_file(tmp_path, single_use)
        assert await node.device(unheard) is device
        assert identity(tailnet, node.hostname) == before
        await expired(tailnet, node)
        with pytest.raises(KeyRefused):  # the login has used it up
            await node.device(unheard)
    if ephemeral == "false":
        tailnet.admin("DELETE", f"/nodes/{before['name']}")


async def test_a_login_whose_call_was_cancelled_is_gone_on_with_by_the_next_call(
    own_tailnet: Localnet, own_environ: dict[str, str], tmp_path: Path
) -> None:
    async with node_in(own_environ | key_file(tmp_path, own_environ.pop("TS_AUTHKEY"))) as node:
        await node.device(unheard)
        before = identity(own_tailnet, node.hostname)
        device = await expired(own_tailnet, node)
        key_file(tmp_path, own_tailnet.key(reusable=False))  # a second login would be refused
        own_tailnet.faults(delay_ms=300)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.device, unheard)
            await event(own_tailnet, "rotated", node.hostname)
            tasks.cancel_scope.cancel()
        own_tailnet.faults()
        assert await node.device(unheard) is device
        assert identity(own_tailnet, node.hostname) == before


async def test_control_that_does_not_answer_the_login_costs_no_device(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    async with node_in(own_environ | {"TS_JOIN_TIMEOUT": "1"}) as node:
        await node.device(unheard)
        before = identity(own_tailnet, node.hostname)
        device = await expired(own_tailnet, node)
        own_tailnet.faults(hang=True, paths=["/machine/register"])
        for _ in range(2):
            with pytest.raises(ControlUnreachable, match="gave no answer"):
                await node.device(unheard)
        own_tailnet.faults()
        assert await node.device(unheard) is device
        assert identity(own_tailnet, node.hostname) == before
        assert state_folders(own_environ) == [f"{node.hostname}/device-1"]


async def test_an_outage_of_control_costs_an_expired_device_nothing_but_time(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    async with node_in(own_environ | {"TS_JOIN_TIMEOUT": "2"}) as node:
        await node.device(unheard)
        before = identity(own_tailnet, node.hostname)
        device = await expired(own_tailnet, node)
        own_tailnet.faults(outage=True)
        for _ in range(2):
            with pytest.raises(ControlUnreachable):
                await node.device(unheard)
        own_tailnet.faults()
        with anyio.fail_after(40):
            while await node.attempt(unheard) is None:  # the node's own pauses after an outage are longer than that
                pass
        assert await node.device(unheard) is device
        assert identity(own_tailnet, node.hostname) == before


async def test_an_expired_device_that_was_deleted_too_comes_back_as_a_new_one(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with node_in(environ) as node:
        await expired(tailnet, node)
        tailnet.admin("DELETE", f"/nodes/{node.hostname}")
        device = await node.device(unheard)
        assert (await get(device.dialer, "http://web/")).status == 200
        assert tailnet.node(node.hostname or "")["name"].startswith(f"{node.hostname}.")
        assert len(state_folders(environ)) == 1


# ---- with a person ---------------------------------------------------------------------------------------------------


@EPHEMERAL
async def test_without_a_key_the_same_device_is_back_after_a_login(
    ephemeral: str, tailnet: Localnet, environ: dict[str, str]
) -> None:
    del environ["TS_AUTHKEY"]
    async with node_in(environ | {"TS_EPHEMERAL": ephemeral}) as node:
        with pytest.raises(LoginNeeded) as first:
            await node.device(unheard)
        await logged_in(tailnet, first.value.url, node)
        before = identity(tailnet, node.hostname)
        device = await expired(tailnet, node)
        with pytest.raises(LoginNeeded) as second:
            await node.device(unheard)
        assert node.state is NodeState.NEEDS_LOGIN
        assert second.value.url not in (None, first.value.url)
        with pytest.raises(LoginNeeded) as again:
            await node.device(unheard)
        assert again.value.url == second.value.url
        assert await logged_in(tailnet, second.value.url, node) is device
        assert identity(tailnet, node.hostname) == before
        assert (await get(device.dialer, "http://web/")).status == 200
        assert len(state_folders(environ)) == 1
    if ephemeral == "false":
        tailnet.admin("DELETE", f"/nodes/{before['name']}")
    else:
        assert session_folders(environ) == []


async def test_a_login_that_was_refused_is_followed_by_a_new_link_for_the_same_device(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    del environ["TS_AUTHKEY"]
    async with node_in(environ) as node:
        with pytest.raises(LoginNeeded) as first:
            await node.device(unheard)
        await logged_in(tailnet, first.value.url, node)
        before = identity(tailnet, node.hostname)
        device = await expired(tailnet, node)
        with pytest.raises(LoginNeeded) as second:
            await node.device(unheard)
        tailnet.admin("POST", "/logins/complete", {"url": second.value.url, "error": "not now"})
        with anyio.fail_after(10):
            while not isinstance(node.obstacle, KeyRefused):  # the news is on its way
                assert await node.attempt(unheard) is None
        with pytest.raises(LoginNeeded) as third:
            await node.device(unheard)
        assert third.value.url != second.value.url
        assert await logged_in(tailnet, third.value.url, node) is device
        assert identity(tailnet, node.hostname) == before


async def test_an_expired_ephemeral_device_is_removed_when_the_session_ends(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    environ["TS_AUTHKEY"] = tailnet.key(reusable=False)
    async with node_in(environ) as node:
        await expired(tailnet, node)
        with pytest.raises(KeyRefused):
            await node.device(unheard)
    assert kinds(tailnet, node.hostname or "")[-2:] == ["logout", "removed"]
    assert session_folders(environ) == []


# ---- from session to session -----------------------------------------------------------------------------------------


async def joined_once(tailnet: Localnet, environ: dict[str, str]) -> dict[str, Any]:
    """A session whose device expires once it has ended. The device."""
    async with node_in(environ) as node:
        await node.device(unheard)
        before = identity(tailnet, node.hostname)
    tailnet.admin("POST", f"/nodes/{before['name']}/expire", {})
    return before


async def test_a_device_that_expired_between_two_sessions_is_logged_in_with_the_key(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_environ["TS_EPHEMERAL"] = "false"
    before = await joined_once(own_tailnet, own_environ)
    async with node_in(own_environ) as node:
        assert (await node.device(unheard)).running
        assert identity(own_tailnet, node.hostname) == before
        assert state_folders(own_environ) == [f"{node.hostname}/device-1"]
    async with node_in(own_environ) as node:  # the new key is in the state
        assert (await node.device(unheard)).running
        assert identity(own_tailnet, node.hostname) == before
    assert kinds(own_tailnet, node.hostname or "").count("registered") == 1


async def test_a_device_that_expired_between_two_sessions_is_logged_in_by_a_person(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_environ["TS_EPHEMERAL"] = "false"
    before = await joined_once(own_tailnet, own_environ)
    del own_environ["TS_AUTHKEY"]
    for _ in range(2):  # a session that ends before anybody has logged in changes nothing
        async with node_in(own_environ) as node:
            with pytest.raises(LoginNeeded) as needed:
                await node.device(unheard)
        assert identity(own_tailnet, node.hostname) == before
    async with node_in(own_environ) as node:
        with pytest.raises(LoginNeeded) as needed:
            await node.device(unheard)
        assert (await logged_in(own_tailnet, needed.value.url, node)).running
        assert identity(own_tailnet, node.hostname) == before


async def test_a_device_that_expired_between_two_sessions_outlives_a_key_that_is_refused(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_environ |= {"TS_EPHEMERAL": "false", "TS_AUTHKEY": own_tailnet.key(reusable=False)}
    before = await joined_once(own_tailnet, own_environ)
    async with node_in(own_environ) as node:
        for _ in range(2):
            with pytest.raises(KeyRefused, match=r"from TS_AUTHKEY: invalid key: API key k\w+ not valid\."):
                await node.device(unheard)
    async with node_in(own_environ | {"TS_AUTHKEY": own_tailnet.auth_key}) as node:
        assert (await node.device(unheard)).running
        assert identity(own_tailnet, node.hostname) == before


async def test_a_killed_session_finds_its_expired_device_again(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.admin("PUT", "/settings", {"ephemeral_timeout_ms": 60_000})
    own_environ["CLAUDE_CODE_SESSION_ID"] = "one"
    async with Agent.started(own_environ) as agent:
        hostname = (await agent.status())["hostname"]
        agent.process.kill()
        await agent.process.wait()
    before = identity(own_tailnet, hostname)
    own_tailnet.admin("POST", f"/nodes/{hostname}/expire", {})
    async with Agent.started(own_environ) as agent:
        after = await agent.status()
        assert (after["state"], after["problem"], after["ips"]) == ("running", None, before["addresses"])
        assert identity(own_tailnet, hostname) == before
        assert await agent.stop() == 0
    assert own_tailnet.nodes() == []
    assert session_folders(own_environ) == []
