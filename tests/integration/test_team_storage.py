"""Teams whose lead cannot keep them: its disk is full, its file is damaged, or is of a later version."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cctailscale.teams import sqlite
from tests.ledger import database, sound
from tests.localnet import Localnet
from tests.talking import did, did_again, joined, settings


def mountable() -> bool:
    """Whether a mount namespace can be had here."""
    if shutil.which("unshare") is None:
        return False
    attempt = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]
    return subprocess.run(attempt, capture_output=True, timeout=30).returncode == 0


def of(tailnet: Localnet, folder: Path, name: str) -> dict[str, str]:
    return settings(tailnet, folder, name, TS_ENABLE_TEAMS="1")


@pytest.mark.skipif(not mountable(), reason="no mount namespace can be made here")
async def test_a_full_disk_is_said_to_lead_and_member_changes_nothing_and_is_over_with_room(
    tailnet: Localnet, tmp_path: Path
) -> None:
    anns, root = of(tailnet, tmp_path, "ann"), tmp_path / "state-of-ann"
    root.mkdir(mode=0o700)
    script = f'mount -t tmpfs -o size=16m,mode=700 tmpfs "{root}" && exec "$@"'
    command = ("unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "cctailscale")
    async with (
        joined(anns | {"TS_STATE_DIR": str(root)}, command=command) as (ann, her),
        joined(of(tailnet, tmp_path, "ben")) as (ben, his),
    ):
        disk = Path(f"/proc/{ann.pid}/root{root}")  # which is in the process's own mounts
        await did(ann, "team_create", name="build")
        await did(ann, "task_create", subject="One")
        await did(ben, "team_join", lead_hostname=her)
        fill(disk)

        text = await ann.fail("tailscale_task_create", subject="Two")
        assert text.startswith(f"The team's file {root}/teams/")
        assert "team.db is on a full disk. Nothing was changed" in text
        assert "Make room" in text
        text = await ben.fail("tailscale_task_update", action="claim")
        assert "The lead cannot keep its team now; its user has to see to it." in text
        assert str(root) not in text
        for agent in (ann, ben):
            (task,) = (await did(agent, "task_list"))["tasks"]
            assert (task["id"], task["status"], task["version"]) == ("task-1", "pending", 1)

        (disk / "filler").unlink()
        assert (await did(ben, "task_update", action="claim"))["owner"] == his
        assert (await did(ann, "task_create", subject="Two"))["id"] == "task-2"
        shutil.copytree(disk / "teams", tmp_path / "copy" / "teams")  # SQLite does not open it through /proc
        sound({"TS_STATE_DIR": str(tmp_path / "copy")})


@pytest.mark.parametrize("what", ["damaged", "newer"])
async def test_a_file_that_cannot_be_used_stays_as_it_is_and_is_told_of_until_it_is_mended(
    patient_tailnet: Localnet, tmp_path: Path, what: str
) -> None:
    anns = of(patient_tailnet, tmp_path, "ann")
    async with joined(of(patient_tailnet, tmp_path, "ben")) as (ben, his):
        async with joined(anns) as (ann, her):
            await did(ann, "team_create", name="build")
            await did(ann, "task_create", subject="One")
            await did(ben, "team_join", lead_hostname=her)
            await did(ben, "task_update", action="claim")
            assert await ann.stop() == 0
        file = database(anns)
        good = file.read_bytes()
        spoil(file, what)
        bad = file.read_bytes()
        async with joined(anns) as (ann, _):
            for tool, more in (
                ("task_list", {}),
                ("team_info", {}),
                ("team_create", {"name": "build", "resume": True}),
            ):
                text = await ann.fail(f"tailscale_{tool}", **more)
                assert text.startswith(f"The team's file {file} ")
                assert {"damaged": "is damaged. ", "newer": "by a later version of cc-tailscale. "}[what] in text
                assert "Nothing was changed; what is in it stays. " in text
                assert {"damaged": "Put a copy of it in its place", "newer": "Update cc-tailscale"}[what] in text
            assert f"The lead {her} has been offline since" in await ben.fail("tailscale_task_update", action="claim")
            assert await ann.stop() == 0
        assert file.read_bytes() == bad
        assert not any(log.stat().st_size for log in file.parent.glob("team.db-wal"))

        file.write_bytes(good)
        async with joined(anns) as (ann, _):
            done = await did_again(ben, "task_update", action="complete", id="task-1")
            assert (done["status"], done["completed_by"]) == ("completed", his)
            assert (await did(ann, "team_info"))["tasks"]["completed"] == 1
        sound(anns)


def fill(disk: Path) -> None:
    dd = ["dd", "if=/dev/zero", f"of={disk}/filler", "bs=4k"]
    assert b"No space left" in subprocess.run(dd, capture_output=True, timeout=30).stderr


def spoil(file: Path, what: str) -> None:
    if what == "newer":
        with closing(sqlite3.connect(file)) as db:
            db.execute(f"PRAGMA user_version = {sqlite.SCHEMA_VERSION + 1}")
        return
    content = bytearray(file.read_bytes())
    content[4096 : 2 * 4096] = b"\xff" * 4096
    file.write_bytes(content)
