"""tailscale_fetch with save_to: a whole body in a file of the project, or no file."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import disk
from tests.agent import Agent, RpcError
from tests.conftest import environ_for
from tests.localnet import Localnet
from tests.scripted import ScriptedPeer, http

MIB = 1 << 20
BODY = bytes(i % 251 for i in range(251)) * 10_000  # 2.4 MiB
LARGE = BODY * 5  # beyond straight.STRAIGHT_BYTES
either = pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])


@pytest.fixture(scope="module")
async def peer(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer.joined(tailnet, "files", tmp_path_factory.mktemp("files")) as peer:
        yield peer


@pytest.fixture(scope="module")
def environ(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environ_for(tailnet, tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
async def agent(environ: dict[str, str]) -> AsyncIterator[Agent]:
    async with Agent.started(environ) as agent:
        yield agent


@pytest.fixture
def project(environ: dict[str, str]) -> Iterator[Path]:
    """The project's folder, empty."""
    folder = Path(environ["CLAUDE_PROJECT_DIR"])
    yield folder
    subprocess.run(["find", folder, "-mindepth", "1", "-delete"], check=True)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@either
async def test_a_body_is_saved_whole_and_the_answer_has_its_size_and_sha256(
    agent: Agent, peer: ScriptedPeer, project: Path, body: bytes
) -> None:
    url = peer.answer("/file", http(body, Content_Type="application/octet-stream"))
    (project / "downloads").mkdir()
    answer = await agent.succeed("tailscale_fetch", url=url, save_to="downloads/file.bin", max_bytes=1)
    assert (project / "downloads" / "file.bin").read_bytes() == body
    assert files(project) == ["downloads", "downloads/file.bin"]
    sha256 = hashlib.sha256(body).hexdigest()
    assert answer.text.endswith(f"\nSaved to downloads/file.bin: {len(body)} bytes, SHA-256 {sha256}.")
    assert "HTTP/1.1 200 OK" in answer.text


async def test_a_file_is_saved_as_it_is_there_and_not_compressed_on_the_way(
    agent: Agent, peer: ScriptedPeer, project: Path
) -> None:
    url = peer.answer("/plain", http(b"x"))
    before = len(peer.requests())
    await agent.succeed("tailscale_fetch", url=url, save_to="a")
    await agent.succeed("tailscale_fetch", url=url, save_to="b", headers={"Accept-Encoding": "gzip"})
    asked = [request.headers["accept-encoding"] for request in peer.requests()[before:]]
    assert asked == ["identity", "gzip"]


async def test_a_large_body_is_saved_with_progress_in_constant_memory(agent: Agent, project: Path) -> None:
    await agent.succeed("tailscale_fetch", url=f"http://web/bytes?n={MIB}", save_to="first")
    before = peak(agent.pid)
    answer = await agent.succeed("tailscale_fetch", url=f"http://web/bytes?n={512 * MIB}", save_to="large")
    assert (project / "large").stat().st_size == 512 * MIB
    assert f"{512 * MIB} bytes" in answer.text
    stages = [stage for stage in answer.progress if stage.endswith(f" of {512 * MIB} bytes")]
    assert stages
    counts = [int(stage.split()[0]) for stage in stages]
    assert counts == sorted(counts)
    assert peak(agent.pid) - before < 400 * MIB  # the Go node's, while bytes move; none of it grows with the file


