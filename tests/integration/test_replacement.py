"""A device that control has deleted comes back by itself."""

from __future__ import annotations

import anyio
import pytest

from cctailscale.errors import CcTailscaleError, LoginNeeded, NodeGone
from cctailscale.tailnet import node as node_module
from cctailscale.tailnet.node import Node, NodeState
from tests.agent import Agent
from tests.inprocess import event, get, kinds, node_in, session_folders, state_folders, unheard
from tests.localnet import Localnet


@pytest.fixture(autouse=True)
def asked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that looks at each call whether control still has its device."""
    monkeypatch.setattr(node_module, "CHECK_SECONDS", 0.0)


async def delete(tailnet: Localnet, node: Node) -> int:
    """Deletes the node's device, and waits until the node is out of its map poll; the number of the last event."""
    device = await node.device(unheard)
    before = tailnet.last_event()
    tailnet.admin("DELETE", f"/nodes/{node.hostname}")
    with anyio.fail_after(10):
        while await device.is_online():  # noqa: ASYNC110 - LocalAPI has no event for it
            await anyio.sleep(0.01)
    return before


async def removed(environ: dict[str, str], folder: str) -> None:
    """Waits until the old device's state is gone: it closes in the background."""
    with anyio.fail_after(15):
        while folder in state_folders(environ):  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_a_device_that_was_deleted_is_replaced_by_the_next_call(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with node_in(environ) as node:
        old = await node.device(unheard)
        before = await delete(tailnet, node)
        assert old.running  # it has not noticed
        with anyio.fail_after(5):
            new = await node.device(unheard)
        assert new is not old
        assert (node.state, node.obstacle) == (NodeState.RUNNING, None)
        assert (await get(new.dialer, "http://web/")).status == 200
        assert node.hostname is not None
        assert kinds(tailnet, node.hostname, after=before).count("registered") == 1
        assert tailnet.node(node.hostname)["name"].startswith(node.hostname)
        await removed(environ, f"{node.hostname}/device-1")
        assert state_folders(environ) == [f"{node.hostname}/device-2"]
    assert "logout" in kinds(tailnet, node.hostname, after=before)
    assert session_folders(environ) == []


async def test_calls_at_the_same_time_share_one_replacement(tailnet: Localnet, environ: dict[str, str]) -> None:
    async with node_in(environ) as node:
        await node.device(unheard)
        before = await delete(tailnet, node)
        devices = []

        async def call() -> None:
            devices.append(await node.device(unheard))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(call)
        assert len(set(devices)) == 1
        assert kinds(tailnet, node.hostname or "", after=before).count("registered") == 1


async def test_a_single_use_key_cannot_replace_the_device_and_each_call_says_so(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with node_in(environ | {"TS_AUTHKEY": tailnet.key(reusable=False)}) as node:
        await node.device(unheard)
        await delete(tailnet, node)
        for _ in range(2):
            with pytest.raises(NodeGone) as gone:
                await node.device(unheard)
            text = str(gone.value)
            assert f"The device {node.hostname} was removed from the tailnet." in text
            assert "Its key cannot make another one (invalid key: API key k" in text
            assert "set a reusable key and restart the server" in text
        assert state_folders(environ) == [f"{node.hostname}/device-1"]


async def test_without_a_key_a_deleted_device_needs_a_new_login(tailnet: Localnet, environ: dict[str, str]) -> None:
    del environ["TS_AUTHKEY"]
    async with node_in(environ) as node:
        with pytest.raises(LoginNeeded) as first:
            await node.device(unheard)
        tailnet.admin("POST", "/logins/complete", {"url": first.value.url})
        await event(tailnet, "online", node.hostname)
        await node.device(unheard)
        before = await delete(tailnet, node)
        with pytest.raises(LoginNeeded) as second:
            await node.device(unheard)
        assert node.state is NodeState.NEEDS_LOGIN
        assert second.value.url not in (None, first.value.url)
        tailnet.admin("POST", "/logins/complete", {"url": second.value.url})
        await event(tailnet, "online", node.hostname, after=before)
        assert (await node.device(unheard)).running


async def test_a_deletion_while_a_call_is_under_way_ends_that_call_and_the_next_one_works(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with Agent.started(environ) as agent:
        hostname = (await agent.status())["hostname"]
        slow = {"url": "http://web/slow?ms=1000", "timeout_seconds": 2}
        _, answer = agent.begin("tools/call", {"name": "tailscale_fetch", "arguments": slow})
        tailnet.admin("DELETE", f"/nodes/{hostname}")
        with anyio.fail_after(15):
            result = await answer
        if result["isError"]:  # the peer drops a device that is not in its netmap any more
            assert "gave no answer within" in result["content"][0]["text"]
        after = await agent.status()
        assert (after["state"], after["problem"], after["hostname"]) == ("running", None, hostname)
        assert "Hello from web" in (await agent.succeed("tailscale_fetch", url="http://web/")).text
        assert await agent.stop() == 0


async def test_a_replacement_that_cannot_join_leaves_nothing_behind_and_is_tried_again(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    async with node_in(own_environ | {"TS_JOIN_TIMEOUT": "1"}) as node:
        await node.device(unheard)
        await delete(own_tailnet, node)
        own_tailnet.faults(hang=True, paths=["/machine/register"])
        with pytest.raises(CcTailscaleError, match="gave no answer"):
            await node.device(unheard)
        own_tailnet.faults()
        assert (await node.device(unheard)).running
        await removed(own_environ, f"{node.hostname}/device-2")
        await event(own_tailnet, "online", node.hostname)
        assert len(own_tailnet.agents()) == 1
