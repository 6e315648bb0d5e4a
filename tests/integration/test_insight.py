"""The log and the audit log of the real process, on the local tailnet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent
from tests.integration.test_state import mountable
from tests.localnet import Localnet
from tests.talking import joined, settings
from tests.unit.test_logs import read

SECRET = "hunter22-is-a-secret"
BODY = "what one says to the other"


def audited(environ: dict[str, str]) -> list[dict[str, Any]]:
    path = Path(environ["TS_AUDIT_LOG"])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def line(environ: dict[str, str], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The line that is `wanted`, once it is there: it is written after the answer, by a thread that tells nobody."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(StopIteration):
                return next(entry for entry in audited(environ) if wanted(entry))
            await asyncio.sleep(0.01)


@pytest.fixture
def audit_environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return environ | {"TS_AUDIT_LOG": str(tmp_path / "audit.jsonl")}


# ---- the log ---------------------------------------------------------------------------------------------------------


async def test_every_line_of_the_log_is_of_its_form_and_has_the_call_that_caused_it(environ: dict[str, str]) -> None:
    async with Agent.started(environ | {"TS_LOG_LEVEL": "debug"}) as agent:
        await agent.request("tools/list")  # so that the call is not the first request
        number, answer = agent.begin("tools/call", {"name": "tailscale_status", "arguments": {}})
        await asyncio.wait_for(answer, 20)
        await agent.send_raw(b"no JSON\n")
        await agent.request("ping")
        assert await agent.stop() == 0
    fields = [read(line) for line in agent.stderr.splitlines()]
    (joining,) = [line for line in fields if line["msg"].startswith("joined the tailnet of ")]
    assert joining["call"] == str(number)
    assert (joining["level"], joining["source"]) == ("info", "tailnet.node")
    (stray,) = [line for line in fields if "no JSON-RPC" in line["msg"]]
    assert stray["level"] == "warning"
    assert "call" not in stray


async def test_the_log_is_as_loud_as_asked_for(environ: dict[str, str]) -> None:
    async with Agent.started(environ | {"TS_LOG_LEVEL": "error"}) as agent:
        await agent.succeed("tailscale_status")
        assert await agent.stop() == 0
    assert agent.stderr == ""


# ---- tool calls ------------------------------------------------------------------------------------------------------


async def test_a_fetch_is_written_down_without_its_secrets_and_bodies(
    tailnet: Localnet, audit_environ: dict[str, str]
) -> None:
    environ = audit_environ
    async with Agent.started(environ) as agent:
        for _ in range(2):  # the second one uses the connection of the first
            await agent.succeed(
                "tailscale_fetch", url=f"http://u:{SECRET}@web/echo?key={SECRET}", body=BODY, method="POST",
                headers={"X-Secret": SECRET},
            )  # fmt: skip
        await agent.fail("tailscale_fetch", url="http://127.0.0.1/")
        await agent.fail("tailscale_fetch", url="http://nobody/")
        await agent.fail("no_such_tool")
        hostname = (await agent.status())["hostname"]
        assert await agent.stop() == 0
    first, second, guarded, unknown, stray, status = audited(environ)
    name = f"web.{tailnet.magic_dns_suffix}"
    for entry in (first, second):
        assert (entry["event"], entry["tool"], entry["outcome"]) == ("tool", "tailscale_fetch", "ok")
        assert entry["asked"] == {"url": "http://web/echo"}
        assert [target["name"] for target in entry["targets"]] == [name]
        assert entry["targets"][0]["address"].endswith(":80")
        assert entry["sent_bytes"] == len(BODY)
        assert entry["received_bytes"] > len(BODY)
        assert entry["node"] == hostname
        assert entry["duration_ms"] > 0
    assert int(second["call"]) == int(first["call"]) + 1
    assert (guarded["outcome"], guarded["error"]) == ("failed", "NotOnTailnet")
    assert guarded["targets"] == [{"address": "127.0.0.1:80"}]
    assert (unknown["outcome"], unknown["error"]) == ("failed", "NoSuchName")
    assert "targets" not in unknown
    assert (stray["tool"], stray["outcome"]) == ("no_such_tool", "failed")
    assert status["tool"] == "tailscale_status"
    assert SECRET not in Path(environ["TS_AUDIT_LOG"]).read_text()
    assert BODY not in Path(environ["TS_AUDIT_LOG"]).read_text()
    assert Path(environ["TS_AUDIT_LOG"]).stat().st_mode & 0o777 == 0o600


async def test_a_cancelled_call_is_written_down_as_that(audit_environ: dict[str, str]) -> None:
    async with Agent.started(audit_environ) as agent:
        waiting = {"name": "tailscale_check_messages", "arguments": {"wait_seconds": 60}}
        number, _ = agent.begin("tools/call", waiting)
        await agent.progressed(number, "Waiting for a message")
        await agent.cancel(number)
        entry = await line(audit_environ, lambda entry: entry["call"] == str(number))
        assert entry["outcome"] == "cancelled"


async def test_a_connection_through_a_forward_is_written_down_when_it_ends(
    tailnet: Localnet, audit_environ: dict[str, str]
) -> None:
    async with Agent.started(audit_environ) as agent:
        made = (await agent.succeed("tailscale_port_forward", action="create", host="web", port=7)).structured
        assert made is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", int(made["local"].rpartition(":")[2]))
        writer.write(b"echo")
        assert await asyncio.wait_for(reader.readexactly(4), 20) == b"echo"
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        entry = await line(audit_environ, lambda entry: entry["event"] == "connection")
    assert (entry["direction"], entry["forward"], entry["outcome"]) == ("to_tailnet", "f1", "ok")
    assert entry["asked"] == f"web.{tailnet.magic_dns_suffix}:7"
    assert entry["targets"][0]["name"] == f"web.{tailnet.magic_dns_suffix}"
    assert (entry["sent_bytes"], entry["received_bytes"]) == (4, 4)
    assert "call" not in entry


# ---- those who call --------------------------------------------------------------------------------------------------


async def test_a_message_is_written_down_at_both_ends_with_who_it_is_from(tailnet: Localnet, tmp_path: Path) -> None:
    sender = settings(tailnet, tmp_path, "ann", TS_AUDIT_LOG=str(tmp_path / "ann.jsonl"))
    receiver = settings(tailnet, tmp_path, "ben", TS_AUDIT_LOG=str(tmp_path / "ben.jsonl"))
    stranger = settings(tailnet, tmp_path, "eve", TS_AUTHKEY=tailnet.key(user="eve@example.com", ephemeral=True))
    async with joined(sender) as (ann, hers), joined(receiver) as (_, his), joined(stranger) as (eve, other):
        await ann.succeed("tailscale_send_message", to=his, subject="Hi", body=BODY)
        sent = await line(sender, lambda entry: entry.get("tool") == "tailscale_send_message")
        got = await line(receiver, lambda entry: entry["event"] == "request" and entry["method"] == "POST")
        await eve.fail("tailscale_send_message", to=his, subject="Hi", body=BODY)
        refused = await line(receiver, lambda entry: entry.get("outcome") == "refused")
    assert sent["asked"] == {"to": his}
    assert [target["name"] for target in sent["targets"]] == [his]
    assert (got["path"], got["status"], got["outcome"]) == ("/v1/messages", 202, "ok")
    assert (got["peer"]["name"], got["peer"]["owner"]) == (hers, "alice@example.com")
    assert got["peer"]["node_id"]
    assert got["received_bytes"] == sent["sent_bytes"] > len(BODY)
    assert got["sent_bytes"] == sent["received_bytes"]
    assert "call" not in got
    assert (refused["peer"]["name"], refused["peer"]["owner"]) == (other, "eve@example.com")
    assert refused["status"] == 403
    for environ in (sender, receiver):
        assert BODY not in Path(environ["TS_AUDIT_LOG"]).read_text()


async def test_visitors_of_a_forward_are_written_down_those_that_are_cut_off_too(
    tailnet: Localnet, tmp_path: Path
) -> None:
    environ = settings(tailnet, tmp_path, "ben", TS_AUDIT_LOG=str(tmp_path / "a.log"), TS_ALLOW_INBOUND_FORWARD="1")
    stranger = settings(tailnet, tmp_path, "eve", TS_AUTHKEY=tailnet.key(user="eve@example.com", ephemeral=True))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        await writer.drain()
        writer.close()

    program = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with (
        program,
        joined(environ) as (ben, his),
        joined(settings(tailnet, tmp_path, "ann")) as (ann, hers),
        joined(stranger) as (eve, other),
    ):
        port = program.sockets[0].getsockname()[1]
        await ben.succeed(
            "tailscale_port_forward", action="create", direction="from_tailnet", port=8080, local_port=port
        )
        await ann.succeed("tailscale_fetch", url=f"http://{his}:8080/")
        await eve.call("tailscale_fetch", url=f"http://{his}:8080/", timeout_seconds=5)
        let_in = await line(environ, lambda entry: entry.get("peer", {}).get("name") == hers)
        cut_off = await line(environ, lambda entry: entry.get("peer", {}).get("name") == other)
    assert (let_in["direction"], let_in["target"], let_in["outcome"]) == ("from_tailnet", f"{his}:8080", "ok")
    assert let_in["sent_bytes"] == 59  # the program's answer
    assert let_in["received_bytes"] > 0
    assert (cut_off["outcome"], cut_off["sent_bytes"], cut_off["received_bytes"]) == ("refused", 0, 0)


# ---- a disk that does not take it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folder", "link", "absent"])
async def test_a_path_that_cannot_be_written_fails_no_call_and_is_warned_of_once(
    what: str, environ: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    if what == "folder":
        path.mkdir()
    elif what == "link":
        path.symlink_to(tmp_path / "elsewhere.jsonl")
    else:
        path = tmp_path / "absent" / "audit.jsonl"
    async with Agent.started(environ | {"TS_AUDIT_LOG": str(path)}) as agent:
        for _ in range(3):
            await agent.succeed("tailscale_fetch", url="http://web/")
        assert await agent.stop() == 0
    assert agent.stderr.count("The audit log cannot be written") == 1
    assert not (tmp_path / "elsewhere.jsonl").exists()


@pytest.mark.skipif(not mountable(), reason="no mount namespace can be made here")
async def test_a_full_disk_fails_no_call_and_what_is_lost_is_counted(environ: dict[str, str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size=64k tmpfs "{disk}" && head -c 65536 /dev/zero >"{disk}/fill"; exec "$@"'
    command = ("unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "cctailscale")
    async with Agent.started(environ | {"TS_AUDIT_LOG": str(disk / "audit.jsonl")}, command=command) as agent:
        for _ in range(3):
            await agent.succeed("tailscale_fetch", url="http://web/")
        seen = Path(f"/proc/{agent.pid}/root{disk}")  # the disk is in the process's own mounts
        (seen / "fill").unlink()
        await agent.succeed("tailscale_fetch", url="http://web/")
        environ_there = {"TS_AUDIT_LOG": str(seen / "audit.jsonl")}
        last = await line(environ_there, lambda entry: entry["event"] == "tool")
        assert await agent.stop() == 0
        assert last["outcome"] == "ok"
    assert agent.stderr.count("The audit log cannot be written") == 1
    assert "No space left on device" in agent.stderr
