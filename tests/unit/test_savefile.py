"""Where a tool may write, and that nothing is left of what did not succeed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cctailscale import savefile
from cctailscale.errors import SaveFailed, SaveRefused
from cctailscale.savefile import NewFile, parts_of, saving


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "sub" / "deeper").mkdir(parents=True)
    return folder


def files(folder: Path) -> list[str]:
    """All files below, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


async def save(project: Path, path: str, data: bytes = b"new", **options: Any) -> None:
    async with saving(project, path, **options) as file:
        await file.write(data)
        await file.keep()


async def refused(project: Path, path: str, problem: str, **options: Any) -> None:
    """Asserts that nothing is written, for that reason."""
    before = files(project)
    with pytest.raises(SaveRefused) as error:
        await save(project, path, **options)
    assert problem in error.value.happened
    assert "relative to the project's folder" in error.value.next_step
    assert files(project) == before


# ---- where it may be -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a.bin", "sub/a.bin", "./sub//deeper/./a.bin", "~", "sub/übung 日本.txt", "a..b", "x.."]
)
async def test_a_path_below_the_project_is_written(project: Path, path: str) -> None:
    await save(project, path)
    assert (project / path).read_bytes() == b"new"
    assert len(files(project)) == 1


async def test_an_absolute_path_below_the_project_is_written(project: Path, tmp_path: Path) -> None:
    await save(project, str(project / "sub" / "a"))
    link = tmp_path / "link"
    link.symlink_to(project)
    await save(link, str(link / "b"))  # the project itself may be reached over a link
    await save(link, str(project / "c"))
    assert files(project) == ["b", "c", "sub/a"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "names a folder and no file"),
        (".", "names a folder and no file"),
        ("/", "lies outside of the project's folder"),
        ("/etc/passwd", "lies outside of the project's folder"),
        ("//etc/passwd", "lies outside of the project's folder"),
        ("../a", "leads upwards"),
        ("sub/../../a", "leads upwards"),
        ("sub/../a", "leads upwards"),
        ("sub/..", "leads upwards"),
        ("sub/", "names a folder and no file"),
        (".git/hooks/pre-commit", "begins with a dot"),
        (".claude/settings.json", "begins with a dot"),
        (".mcp.json", "begins with a dot"),
        ("sub/.env", "begins with a dot"),
        ("...", "begins with a dot"),
        ("\uff0egit/config", "begins with a dot"),  # a full-width dot
        ("\u2024env", "begins with a dot"),  # a one-dot leader
        (" .env", "begins with a dot"),
        ("CLAUDE.md", "is a file that agents take instructions from"),
        ("claude.MD", "is a file that agents take instructions from"),
        ("sub/Agents.md", "is a file that agents take instructions from"),
        ("AGENTS.md", "is a file that agents take instructions from"),
        ("AGENT\u017f.md", "is a file that agents take instructions from"),  # a long s, which folds to s
        ("CLAUDE.md.", "is a file that agents take instructions from"),
        ("CLAUDE.md ", "is a file that agents take instructions from"),
        ("CLAUDE.local.md", "is a file that agents take instructions from"),
        ("\uff23LAUDE.md", "is a file that agents take instructions from"),  # a full-width C
        ("agents.md/a", "is a file that agents take instructions from"),
        ("\u200c.git/config", "holds characters that cannot be seen"),
        ("CLAUDE\u200b.md", "holds characters that cannot be seen"),
        ("a\0b", "holds characters that cannot be seen"),
        ("a\nb", "holds characters that cannot be seen"),
        ("x" * 256, "has a part of more than 255 bytes"),
        ("ü" * 128, "has a part of more than 255 bytes"),
        ("nowhere/a", "leads through nowhere, which does not exist"),
        ("sub/nowhere/deeper/a", "leads through sub/nowhere, which does not exist"),
    ],
)
async def test_other_paths_are_refused_with_the_reason(project: Path, path: str, problem: str) -> None:
    await refused(project, path, problem)


async def test_a_path_that_ends_in_a_folder_of_another_project_is_outside(project: Path, tmp_path: Path) -> None:
    (tmp_path / "project-2").mkdir()
    await refused(project, str(tmp_path / "project-2" / "a"), "lies outside of the project's folder")


