"""The process's end, in every way that it comes, and what the next start finds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from tests.agent import Agent, RpcError
from tests.inprocess import event, inbox_folders, kinds, node_in, session_folders, state_folders, unheard
from tests.localnet import Localnet

INTERRUPT, TERMINATE, HANG_UP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture
def patient_environ(patient_tailnet: Localnet, environ: dict[str, str]) -> dict[str, str]:
    """As `environ`, on that tailnet, in the Claude Code session "one"."""
    return environ | {
        "TS_AUTHKEY": patient_tailnet.auth_key,
        "TS_CONTROL_URL": patient_tailnet.control_url,
        "CLAUDE_CODE_SESSION_ID": "one",
    }


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def stopped_as_claude_code_does(agent: Agent) -> int:
    """SIGINT, 100 ms, SIGTERM, 400 ms, SIGKILL; the exit code."""
    for number, seconds in ((INTERRUPT, 0.1), (TERMINATE, 0.4), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            agent.process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(agent.process.wait(), seconds)
    raise TimeoutError("it survived SIGKILL")


# ---- the ways to stop ------------------------------------------------------------------------------------------------


async def test_a_session_that_is_told_to_stop_logs_out_and_leaves_nothing(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path
) -> None:
    async def stops(how: signal.Signals | None) -> None:
        own = environ | {"TS_STATE_DIR": str(tmp_path / f"state-{how}")}
        async with Agent.started(own) as agent:
            hostname = (await agent.status())["hostname"]
            assert session_folders(own) == [hostname]
            assert Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text() == ""
            assert await agent.stop(how) == 0, how
            # By the logout, and not by control's time-out for devices that are away.
            assert kinds(tailnet, hostname)[-2:] == ["logout", "removed"], how
        assert session_folders(own) == [], how
        assert inbox_folders(own) == [], how
        assert "Traceback" not in agent.stderr

    await asyncio.gather(*(stops(how) for how in (INTERRUPT, TERMINATE, HANG_UP, None)))


async def test_claude_codes_stop_sequence_finds_it_gone_before_the_kill(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    async with Agent.started(environ) as agent:
        hostname = (await agent.status())["hostname"]
        assert await stopped_as_claude_code_does(agent) == 0
        assert kinds(tailnet, hostname)[-2:] == ["logout", "removed"]
    assert session_folders(environ) == []


async def test_with_control_a_second_late_the_logout_takes_effect_before_the_kill(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    async with Agent.started(own_environ) as agent:
        hostname = (await agent.status())["hostname"]
        own_tailnet.faults(logout_delay_ms=1000)
        told = time.time_ns()
        code = await stopped_as_claude_code_does(agent)
        removed = await event(own_tailnet, "removed", hostname)
        assert code == -signal.SIGKILL  # the answer came too late
        assert removed["time_ns"] - told < 500e6
        assert kinds(own_tailnet, hostname)[-2:] == ["logout", "removed"]
    assert session_folders(own_environ) == [hostname]  # for the next start to remove


async def test_further_signals_change_nothing_while_it_stops(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    async with Agent.started(own_environ) as agent:
        hostname = (await agent.status())["hostname"]
        own_tailnet.faults(logout_delay_ms=300)
        ended = asyncio.ensure_future(agent.process.wait())
        deadline = time.monotonic() + 15
        while not ended.done() and time.monotonic() < deadline:
            for number in (INTERRUPT, TERMINATE, HANG_UP):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent.pid, number)  # not send_signal: that one reaps, and asyncio loses the exit code
            await asyncio.sleep(0.001)
        assert await ended == 0
        assert kinds(own_tailnet, hostname)[-2:] == ["logout", "removed"]
    assert "Traceback" not in agent.stderr


async def test_a_session_whose_parent_has_vanished_stops(tailnet: Localnet, environ: dict[str, str]) -> None:
    # The server is the child of a child of this test, which holds on to the other end of stdin.
    intermediate = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'cctailscale'])"
    async with Agent.started(environ, command=(sys.executable, "-c", intermediate)) as agent:
        hostname = (await agent.status())["hostname"]
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        (server,) = map(int, children)
        agent.process.kill()
        await event(tailnet, "removed", hostname, seconds=10)
        assert kinds(tailnet, hostname)[-2:] == ["logout", "removed"]
        with anyio.fail_after(10):
            while alive(server):  # noqa: ASYNC110 - it is nobody's child here
                await anyio.sleep(0.01)
    assert session_folders(environ) == []


async def test_stdin_that_is_closed_in_the_midst_of_a_call_stops_it(tailnet: Localnet, environ: dict[str, str]) -> None:
    async with Agent.started(environ) as agent:
        hostname = (await agent.status())["hostname"]
        hanging = {"url": "http://web/hang/body", "timeout_seconds": 60}
        _, answer = agent.begin("tools/call", {"name": "tailscale_fetch", "arguments": hanging})
        await agent.request("ping")  # what was sent before it has been read
        assert await agent.stop() == 0
        with pytest.raises((RpcError, EOFError), match="closed"):
            await answer
        assert kinds(tailnet, hostname)[-2:] == ["logout", "removed"]
    assert session_folders(environ) == []


async def test_a_stop_during_a_join_leaves_no_device(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    own_tailnet.faults(delay_ms=150)
    async with Agent.started(own_environ) as agent:
        _, answer = agent.begin("tools/call", {"name": "tailscale_status", "arguments": {}})
        registered = await event(own_tailnet, "registered")  # and the answer is on its way
        assert await agent.stop(TERMINATE) == 0
        with contextlib.suppress(RpcError, EOFError):  # whether the call still gets an answer is a matter of luck
            assert "has been closed" in (await answer)["content"][0]["text"]
        assert kinds(own_tailnet, registered["hostname"])[-2:] == ["logout", "removed"]
    assert session_folders(own_environ) == []
    assert "Traceback" not in agent.stderr


async def test_a_stop_while_control_hangs_at_the_join_takes_seconds_and_leaves_no_device(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.faults(hang=True)
    async with Agent.started(own_environ) as agent:
        number, _ = agent.begin("tools/call", {"name": "tailscale_status", "arguments": {}})
        await agent.progressed(number, "Joining")
        began = time.monotonic()
        assert await agent.stop(TERMINATE) == 0
        assert time.monotonic() - began < 9
    own_tailnet.faults()
    assert own_tailnet.nodes() == []
    assert "Traceback" not in agent.stderr


async def test_a_session_that_never_used_a_tool_leaves_no_trace(tailnet: Localnet, environ: dict[str, str]) -> None:
    before = tailnet.last_event()
    async with Agent.started(environ) as agent:
        await agent.request("tools/list")
        assert await stopped_as_claude_code_does(agent) == 0
    assert session_folders(environ) == []
    mine = tailnet.admin("GET", f"/events?after={before}&wait_ms=0&kind=registered")["events"]
    assert mine == []


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_standard_stream_that_is_closed_at_the_start_is_as_good_as_one_that_leads_nowhere(
    closed: str, environ: dict[str, str]
) -> None:
    # Otherwise the next descriptor that is opened would take its place, and the wire would be a socket of our own.
    # Warnings are shown. Python's development mode would also tell of each callback that a busy machine slows down.
    command = f'exec "$0" -X faulthandler -W default -m cctailscale {closed}'
    run = subprocess.run(
        ["sh", "-c", command, sys.executable], env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=30
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


# ---- TS_EPHEMERAL=false ----------------------------------------------------------------------------------------------


async def test_a_device_that_is_not_ephemeral_is_taken_up_by_the_projects_next_session(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_environ |= {"TS_EPHEMERAL": "false"}
    async with Agent.started(own_environ | {"CLAUDE_CODE_SESSION_ID": "one"}) as agent:
        first = await agent.status()
        assert await agent.stop(TERMINATE) == 0
    assert "logout" not in kinds(own_tailnet, first["hostname"])
    assert session_folders(own_environ) == [first["hostname"]]
    async with node_in(own_environ | {"CLAUDE_CODE_SESSION_ID": "two"}) as node:
        device = await node.device(unheard)
        assert node.hostname == first["hostname"]
        assert (await device.api.status(peers=False)).tailscale_ips == first["ips"]
    (device,) = own_tailnet.nodes()
    assert device["ephemeral"] is False
    assert kinds(own_tailnet, first["hostname"]).count("registered") == 1


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


async def killed(agent: Agent) -> None:
    agent.process.kill()
    await agent.process.wait()


async def test_a_session_that_was_killed_comes_back_with_its_device(
    patient_tailnet: Localnet, patient_environ: dict[str, str]
) -> None:
    async with Agent.started(patient_environ) as agent:
        before = await agent.status()
        slow = {"url": "http://web/hang/headers", "timeout_seconds": 60}
        agent.begin("tools/call", {"name": "tailscale_fetch", "arguments": slow})
        await agent.request("ping")
        await killed(agent)
    assert session_folders(patient_environ) == [before["hostname"]]
    async with Agent.started(patient_environ) as agent:
        result = await agent.succeed("tailscale_status")
        assert result.structured is not None
        assert f"Taking up the device {before['hostname']} again" in result.progress
        after = result.structured
        assert (after["hostname"], after["magic_dns_name"], after["ips"]) == (
            before["hostname"], before["magic_dns_name"], before["ips"],
        )  # fmt: skip
        assert "Hello from web" in (await agent.succeed("tailscale_fetch", url="http://web/")).text
        assert len(patient_tailnet.agents()) == 1
        assert await agent.stop() == 0
    assert patient_tailnet.agents() == []
    assert session_folders(patient_environ) == []


async def test_a_session_that_was_killed_during_its_join_joins_under_the_same_name(
    patient_tailnet: Localnet, patient_environ: dict[str, str]
) -> None:
    patient_tailnet.faults(hang=True, paths=["/machine/register"])
    async with Agent.started(patient_environ) as agent:
        number, _ = agent.begin("tools/call", {"name": "tailscale_status", "arguments": {}})
        await agent.progressed(number, "Joining")
        (name,) = session_folders(patient_environ)
        await killed(agent)
    patient_tailnet.faults()
    async with node_in(patient_environ) as node:
        await node.device(unheard)
        assert node.hostname == name
        assert [device["hostname"] for device in patient_tailnet.agents()] == [name]
        assert session_folders(patient_environ) == [name]
        assert len(state_folders(patient_environ)) == 1
    assert session_folders(patient_environ) == []


async def test_a_killed_session_whose_device_control_has_removed_gets_a_new_one(
    patient_tailnet: Localnet, patient_environ: dict[str, str]
) -> None:
    async with Agent.started(patient_environ) as agent:
        before = await agent.status()
        await killed(agent)
    patient_tailnet.admin("DELETE", f"/nodes/{before['hostname']}")
    async with node_in(patient_environ) as node:
        assert (await node.device(unheard)).running
        assert node.hostname == before["hostname"]
        assert kinds(patient_tailnet, before["hostname"]).count("registered") == 2
        assert len(state_folders(patient_environ)) == 1


async def test_the_next_start_logs_out_what_killed_sessions_left_and_registers_nothing_for_them(
    patient_tailnet: Localnet, patient_environ: dict[str, str]
) -> None:
    def session(name: str) -> dict[str, str]:
        return patient_environ | {"CLAUDE_CODE_SESSION_ID": name}

    async with (
        Agent.started(session("dead")) as dead,
        Agent.started(session("removed")) as gone,
        node_in(session("alive")) as living,
    ):
        names = [status["hostname"] for status in await asyncio.gather(dead.status(), gone.status())]
        await living.device(unheard)
        await killed(dead)
        await killed(gone)
        patient_tailnet.admin("DELETE", f"/nodes/{names[1]}")
        last = patient_tailnet.last_event()
        async with node_in(session("next")) as node:
            await node.device(unheard)
            await event(patient_tailnet, "removed", names[0], after=last)
            assert kinds(patient_tailnet, names[0], after=last)[-2:] == ["logout", "removed"]
            stay = sorted(str(name) for name in (node.hostname, living.hostname))
            with anyio.fail_after(15):
                while session_folders(patient_environ) != stay:  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            for name in names:
                assert "registered" not in kinds(patient_tailnet, name, after=last)
            assert (await living.device(unheard)).running
    assert session_folders(patient_environ) == []
