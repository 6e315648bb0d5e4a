import os
import pwd
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cctailscale.naming import (
    MAX_BASE_CHARS,
    base_label,
    context_name,
    hostname,
    label,
    new_suffix,
    user_name,
)

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="compares with what git itself writes")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=30,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"},
    )


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def outside() -> str:
    return socket.gethostname().split(".", 1)[0]


# ---- the label


@given(
    st.text(max_size=300),
    st.text(max_size=300),
    st.from_regex(r"[0-9a-f]{4}", fullmatch=True),
    st.none() | st.text(max_size=300),
)
@example("a" * 200, "b" * 200, "0000", None)
@example("\ufdfa" * 5000, "\ufdfa", "ffff", "\ufdfa" * 5000)  # one character that NFKD makes 18 of
@example("-", "---", "0a0a", "-")
@example("", "", "0000", "")
def test_whatever_the_parts_are_the_name_is_a_dns_label(user: str, context: str, suffix: str, base: str | None) -> None:
    name = hostname(user, context, suffix, base)
    assert LABEL.fullmatch(name)
    assert name.endswith(f"-{suffix}")
    assert len(base_label(user, context, base)) <= MAX_BASE_CHARS
    assert name == f"{base_label(user, context, base)}-{suffix}"
    if base is None or not label(base):
        assert name.startswith("cc-")


@given(st.text(max_size=100))
def test_making_a_label_of_a_label_changes_nothing(text: str) -> None:
    assert label(label(text)) == label(text)


@pytest.mark.parametrize(
    ("user", "context", "base", "expected"),
    [
        ("ada", "analytical-engine", None, "cc-ada-analytical-engine-1a2b"),
        ("Ada Lovelace", "My Project.v2", None, "cc-ada-lovelace-my-project-v2-1a2b"),
        ("J\u00f6rg", "Stra\u00dfe", None, "cc-jorg-strasse-1a2b"),
        ("CORP\\ada", "a__b", None, "cc-corp-ada-a-b-1a2b"),
        ("\u5f20\u4f1f", "app", None, "cc-user-app-1a2b"),
        ("ada", "\u6771\u4eac", None, "cc-ada-1a2b"),
        ("", "", None, "cc-user-1a2b"),
        ("ada", "app", "Build Box", "build-box-1a2b"),
        ("ada", "app", "\u6771\u4eac", "cc-ada-app-1a2b"),
        ("ada", "c" * 200, None, f"cc-ada-{'c' * 51}-1a2b"),
        ("u" * 200, "app", None, f"cc-{'u' * 51}-app-1a2b"),
        ("u" * 200, "c" * 200, None, f"cc-{'u' * 38}-{'c' * 16}-1a2b"),
        ("ada", "app", "b" * 200, f"{'b' * 58}-1a2b"),
        ("ada", "c" * 50 + " d", None, f"cc-ada-{'c' * 50}-1a2b"),  # not cut in front of a hyphen
    ],
)
def test_names_read_as_their_parts(user: str, context: str, base: str | None, expected: str) -> None:
    assert hostname(user, context, "1a2b", base) == expected
    assert len(expected) <= 63


@pytest.mark.parametrize("suffix", ["", "123", "12345", "ABCD", "12g4", "123\n", "-123"])
def test_a_suffix_is_four_hex_digits(suffix: str) -> None:
    with pytest.raises(ValueError, match="four"):
        hostname("ada", "app", suffix)


def test_suffixes_are_random_hex() -> None:
    found = {new_suffix() for _ in range(200)}
    assert all(re.fullmatch(r"[0-9a-f]{4}", suffix) for suffix in found)
    assert len(found) > 100


# ---- the user