def test_the_root_of_the_file_system_is_no_project() -> None:
    with pytest.raises(SaveRefused, match="has no project to lie in"):
        parts_of(Path("/"), "tmp/a")


@given(st.text(st.characters(codec="utf-8"), max_size=30))
@example("a/../../b")
@example("/..")
def test_no_path_leads_out_of_the_project_or_to_a_hidden_place(path: str) -> None:
    try:
        parts = parts_of(Path("/nowhere/project"), path)
    except SaveRefused:
        return
    assert parts
    assert not any(part.startswith(".") or "/" in part for part in parts)


# ---- links and what is there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_link_in_the_place_of_the_file_is_refused(project: Path, tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    (project / "link").symlink_to(target)
    (project / "dangling").symlink_to(tmp_path / "nobody")
    await refused(project, "link", "is a symbolic link", overwrite=overwrite)
    await refused(project, "dangling", "is a symbolic link", overwrite=overwrite)
    assert target.read_text() == "old"
    assert not (tmp_path / "nobody").exists()


@pytest.mark.parametrize("to", ["outside", "inside"])
async def test_a_link_anywhere_on_the_way_is_refused(project: Path, tmp_path: Path, to: str) -> None:
    target = {"outside": tmp_path / "outside", "inside": project / "sub"}[to]
    (target / "deeper").mkdir(parents=True, exist_ok=True)
    (project / "link").symlink_to(target)
    (project / "sub" / "link").symlink_to(target / "deeper")
    await refused(project, "link/a", "leads through link, which is a symbolic link")
    await refused(project, "link/deeper/a", "leads through link, which is a symbolic link")
    await refused(project, "sub/link/a", "leads through sub/link, which is a symbolic link")


async def test_a_file_in_the_place_of_a_folder_is_refused(project: Path) -> None:
    (project / "file").write_text("old")
    await refused(project, "file/a", "leads through file, which is no folder")


@pytest.mark.parametrize("overwrite", [False, True])
async def test_what_is_no_ordinary_file_is_not_replaced(project: Path, overwrite: bool) -> None:
    os.mkfifo(project / "pipe")
    await refused(project, "pipe", "is no ordinary file", overwrite=overwrite)
    await refused(project, "sub", "is no ordinary file", overwrite=overwrite)


async def test_a_file_that_is_there_is_replaced_only_when_asked(project: Path) -> None:
    (project / "a").write_text("old")
    await refused(project, "a", "is there already, and overwrite is not set")
    assert (project / "a").read_text() == "old"
    await save(project, "a", overwrite=True)
    assert (project / "a").read_text() == "new"


