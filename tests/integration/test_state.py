"""Two sessions in one place, and places that cannot be used."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cctailscale.errors import StateDirError
from tests.agent import Agent
from tests.inprocess import get, kinds, node_in, session_folders, state_folders, unheard
from tests.localnet import Localnet


async def test_two_processes_with_the_same_name_and_session_are_two_devices_that_both_work(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    environ |= {"TS_HOSTNAME": "build-box", "CLAUDE_CODE_SESSION_ID": "one"}

    async def works(agent: Agent) -> str:
        assert "Hello from web" in (await agent.succeed("tailscale_fetch", url="http://web/")).text
        hostname: str = (await agent.status())["hostname"]
        return hostname

    async with Agent.started(environ) as one, Agent.started(environ) as two:
        names = await asyncio.gather(works(one), works(two))
        assert len(set(names)) == 2
        assert all(name.startswith("build-box-") for name in names)
        assert session_folders(environ) == sorted(names)
        assert len({tailnet.node(name)["addresses"][0] for name in names}) == 2
        assert await one.stop() == 0
        assert session_folders(environ) == [names[1]]
        assert "Hello from web" in (await two.succeed("tailscale_fetch", url="http://web/")).text
        assert await two.stop() == 0
    for name in names:
        assert kinds(tailnet, name).count("registered") == 1


async def test_a_state_dir_that_is_set_is_the_root_of_the_sessions_directories(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "some where" / "deep"
    environ["TS_STATE_DIR"] = str(root)
    async with node_in(environ) as node:
        await node.device(unheard)
        assert node.hostname is not None
        assert state_folders(environ) == [f"{node.hostname}/device-1"]
        assert root.stat().st_mode & 0o777 == 0o700
        assert (root / node.hostname).stat().st_mode & 0o777 == 0o700


async def test_what_lies_on_the_disk_is_the_users_alone_and_holds_no_auth_key(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    root = Path(environ["TS_STATE_DIR"])
    async with Agent.started(environ | {"TS_ENABLE_TEAMS": "1", "TS_VERBOSE": "1"}) as agent:
        await agent.succeed("tailscale_fetch", url="http://web/")
        await agent.succeed("tailscale_team_create", name="release")
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        files = [path for path in root.rglob("*") if path.is_file()]
        assert {"tailscaled.state", "inbox.db", "team.db", "key"} <= {path.name for path in files}
        assert {oct(path.stat().st_mode & 0o777) for path in folders} == {"0o700"}
        assert [path for path in files if path.stat().st_mode & 0o077] == []
        assert [path for path in files if environ["TS_AUTHKEY"].encode() in path.read_bytes()] == []


async def test_a_root_that_is_a_link_of_the_users_is_followed_and_a_linked_session_is_refused(
    tailnet: Localnet, environ: dict[str, str], tmp_path: Path
) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    Path(environ["TS_STATE_DIR"]).symlink_to(real)
    async with node_in(environ) as node:
        await node.device(unheard)
        assert node.hostname is not None
        assert (real / node.hostname / "device-1").is_dir()
        base = node.hostname.rpartition("-")[0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (real / f"{base}-0000").symlink_to(elsewhere)
    async with node_in(environ) as node:
        with pytest.raises(StateDirError, match=f"{base}-0000 is a symbolic link\\..* rm "):
            await node.device(unheard)
    assert list(elsewhere.iterdir()) == []


async def test_a_root_that_is_a_file_is_refused_with_the_next_step(tailnet: Localnet, environ: dict[str, str]) -> None:
    Path(environ["TS_STATE_DIR"]).write_text("")
    async with node_in(environ) as node:
        with pytest.raises(StateDirError) as refused:
            await node.device(unheard)
    text = str(refused.value)
    assert f"The state directory {environ['TS_STATE_DIR']} is not a folder." in text
    assert "Set TS_STATE_DIR to a folder of your own" in text


def mountable() -> bool:
    """Whether a mount namespace can be had here."""
    if shutil.which("unshare") is None:
        return False
    attempt = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]
    return subprocess.run(attempt, capture_output=True, timeout=30).returncode == 0


@pytest.mark.skipif(not mountable(), reason="no mount namespace can be made here")
async def test_disks_that_are_full_or_read_only_are_errors_that_say_so(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    root = Path(environ["TS_STATE_DIR"])
    root.mkdir(mode=0o700)
    before = tailnet.last_event()

    async def told(options: str, fill: str) -> str:
        script = f'mount -t tmpfs -o mode=700,{options} tmpfs "{root}" && {fill}; exec "$@"'
        server = ("unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "cctailscale")
        async with Agent.started(environ, command=server) as agent:
            text = await agent.fail("tailscale_fetch", url="http://web/")
            assert (await agent.fail("tailscale_status")).replace("device-2", "device-1") == text
            assert await agent.stop() == 0
        assert "Traceback" not in agent.stderr
        return text

    full = f'dd if=/dev/zero of="{root}/filler" bs=4k 2>&-'
    crowded, tight, frozen = await asyncio.gather(
        told("size=64k", full),  # not one byte is free
        told("size=12k", "true"),  # the session's directory fits, the node's keys and logs do not
        told("ro", "true"),
    )
    assert f"The state directory {root} is on a full disk. " in crowded
    assert "Make room, or set TS_STATE_DIR to a folder on another disk." in crowded
    assert tight.startswith(f"The state directory {root}/cc-tester-")
    assert "/device-1 cannot be used (no space left on device). " in tight
    assert "Free some space" in tight
    assert f"The state directory {root} is on a read-only file system. " in frozen
    registered = tailnet.admin("GET", f"/events?after={before}&wait_ms=0&kind=registered")["events"]
    assert registered == []


async def test_a_session_that_takes_up_its_directory_finds_what_another_version_left_there_untouched(
    tailnet: Localnet, environ: dict[str, str]
) -> None:
    environ |= {"TS_EPHEMERAL": "false", "CLAUDE_CODE_SESSION_ID": "one"}
    async with node_in(environ) as node:
        device = await node.device(unheard)
        assert (await get(device.dialer, "http://web/")).status == 200
        assert node.hostname is not None
        root = Path(environ["TS_STATE_DIR"]) / node.hostname
    (root / "notes").write_text("mine")
    async with node_in(environ) as node:
        await node.device(unheard)
        assert node.hostname == root.name
    assert (root / "notes").read_text() == "mine"
    tailnet.admin("DELETE", f"/nodes/{root.name}")