def test_the_user_is_the_variable_else_the_account_else_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    account = pwd.getpwuid(os.getuid()).pw_name
    assert user_name("ada") == "ada"
    assert user_name(None) == account
    assert user_name("  ") == account

    def no_account(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", no_account)
    assert user_name(None) == "user"


# ---- the context


@needs_git
def test_a_repository_gives_its_name_also_from_a_nested_folder(tmp_path: Path) -> None:
    app = repository(tmp_path / "app")
    (app / "src" / "deep").mkdir(parents=True)
    assert context_name(app) == "app"
    assert context_name(app / "src" / "deep") == "app"
    assert context_name(app / "src" / "not there yet") == "app"
    assert context_name(app / ".git" / "refs") == "app"
    (tmp_path / "link").symlink_to(app / "src")
    assert context_name(tmp_path / "link") == "app"


@needs_git
def test_the_innermost_repository_wins(tmp_path: Path) -> None:
    outer = repository(tmp_path / "outer")
    inner = repository(outer / "inner")
    assert context_name(inner) == "inner"
    assert context_name(outer) == "outer"


@needs_git
def test_a_worktree_counts_as_its_main_repository(tmp_path: Path) -> None:
    app = repository(tmp_path / "app")
    git(app, "worktree", "add", "-q", str(tmp_path / "elsewhere" / "fix-123"))
    assert context_name(tmp_path / "elsewhere" / "fix-123") == "app"


@needs_git
def test_a_worktree_of_a_bare_repository_counts_as_that_repository(tmp_path: Path) -> None:
    app = repository(tmp_path / "app")
    git(tmp_path, "clone", "-q", "--bare", str(app), str(tmp_path / "srv" / "thing.git"))
    git(tmp_path / "srv" / "thing.git", "worktree", "add", "-q", str(tmp_path / "w"))
    assert context_name(tmp_path / "w") == "thing"
    assert context_name(tmp_path / "srv" / "thing.git") == "thing"
    git(tmp_path, "clone", "-q", "--bare", str(app), str(tmp_path / "project" / ".bare"))
    git(tmp_path / "project" / ".bare", "worktree", "add", "-q", str(tmp_path / "project" / "main"))
    assert context_name(tmp_path / "project" / "main") == "project"


@needs_git
def test_a_submodule_counts_as_itself_also_in_a_worktree_of_its_own(tmp_path: Path) -> None:
    library = repository(tmp_path / "library")
    app = repository(tmp_path / "app")
    git(app, "submodule", "add", "-q", "--name", "vendor/lib", str(library), "third_party/checkout")
    assert context_name(app / "third_party" / "checkout") == "lib"
    git(app / "third_party" / "checkout", "worktree", "add", "-q", str(tmp_path / "w"))
    assert context_name(tmp_path / "w") == "lib"


@needs_git
def test_a_separate_git_directory_leaves_the_folders_own_name(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    git(tmp_path / "app", "init", "-q", "--separate-git-dir", str(tmp_path / "store"))
    assert context_name(tmp_path / "app") == "app"


def test_relative_worktree_paths_are_understood(tmp_path: Path) -> None:
    (tmp_path / "fix").mkdir()
    (tmp_path / "fix" / ".git").write_text("gitdir: ../app/.git/worktrees/fix\n")  # git 2.48, worktree.useRelativePaths
    assert context_name(tmp_path / "fix") == "app"


def test_outside_of_a_repository_it_is_the_machines_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Engine.example.com")
    assert context_name(tmp_path) == "Engine"
    (tmp_path / ".git").mkdir()  # git wants a HEAD in it as well
    assert context_name(tmp_path) == "Engine"
    assert context_name(Path("/")) == "Engine"
    assert context_name(tmp_path / "nul\0") == "Engine"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert context_name(tmp_path / "loop") == "Engine"


@pytest.mark.parametrize(
    "content", [b"", b"gitdir:", b"gitdir: \n", b"hello", b"\xff\xfe", b"gitdir: " + b"x" * 100_000, b"\0" * 20]
)
def test_a_git_file_that_says_nothing_is_no_repository(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".git").write_bytes(content)
    assert context_name(tmp_path) == outside()


@given(st.binary(max_size=400))
@example(b" /proc/self/fd/0/worktrees/x")
@example(b" //worktrees/x")
@example(b" worktrees/x")
@example(b" .git/modules/\n")
@example(b" " + b"../" * 1000)
def test_the_path_in_a_git_file_is_never_opened(tmp_path_factory: pytest.TempPathFactory, path: bytes) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / ".git").write_bytes(b"gitdir:" + path)
    opened: list[object] = []
    with pytest.MonkeyPatch.context() as patched:
        real_open = os.open

        def spy_open(name: Path, *arguments: int) -> int:
            opened.append(Path(name))
            return real_open(name, *arguments)

        patched.setattr(os, "open", spy_open)
        name = context_name(folder)
    assert {str(name) for name in opened} <= {str(parent / ".git") for parent in [folder, *folder.parents]}
    assert LABEL.fullmatch(hostname("ada", name, "0000"))


def test_a_git_entry_that_would_block_or_never_end_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / ".git")
    assert context_name(tmp_path) == outside()
    (tmp_path / ".git").unlink()
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("only a regular file is read"))
    (tmp_path / ".git").symlink_to("/dev/zero")
    assert context_name(tmp_path) == outside()