async def test_other_names_of_a_replaced_file_keep_its_old_content(project: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("old")
    (project / "a").hardlink_to(tmp_path / "other")
    await save(project, "a", overwrite=True)
    assert (tmp_path / "other").read_text() == "old"


async def test_a_file_that_appears_meanwhile_is_not_replaced(project: Path) -> None:
    with pytest.raises(SaveRefused, match="is there already"):  # noqa: PT012
        async with saving(project, "a") as file:
            await file.write(b"new")
            (project / "a").write_text("somebody else's")
            await file.keep()
    assert (project / "a").read_text() == "somebody else's"
    assert files(project) == ["a"]


async def test_a_folder_that_is_exchanged_for_a_link_meanwhile_leads_nowhere_else(
    project: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with saving(project, "sub/a") as file:
        (project / "sub").rename(project / "moved")
        (project / "sub").symlink_to(outside)
        await file.write(b"new")
        await file.keep()
    assert files(outside) == []
    assert (project / "moved" / "a").read_bytes() == b"new"


async def test_without_links_in_the_file_system_a_file_still_gets_into_its_place(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(savefile.os, "link", link)
    await save(project, "a")
    assert files(project) == ["a"]


# ---- modes -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Any:
    before = os.umask(0o022)
    yield
    os.umask(before)


async def test_a_new_file_has_the_usual_mode_and_cannot_be_executed(project: Path, umask: None) -> None:
    await save(project, "a")
    assert stat.S_IMODE((project / "a").stat().st_mode) == 0o644


async def test_a_private_file_is_private_from_the_beginning(project: Path, umask: None) -> None:
    async with saving(project, "key", mode=0o600) as file:
        (hidden,) = files(project)
        assert stat.S_IMODE((project / hidden).stat().st_mode) == 0o600
        await file.keep()
    assert stat.S_IMODE((project / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("old", "new"), [(0o600, 0o600), (0o640, 0o640), (0o755, 0o644), (0o4755, 0o644)])
async def test_a_replaced_file_keeps_its_mode_but_is_not_executable(
    project: Path, umask: None, old: int, new: int
) -> None:
    (project / "a").write_text("old")
    (project / "a").chmod(old)
    await save(project, "a", overwrite=True)
    assert stat.S_IMODE((project / "a").stat().st_mode) == new


# ---- content and failures --------------------------------------------------------------------------------------------


async def test_size_and_sha256_are_those_of_the_whole_file(project: Path) -> None:
    data = os.urandom(3_500_000)
    async with saving(project, "a") as file:
        for at in range(0, len(data), 100_001):
            await file.write(data[at : at + 100_001])
        await file.keep()
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (project / "a").read_bytes() == data


async def test_an_empty_file_can_be_saved(project: Path) -> None:
    await save(project, "a", b"")
    assert (project / "a").read_bytes() == b""


async def test_nothing_is_in_its_place_before_it_is_kept(project: Path) -> None:
    async with saving(project, "a") as file:
        await file.write(bytes(2 * savefile.PIECE_BYTES))
        (hidden,) = files(project)
        assert hidden.startswith(".")
        assert (project / hidden).stat().st_size == 2 * savefile.PIECE_BYTES


async def test_a_failure_leaves_nothing_and_an_old_file_as_it_was(project: Path) -> None:
    (project / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with saving(project, "a", overwrite=True) as file:
            await file.write(bytes(2 * savefile.PIECE_BYTES))
            raise ZeroDivisionError
    assert files(project) == ["a"]
    assert (project / "a").read_text() == "old"


async def test_a_cancellation_leaves_nothing(project: Path) -> None:
    with anyio.CancelScope() as scope:
        async with saving(project, "a") as file:
            await file.write(bytes(2 * savefile.PIECE_BYTES))
            scope.cancel()
            await file.keep()
    assert scope.cancelled_caught
    assert files(project) == []


async def test_descriptors_are_closed_whatever_happens(project: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    await save(project, "sub/deeper/a")
    for path in ("sub/deeper/a", "sub/nowhere/a", ".x", "sub"):
        with pytest.raises(SaveRefused):
            await save(project, path)
    assert len(list(Path("/dev/fd").iterdir())) == before


async def test_a_full_disk_is_told_and_leaves_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SaveFailed) as failed:  # noqa: PT012
        async with saving(project, "a") as file:
            await file.write(b"new")
            with monkeypatch.context() as patch:
                patch.setattr(savefile.os, "write", full)
                await file.keep()
    assert failed.value.happened == "a could not be written: No space left on device."
    assert files(project) == []


async def test_a_disk_that_says_only_at_the_end_that_it_is_full_is_told_too(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = NewFile._close_file

    def full(file: NewFile) -> None:
        real(file)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(NewFile, "_close_file", full)
    with pytest.raises(SaveFailed, match="a could not be written: Disk quota exceeded"):
        await save(project, "a")
    assert files(project) == []


async def test_more_than_there_is_room_for_is_refused_before_the_first_byte(project: Path) -> None:
    with pytest.raises(SaveFailed, match="there is room for fewer"):
        async with saving(project, "a") as file:
            await file.expect(1 << 62)
    assert files(project) == []


async def test_a_project_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SaveFailed, match="No such file or directory"):
        await save(tmp_path / "nowhere", "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="this user may write everywhere")
async def test_a_folder_that_may_not_be_written_is_told(project: Path) -> None:
    (project / "sub").chmod(0o500)
    with pytest.raises(SaveFailed, match="Permission denied"):
        await save(project, "sub/a")
