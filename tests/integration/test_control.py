"""A control server that is down, hangs or is slow: at the join, and later."""

from __future__ import annotations

import time

import anyio
import pytest

from cctailscale.errors import ControlUnreachable, TimedOut, Unreachable
from cctailscale.tailnet import device as device_module
from cctailscale.tailnet import node as node_module
from cctailscale.tailnet.node import Node, NodeState
from tests.agent import Agent
from tests.inprocess import event, get, kinds, node_in, session_folders, state_folders, unheard
from tests.localnet import Localnet


@pytest.fixture
def asked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that looks at each call whether control still has its device."""
    monkeypatch.setattr(node_module, "CHECK_SECONDS", 0.0)
    monkeypatch.setattr(node_module, "CHECK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(device_module, "ASK_SECONDS", 1.0)


async def offline(node: Node) -> None:
    """Waits until the node has noticed that it is out of touch: LocalAPI has no event for it."""
    device = await node.device(unheard)
    with anyio.fail_after(10):
        while await device.is_online():  # noqa: ASYNC110
            await anyio.sleep(0.01)


# ---- at the join -----------------------------------------------------------------------------------------------------


async def test_control_that_is_down_at_the_join_is_an_error_after_ten_seconds_that_names_it(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.faults(outage=True)
    async with node_in(own_environ) as node:
        began = time.monotonic()
        with pytest.raises(ControlUnreachable) as unreachable:
            await node.device(unheard)
        assert 9 < time.monotonic() - began < 14
        text = str(unreachable.value)
        assert f"The control server {own_tailnet.control_url} gave no answer" in text
        assert "connection refused" in text
        assert "Check the internet connection, TS_CONTROL_URL, and HTTPS_PROXY where a proxy is needed" in text
        assert node.state is NodeState.IDLE
        own_tailnet.faults()
        assert (await node.device(unheard)).running
        assert kinds(own_tailnet, node.hostname or "").count("registered") == 1


async def test_control_that_comes_back_within_these_seconds_is_waited_for(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.faults(outage=True)
    async with node_in(own_environ) as node, anyio.create_task_group() as tasks:
        tasks.start_soon(node.device, unheard)
        await anyio.sleep(1)  # the length of the gap: there is nothing to wait for
        own_tailnet.faults()
        with anyio.fail_after(10):
            await event(own_tailnet, "online")
    assert session_folders(own_environ) == []


async def test_control_that_hangs_at_the_join_is_an_error_once_the_join_timeout_is_over(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.faults(hang=True)
    async with node_in(own_environ | {"TS_JOIN_TIMEOUT": "1"}) as node:
        began = time.monotonic()
        with pytest.raises(ControlUnreachable) as unreachable:
            await node.device(unheard)
        assert 0.9 < time.monotonic() - began < 3
        wanted = f"The control server {own_tailnet.control_url} gave no answer (nothing within 1 s)."
        assert wanted in str(unreachable.value)
        own_tailnet.faults()
        assert (await node.device(unheard)).running
        await event(own_tailnet, "online", node.hostname)
        assert len(own_tailnet.agents()) == 1


async def test_slow_control_is_waited_for(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    own_tailnet.faults(delay_ms=500)
    async with node_in(own_environ) as node:
        assert (await node.device(unheard)).running
        own_tailnet.faults()
    assert session_folders(own_environ) == []


async def test_a_device_that_is_taken_up_while_control_is_down_is_not_given_up(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_environ |= {"CLAUDE_CODE_SESSION_ID": "one", "TS_EPHEMERAL": "false"}
    async with node_in(own_environ) as first:
        await first.device(unheard)
    (before,) = own_tailnet.nodes()
    own_tailnet.faults(outage=True)
    async with node_in(own_environ | {"TS_JOIN_TIMEOUT": "1"}) as second:
        with pytest.raises(ControlUnreachable):
            await second.device(unheard)
        own_tailnet.faults()
        await second.device(unheard)
        (after,) = own_tailnet.nodes()
        assert (after["id"], after["hostname"], after["addresses"]) == (
            before["id"], before["hostname"], before["addresses"],
        )  # fmt: skip


# ---- later -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("asked_at_each_call")
async def test_an_outage_of_control_is_not_taken_for_a_deletion(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_environ["TS_EPHEMERAL"] = "false"  # no logout at the end, which would wait for the node's own dial
    with own_tailnet.peer("web"):
        async with node_in(own_environ) as node:
            device = await node.device(unheard)
            assert node.hostname is not None
            before = own_tailnet.node(node.hostname)
            assert (await get(device.dialer, "http://web/")).status == 200
            own_tailnet.faults(outage=True)
            await offline(node)
            for _ in range(3):
                began = time.monotonic()
                assert await node.device(unheard) is device
                assert (await get(device.dialer, "http://web/")).status == 200  # what needs no control goes on
                assert time.monotonic() - began < 2
            with pytest.raises((Unreachable, TimedOut)):
                await device.handle.known(1)
            assert isinstance(node.obstacle, ControlUnreachable)
            own_tailnet.faults()
            # The device itself tries again only some seconds later; meanwhile control says that it has it.
            assert await device.handle.known(5) is True
            assert await node.device(unheard) is device
            assert node.obstacle is None
            after = own_tailnet.node(node.hostname)
            assert (after["id"], after["name"], after["addresses"]) == (
                before["id"], before["name"], before["addresses"],
            )  # fmt: skip
            assert kinds(own_tailnet, node.hostname).count("registered") == 1
            assert state_folders(own_environ) == [f"{node.hostname}/device-1"]


async def test_during_an_outage_status_says_so_fetch_works_and_the_server_stops(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    with own_tailnet.peer("web"):
        async with Agent.started(own_environ) as agent:
            before = await agent.status()
            own_tailnet.faults(outage=True)
            seen = before
            with anyio.fail_after(20):
                while not seen["problem"]:
                    seen = await agent.status()
            assert (seen["state"], seen["hostname"], seen["ips"]) == ("running", before["hostname"], before["ips"])
            assert f"The control server {own_tailnet.control_url} gave no answer" in seen["problem"]
            assert "goes on with what it knows" in seen["problem"]
            assert "Hello from web" in (await agent.succeed("tailscale_fetch", url="http://web/")).text
            began = time.monotonic()
            assert await agent.stop() == 0
            assert time.monotonic() - began < 4  # a second for the logout, half of one for the close
            assert session_folders(own_environ) == [before["hostname"]]  # for a later start to log out


async def test_a_device_that_was_deleted_during_an_outage_is_replaced_after_it(
    own_tailnet: Localnet, own_environ: dict[str, str], asked_at_each_call: None
) -> None:
    async with node_in(own_environ) as node:
        old = await node.device(unheard)
        assert node.hostname is not None
        own_tailnet.faults(outage=True)
        await offline(node)
        own_tailnet.admin("DELETE", f"/nodes/{node.hostname}")
        assert await node.device(unheard) is old
        own_tailnet.faults()
        new = await node.device(unheard)
        assert new is not old
        assert new.running
        assert len(own_tailnet.agents()) == 1