def peak(pid: int) -> int:
    """The most memory that a process had, in bytes (proc_pid_status(5), VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no VmHWM")


# ---- no file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("../escape", "leads upwards (..)"),
        ("/etc/cron.d/x", "lies outside of the project's folder"),
        (".claude/settings.json", "has a part that begins with a dot"),
        (".mcp.json", "has a part that begins with a dot"),
        ("CLAUDE.md", "is a file that agents take instructions from"),
        ("docs/agents.MD", "is a file that agents take instructions from"),
        ("nowhere/file", "leads through nowhere, which does not exist"),
        ("link/file", "leads through link, which is a symbolic link"),
        ("there", "is there already, and overwrite is not set"),
        ("", "names a folder and no file"),
    ],
)
async def test_a_path_where_no_tool_may_write_is_refused_and_nothing_is_asked_of_the_peer(
    agent: Agent, peer: ScriptedPeer, project: Path, path: str, problem: str
) -> None:
    (project / "link").symlink_to("/tmp")  # noqa: S108 - any folder outside
    (project / "there").write_text("old")
    before, requests = files(project), len(peer.requests())
    text = await agent.fail("tailscale_fetch", url=peer.answer("/x", http("new")), save_to=path)
    assert problem in text
    assert "Give save_to another path, such as downloads/report.pdf" in text
    assert files(project) == before
    assert (project / "there").read_text() == "old"
    assert len(peer.requests()) == requests


async def test_a_file_that_is_there_is_replaced_with_overwrite(agent: Agent, peer: ScriptedPeer, project: Path) -> None:
    (project / "there").write_text("old")
    await agent.succeed("tailscale_fetch", url=peer.answer("/x", http("new")), save_to="there", overwrite=True)
    assert (project / "there").read_text() == "new"


async def test_an_error_status_saves_nothing_and_is_shown(agent: Agent, peer: ScriptedPeer, project: Path) -> None:
    url = peer.answer("/missing", http("no such file", "404 Not Found", Content_Type="text/plain"))
    answer = await agent.succeed("tailscale_fetch", url=url, save_to="a")
    assert "HTTP/1.1 404 Not Found" in answer.text
    assert "no such file" in answer.text
    assert answer.text.endswith("\nNothing was saved: 404 is no success.")
    assert files(project) == []


@pytest.mark.parametrize("extra", [{"offset": 1}, {"method": "HEAD"}])
async def test_arguments_that_do_not_go_with_save_to_are_refused(
    agent: Agent, project: Path, extra: dict[str, object]
) -> None:
    text = await agent.fail("tailscale_fetch", url="http://web/", save_to="a", **extra)
    assert text.startswith("save_to takes the whole body of an answer: it goes with no offset, and not with HEAD.")
    assert files(project) == []


@either
async def test_a_body_that_breaks_off_leaves_no_file(
    agent: Agent, peer: ScriptedPeer, project: Path, body: bytes
) -> None:
    cut = http(body)[: -len(body) // 2]
    text = await agent.fail("tailscale_fetch", url=peer.answer("/cut", cut, "close"), save_to="a")
    assert "closed the connection before its answer was complete" in text
    assert files(project) == []


@either
async def test_silence_ends_a_download_and_leaves_no_file(
    agent: Agent, peer: ScriptedPeer, project: Path, body: bytes
) -> None:
    cut = http(body)[: -len(body) // 2]
    url = peer.answer("/hang", cut, "hang")
    text = await agent.fail("tailscale_fetch", url=url, save_to="a", timeout_seconds=1)
    assert "gave no answer within 1 s (reading the body)" in text
    assert files(project) == []


async def test_a_download_may_take_longer_than_the_time_for_a_silence(
    agent: Agent, peer: ScriptedPeer, project: Path
) -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.4)  # what is tested is the passing of time
            writer.write(b"x")
            await writer.drain()

    await peer.serve(8000, slowly)
    url = f"http://{peer.name}:8000/"
    await agent.succeed("tailscale_fetch", url=url, save_to="a", timeout_seconds=1.5)
    assert (project / "a").read_bytes() == b"x" * 8
    text = await agent.fail("tailscale_fetch", url=url, timeout_seconds=1.5)
    assert "gave no answer within 1.5 s" in text


@either
async def test_a_cancelled_download_leaves_no_file(
    agent: Agent, peer: ScriptedPeer, project: Path, body: bytes
) -> None:
    cut = http(body)[: -len(body) // 2]
    url = peer.answer("/cancelled", cut, "hang")
    arguments = {"name": "tailscale_fetch", "arguments": {"url": url, "save_to": "a"}}
    number, answer = agent.begin("tools/call", arguments)
    request = await peer.request_for("/cancelled")
    async with asyncio.timeout(10):
        while not files(project):  # noqa: ASYNC110 - the file system tells nobody
            await asyncio.sleep(0.01)
    await agent.cancel(number)
    await request.connection.wait_closed()
    async with asyncio.timeout(10):
        while files(project):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    answer.cancel()


@pytest.mark.parametrize("how", [None, signal.SIGINT])
async def test_the_end_of_the_session_leaves_no_file(
    tailnet: Localnet, peer: ScriptedPeer, tmp_path: Path, how: signal.Signals | None
) -> None:
    url = peer.answer("/ended", http(BODY)[: -len(BODY) // 2], "hang")
    project = tmp_path / "project"
    async with Agent.started(environ_for(tailnet, tmp_path)) as agent:
        arguments = {"name": "tailscale_fetch", "arguments": {"url": url, "save_to": "a"}}
        _, answer = agent.begin("tools/call", arguments)
        async with asyncio.timeout(20):
            while not files(project):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        assert await agent.stop(how) == 0
        assert files(project) == []
        (outcome,) = await asyncio.wait_for(asyncio.gather(answer, return_exceptions=True), 5)
        assert isinstance(outcome, EOFError | RpcError) or outcome["isError"]


@pytest.fixture
def small_disk(project: Path) -> Iterator[Path]:
    with disk.small_disk(project / "small", "1m") as folder:
        yield folder


async def test_a_disk_without_room_is_told_before_and_while_it_fills_and_no_file_is_left(
    agent: Agent, peer: ScriptedPeer, small_disk: Path
) -> None:
    declared = peer.answer("/declared", http(BODY))
    text = await agent.fail("tailscale_fetch", url=declared, save_to="small/a")
    assert f"small/a could not be written: {len(BODY)} bytes are to come, and there is room for fewer." in text
    endless = peer.answer("/endless", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY, "close")
    text = await agent.fail("tailscale_fetch", url=endless, save_to="small/a")
    assert "small/a could not be written: No space left on device." in text
    assert files(small_disk) == []
