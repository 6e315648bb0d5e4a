"""What a session keeps of its part in a team: on the disk at once, whole, for its own user's eyes."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from cctailscale.errors import TeamUnusable
from cctailscale.teams.commands import Complete
from cctailscale.teams.membership import FILE, MAX_QUEUED, Membership, MembershipFile, Queued, load
from cctailscale.teams.model import MAX_RESULT_CHARS
from tests.asked import device

TOKEN = "ab" * 32
NOW = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)


def membership(**fields: Any) -> Membership:
    return Membership.model_validate(
        {
            "team": "team-1",
            "name": "Build",
            "public_key": "0" * 64,
            "role": "member",
            "member": "member-2",
            "token": TOKEN,
            "lead": device("lead"),
            "lead_address": "100.64.0.1",
            "lease_seconds": 90.0,
            "heard": NOW,
            "seen": 7,
            **fields,
        }
    )


async def test_it_is_found_again_as_it_was_and_is_for_its_user_alone(tmp_path: Path) -> None:
    file = await MembershipFile.made(tmp_path, membership())
    await file.change(queued=(Queued(id="one", command=Complete(task="task-1", result="Done."), asked=NOW),))
    found = await MembershipFile.found(tmp_path)
    assert found is not None
    assert found.now == file.now == load(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


async def test_where_there_is_none_none_is_found(tmp_path: Path) -> None:
    assert await MembershipFile.found(tmp_path) is None
    assert load(tmp_path) is None


async def test_what_is_noted_is_written_with_the_next_change_or_save(tmp_path: Path) -> None:
    file = await MembershipFile.made(tmp_path, membership())
    file.note(seen=8)
    assert load(tmp_path) == membership()
    await file.save()
    assert load(tmp_path) == file.now == membership(seen=8)


async def test_the_longest_queue_fits(tmp_path: Path) -> None:
    """Of letters that need the most room in JSON."""
    queued = tuple(
        Queued(id=f"id-{number}", command=Complete(task=f"task-{number}", result="\x01" * MAX_RESULT_CHARS), asked=NOW)
        for number in range(1, MAX_QUEUED + 1)
    )
    await MembershipFile.made(tmp_path, membership(queued=queued))
    found = load(tmp_path)
    assert found is not None
    assert found.queued == queued


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"format": 1}', b'{"format": 1, "team": 5}'])
async def test_a_damaged_file_is_set_aside_and_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(TeamUnusable, match=r"damaged"):
        load(tmp_path)
    with pytest.raises(TeamUnusable, match=r"damaged, so it was set aside.*Join the team again") as raised:
        await MembershipFile.found(tmp_path)
    assert raised.value.path.read_bytes() == content
    assert await MembershipFile.found(tmp_path) is None


async def test_a_file_of_a_later_version_is_set_aside_and_said(tmp_path: Path) -> None:
    content = json.dumps({"format": 2, "teams": []})
    for number in (1, 2):  # none that was set aside before is overwritten
        (tmp_path / FILE).write_text(content)
        with pytest.raises(TeamUnusable, match=r"later version.*Update cc-tailscale") as raised:
            await MembershipFile.found(tmp_path)
        assert raised.value.path.name.endswith(f"-{number}")
        assert raised.value.path.read_text() == content


async def test_what_a_disk_does_not_take_is_written_later(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    file = await MembershipFile.made(folder, membership())
    folder.rename(tmp_path / "away")
    with pytest.raises(TeamUnusable, match=r"cannot be written"):
        await file.change(seen=8)
    (tmp_path / "away").rename(folder)
    await file.save()
    assert load(folder) == membership(seen=8)


async def test_what_was_removed_is_not_written_any_more(tmp_path: Path) -> None:
    file = await MembershipFile.made(tmp_path, membership())
    file.note(seen=8)
    await file.remove()
    await file.save()
    await file.remove()
    assert list(tmp_path.iterdir()) == []


async def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    file = await MembershipFile.made(tmp_path, membership())
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(lambda seen=number: file.change(seen=seen))
        tasks.start_soon(lambda: file.change(lead_address="100.64.0.9"))
    assert load(tmp_path) == file.now == membership(seen=19, lead_address="100.64.0.9")


def test_the_token_shows_nowhere() -> None:
    assert TOKEN not in repr(membership())
