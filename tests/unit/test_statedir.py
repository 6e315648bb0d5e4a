import contextlib
import json
import os
import select
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cctailscale import statedir
from cctailscale.errors import StateDirError
from cctailscale.statedir import SessionDir, abandoned, claim, in_use, session_identity

CONTROL = "https://controlplane.tailscale.com"
MINE = session_identity("session-1", Path("/src/app"), ephemeral=True)
OTHER = session_identity("session-2", Path("/src/app"), ephemeral=True)
as_root = os.geteuid() == 0

# A session in a process of its own: claims at the first line on stdin, says what it got, and holds it until the end.
SESSION = """
import sys
from pathlib import Path
from cctailscale.statedir import abandoned, claim
root, identity, control, ephemeral, sweeps = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
swept = abandoned(Path(root)) if sweeps == "sweeps" else []
taken = claim(Path(root), identity=identity, base="cc-ada-app", control_url=control, ephemeral=ephemeral == "1")
for directory in swept:
    directory.remove()
print(taken.hostname, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state" / "root"


def take(
    root: Path, identity: str = MINE, base: str = "cc-ada-app", control_url: str = CONTROL, ephemeral: bool = True
) -> SessionDir:
    return claim(root, identity=identity, base=base, control_url=control_url, ephemeral=ephemeral)


def used(root: Path, identity: str = MINE, control_url: str = CONTROL, ephemeral: bool = True) -> str | None:
    return in_use(root, identity=identity, base="cc-ada-app", control_url=control_url, ephemeral=ephemeral)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """Starts a session's process, up to where it is about to claim."""
    with contextlib.ExitStack() as processes:

        def start(identity: str = MINE, *, ephemeral: bool = True, sweeps: bool = False) -> "subprocess.Popen[str]":
            arguments = [str(root), identity, CONTROL, str(int(ephemeral)), "sweeps" if sweeps else "claims"]
            process = subprocess.Popen(
                [sys.executable, "-c", SESSION, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            assert answer(process) == "ready"
            return process

        yield start


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], 30)
    assert readable, "the session's process said nothing within 30 s"
    return process.stdout.readline().strip()


def claimed(process: "subprocess.Popen[str]") -> str:
    go(process)
    return answer(process)


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait(10)


def names(root: Path) -> set[str]:
    return {entry.name for entry in root.iterdir()}


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# ---- taking up


def test_a_new_session_gets_a_private_directory_named_like_its_device(root: Path) -> None:
    before = time.time()
    with take(root) as taken:
        assert taken.path == root / taken.hostname
        assert taken.hostname == f"cc-ada-app-{taken.record.suffix}"
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        assert stat.S_IMODE(taken.path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(entry.stat().st_mode) for entry in taken.path.iterdir()} == {0o600}
        record = json.loads((taken.path / "session.json").read_text())
        assert record.pop("created") == record.pop("last_used") >= before
        assert record == {
            "version": 1,
            "session": MINE,
            "hostname": taken.hostname,
            "suffix": taken.record.suffix,
            "ephemeral": True,
            "control_url": CONTROL,
        }
        assert names(root) == {taken.hostname}


def test_a_restart_takes_the_same_directory_up_again(root: Path) -> None:
    with take(root) as first:
        (first.path / "tailscaled.state").write_text("key")
    with take(root) as second:
        assert second.hostname == first.hostname
        assert (second.path / "tailscaled.state").read_text() == "key"
        assert second.record.created == first.record.created
        assert second.record.last_used > first.record.last_used


def test_a_restart_after_kill_9_takes_the_same_directory_up_again(root: Path, start: Start) -> None:
    first = start()
    hostname = claimed(first)
    kill(first)
    assert claimed(start()) == hostname


@pytest.mark.parametrize(
    "other",
    [
        {"identity": OTHER},
        {"control_url": "https://headscale.example.com"},
        {"ephemeral": False},
        {"base": "build-box"},
    ],
    ids=str,
)
def test_what_belongs_to_another_session_server_kind_or_name_is_not_taken_up(root: Path, other: dict[str, str]) -> None:
    with take(root) as first:
        pass
    with take(root, **other) as second:  # type: ignore[arg-type]
        assert second.hostname != first.hostname
    assert names(root) == {first.hostname, second.hostname}


def test_of_several_the_last_used_is_taken_up(root: Path) -> None:
    older, newer, newest = take(root), take(root), take(root)
    newer.mark_used()
    for taken in (older, newest, newer):
        taken.close()
    with take(root) as first, take(root) as second, take(root) as third:
        assert [first.hostname, second.hostname, third.hostname] == [newer.hostname, newest.hostname, older.hostname]


def test_a_name_that_begins_alike_is_not_confused(root: Path) -> None:
    with take(root, base="cc-ada-app-1a2b") as longer:
        pass
    with take(root, base="cc-ada-app") as taken:
        assert taken.hostname != longer.hostname


def test_a_taken_suffix_is_not_used_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suffixes = iter(["0001", "0001", "0002", "0003", "0004"])
    monkeypatch.setattr(statedir, "new_suffix", lambda: next(suffixes))
    with take(root) as first:
        (root / "cc-ada-app-0002").mkdir()  # somebody else's, and empty: a rename would replace it
        foreign = (root / "cc-ada-app-0002").stat().st_ino
        (root / "cc-ada-app-0003").write_text("x")
        with take(root) as second:
            assert (first.record.suffix, second.record.suffix) == ("0001", "0004")
    assert (root / "cc-ada-app-0002").stat().st_ino == foreign
    assert (root / "cc-ada-app-0003").read_text() == "x"


def test_a_suffix_that_another_process_takes_at_the_same_moment_is_given_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffixes = iter(["0001", "0001", "0002"])
    monkeypatch.setattr(statedir, "new_suffix", lambda: next(suffixes))
    with take(root) as first:
        monkeypatch.setattr(statedir.os.path, "lexists", lambda _: False)  # it looked a moment too early
        with take(root) as second:
            assert (first.record.suffix, second.record.suffix) == ("0001", "0002")
            assert names(root) == {first.hostname, second.hostname}


def test_without_any_free_suffix_it_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statedir, "new_suffix", lambda: "0001")
    with take(root), pytest.raises(StateDirError, match="no free name"):
        take(root)


def test_the_identity_is_the_session_or_else_the_project(tmp_path: Path) -> None:
    app, other = tmp_path / "app", tmp_path / "other"
    app.mkdir()
    (tmp_path / "link").symlink_to(app)
    assert session_identity("s", app, ephemeral=True) == session_identity("s", other, ephemeral=True)
    assert session_identity("s", app, ephemeral=True) != session_identity("t", app, ephemeral=True)
    assert session_identity(None, app, ephemeral=True) != session_identity(None, other, ephemeral=True)
    assert session_identity(None, app, ephemeral=True) == session_identity(None, tmp_path / "link", ephemeral=True)
    assert session_identity(str(app), other, ephemeral=True) != session_identity(None, app, ephemeral=True)
    # A device that stays belongs to the project, whatever the session is.
    assert session_identity("s", app, ephemeral=False) == session_identity("t", app, ephemeral=False)


def test_the_next_session_of_a_project_takes_a_lasting_device_up(root: Path, start: Start) -> None:
    project = session_identity("s", Path("/src/app"), ephemeral=False)
    first = start(project, ephemeral=False)
    hostname = claimed(first)
    kill(first)
    assert abandoned(root) == []
    assert claimed(start(session_identity("t", Path("/src/app"), ephemeral=False), ephemeral=False)) == hostname


# ---- locks


def test_a_second_process_of_the_same_session_gets_a_directory_of_its_own(root: Path, start: Start) -> None:
    first, second = start(), start()
    assert claimed(first) != claimed(second)


def test_a_directory_is_in_use_while_it_is_held_and_by_its_own_session_alone(root: Path) -> None:
    assert used(root) is None  # not even the root is there
    with take(root) as held:
        assert used(root) == held.hostname
        assert used(root, identity=OTHER) is None
        assert used(root, control_url="https://headscale.example.com") is None
        assert used(root, ephemeral=False) is None
    assert used(root) is None
    with take(root) as again:  # to look has not taken it
        assert again.hostname == held.hostname


def test_the_same_process_cannot_claim_a_directory_twice_either(root: Path) -> None:
    with take(root) as first, take(root) as second:
        assert first.path != second.path


@pytest.mark.parametrize("leftovers", [0, 3])
def test_eight_processes_that_start_at_once_get_eight_directories(root: Path, start: Start, leftovers: int) -> None:
    earlier = [take(root) for _ in range(leftovers)]
    for taken in earlier:
        taken.close()
    processes = [start() for _ in range(8)]
    for process in processes:
        go(process)
    hostnames = {answer(process) for process in processes}
    assert len(hostnames) == 8
    assert {taken.hostname for taken in earlier} <= hostnames
    assert names(root) == hostnames


def test_sweepers_and_claimers_that_race_never_hurt_each_other(root: Path, start: Start) -> None:
    for round_number in range(3):
        for _ in range(4):  # what the claimers want is what the sweepers find
            take(root, MINE).close()
        processes = [start(sweeps=number % 2 == 0) for number in range(6)]
        for process in processes:
            go(process)
        hostnames = [answer(process) for process in processes]
        assert len(set(hostnames)) == 6, f"round {round_number}"
        assert set(hostnames) <= names(root)
        for hostname in hostnames:
            assert json.loads((root / hostname / "session.json").read_text())["hostname"] == hostname
        for process in processes:
            kill(process)
        for left in abandoned(root):
            left.remove()


@pytest.mark.parametrize("remade_by", [None, MINE, OTHER], ids=["removed", "remade", "remade by another session"])
def test_a_directory_that_changes_between_look_and_lock_is_not_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch, remade_by: str | None
) -> None:
    suffixes = iter(["0001", "0001", "0002"])
    monkeypatch.setattr(statedir, "new_suffix", lambda: next(suffixes))
    before = descriptors()
    first = take(root)
    real_flock = statedir.fcntl.flock
    remade: list[SessionDir] = []

    def changed_first(fd: int, operation: int) -> None:
        monkeypatch.setattr(statedir.fcntl, "flock", real_flock)
        first.remove()
        if remade_by is not None:
            remade.append(take(root, remade_by))
        real_flock(fd, operation)

    monkeypatch.setattr(statedir.fcntl, "flock", changed_first)
    with take(root) as second:
        assert {second.hostname, *(taken.hostname for taken in remade)} == names(root)
        assert len(names(root)) == 1 + len(remade)
    for taken in remade:
        taken.close()
    assert descriptors() == before


def test_a_directory_that_changes_hands_before_it_is_opened_is_not_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffixes = iter(["0001", "0001", "0002"])
    monkeypatch.setattr(statedir, "new_suffix", lambda: next(suffixes))
    take(root).close()
    real_records_of = statedir._records_of

    def changed_after(*arguments: object) -> list[statedir.Record]:
        monkeypatch.setattr(statedir, "_records_of", real_records_of)
        found = real_records_of(*arguments)  # type: ignore[arg-type]
        abandoned(root)[0].remove()
        take(root, OTHER).close()
        return found

    monkeypatch.setattr(statedir, "_records_of", changed_after)
    with take(root) as taken:
        assert (taken.record.suffix, taken.record.session) == ("0002", MINE)


def test_a_record_that_names_another_sessions_directory_gives_no_access_to_it(root: Path) -> None:
    with take(root, OTHER) as others:
        pass
    copied = root / f"cc-ada-app-{'1111' if others.record.suffix == '0000' else '0000'}"
    copied.mkdir(mode=0o700)
    record = json.loads((others.path / "session.json").read_text())
    (copied / "session.json").write_text(json.dumps({**record, "session": MINE}))
    with take(root) as taken:
        assert taken.path not in (others.path, copied)


def test_a_child_that_was_started_by_exec_does_not_keep_the_lock(root: Path) -> None:
    first = take(root)
    with subprocess.Popen(["sleep", "30"], close_fds=False) as child:
        first.close()
        with take(root) as second:
            assert second.hostname == first.hostname
        child.kill()


def test_a_forked_child_does_not_keep_the_lock_after_close(root: Path) -> None:
    reader, writer = os.pipe()
    first = take(root)
    child = os.fork()
    if child == 0:  # holds a copy of the lock's descriptor until the parent lets it go
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        first.close()
        with take(root) as second:
            assert second.hostname == first.hostname
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_nothing_keeps_a_descriptor_open(root: Path) -> None:
    take(root).close()
    before = descriptors()
    for _ in range(5):
        take(root).close()
        for left in abandoned(root):
            left.close()
        take(root, OTHER).remove()
    with pytest.raises(StateDirError):
        take(root / "no" / ("x" * 300))
    assert descriptors() == before


def test_closing_and_removing_twice_is_harmless(root: Path) -> None:
    first = take(root)
    first.close()
    first.close()
    with take(root) as second:
        assert second.path == first.path
        first.remove()  # it is another's by now
        assert second.path.is_dir()
        second.remove()
        second.remove()
        assert not second.path.exists()


# ---- sweeping


def test_the_directories_of_dead_sessions_are_swept_and_those_of_living_ones_kept(root: Path, start: Start) -> None:
    dead, living = start(OTHER), start(OTHER)
    dead_name, living_name = claimed(dead), claimed(living)
    kill(dead)
    with take(root) as own:
        swept = abandoned(root)
        assert [left.hostname for left in swept] == [dead_name]
        assert swept[0].record.control_url == CONTROL
        (swept[0].path / "certs").mkdir()
        (swept[0].path / "certs" / "web.key").write_text("x")
        assert abandoned(root) == []  # it is locked by now
        swept[0].remove()
        assert names(root) == {living_name, own.hostname}


def test_a_swept_directory_that_is_closed_is_found_again(root: Path) -> None:
    take(root).close()
    (first,) = abandoned(root)
    first.close()
    (second,) = abandoned(root)
    assert second.hostname == first.hostname
    second.remove()
    assert names(root) == set()


def test_one_start_sweeps_a_bounded_number_the_oldest_first(root: Path) -> None:
    sessions = [take(root) for _ in range(4)]
    for session in sessions:
        session.close()
    swept = abandoned(root, limit=2)
    assert [left.hostname for left in swept] == [session.hostname for session in sessions[:2]]
    for left in swept:
        left.close()


def test_what_is_not_ours_is_never_touched(root: Path, tmp_path: Path) -> None:
    take(root).remove()
    sound = {"version": 1, "session": MINE, "suffix": "0001", "ephemeral": True, "control_url": CONTROL}
    sound |= {"created": 1, "last_used": 1}
    foreign = {
        "no-record": None,
        "not-json": "{",
        "deep": "[" * 16000,
        "a-list": "[]",
        "too-large": " " * 20000,
        "newer-0001": json.dumps({**sound, "version": 2, "hostname": "newer-0001"}),
        "renamed-0001": json.dumps({**sound, "hostname": "original-0001"}),
        "wrong-suffix": json.dumps({**sound, "hostname": "wrong-suffix"}),
        "wrong-type-0001": json.dumps({**sound, "hostname": "wrong-type-0001", "ephemeral": "yes"}),
        "lacks-0001": json.dumps({"version": 1, "hostname": "lacks-0001"}),
        "Capital-0001": json.dumps({**sound, "hostname": "Capital-0001"}),
    }
    for name, record in foreign.items():
        (root / name).mkdir()
        if record is not None:
            (root / name / "session.json").write_text(record)
    (root / "fifo-0001").mkdir()
    os.mkfifo(root / "fifo-0001" / "session.json")
    (root / "link-0001").mkdir()
    (tmp_path / "elsewhere.json").write_text(json.dumps({**sound, "hostname": "link-0001"}))
    (root / "link-0001" / "session.json").symlink_to(tmp_path / "elsewhere.json")
    (root / "file-0001").write_text("x")
    with take(tmp_path / "outer") as outside:
        pass
    (root / outside.hostname).symlink_to(outside.path)
    before = names(root)
    assert abandoned(root) == []
    assert names(root) == before
    assert outside.path.is_dir()


def test_a_record_cannot_point_out_of_the_root(root: Path) -> None:
    with take(root) as taken:
        pass
    outside = root.parent / "cc-ada-app-0001"
    outside.mkdir(mode=0o700)
    record = json.loads((taken.path / "session.json").read_text())
    pointing = json.dumps({**record, "hostname": "../cc-ada-app-0001", "suffix": "0001"})
    for folder in (taken.path, outside):
        (folder / "session.json").write_text(pointing)
    assert abandoned(root) == []
    with take(root) as again:
        assert again.path.parent == root
    assert outside.is_dir()


def test_a_directory_that_others_could_write_to_is_not_swept(root: Path) -> None:
    with take(root) as taken:
        pass
    taken.path.chmod(0o770)
    assert abandoned(root) == []


def test_removing_does_not_follow_links(root: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    taken = take(root)
    (taken.path / "link").symlink_to(tmp_path / "precious")
    (taken.path / "sub").mkdir()
    (taken.path / "sub" / "file-link").symlink_to(tmp_path / "precious" / "file")
    taken.remove()
    assert names(root) == set()
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_what_a_crash_left_half_made_or_half_removed_goes_after_some_minutes(root: Path) -> None:
    take(root).remove()
    for kind, age in (("new", 0), ("new", 3600), ("gone", 0), ("gone", 3600)):
        left = root / f".cc-{kind}-{age:016x}"
        left.mkdir(mode=0o700)
        (left / "lock").write_text("")
        os.utime(left, (time.time() - age,) * 2)
    (root / ".cc-new-of-somebody-else").mkdir()
    assert abandoned(root) == []
    assert names(root) == {".cc-new-0000000000000000", ".cc-gone-0000000000000000", ".cc-new-of-somebody-else"}


def test_a_crash_while_removing_leaves_nothing_that_seems_usable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = take(root)
    monkeypatch.setattr(statedir.shutil, "rmtree", lambda *_, **__: None)  # killed right here
    taken.remove()
    with take(root) as second:
        assert second.hostname != taken.hostname
        assert abandoned(root) == []


def test_a_missing_root_has_nothing_to_sweep(root: Path) -> None:
    assert abandoned(root) == []
    assert not root.exists()


# ---- writing


def test_a_reader_never_sees_half_a_record(root: Path) -> None:
    with take(root) as taken:
        stop = threading.Event()
        bad: list[str] = []

        def keep_reading() -> None:
            while not stop.is_set():
                text = (taken.path / "session.json").read_text()
                try:
                    json.loads(text)
                except ValueError:
                    bad.append(text)

        reader = threading.Thread(target=keep_reading)
        reader.start()
        for _ in range(50):
            taken.mark_used()
        stop.set()
        reader.join(10)
        assert bad == []
        assert names(taken.path) == {"lock", "session.json"}


# ---- what cannot be used


def problem(root: Path) -> str:
    with pytest.raises(StateDirError) as raised:
        take(root)
    assert raised.value.next_step
    return str(raised.value)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder" in problem(tmp_path / "file")
    assert "is not a folder" in problem(tmp_path / "file" / "below")


def test_a_root_that_is_no_full_path_is_refused() -> None:
    assert "not a full path" in problem(Path("~/.cache/x"))


def test_a_root_that_is_not_writable_is_refused(root: Path) -> None:
    root.mkdir(parents=True, mode=0o500)
    if os.access(root, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "is not writable" in problem(root)
    assert "TS_STATE_DIR" in problem(root)
    root.chmod(0o000)
    assert "is not writable" in problem(root)
    root.chmod(0o700)


def test_a_root_that_is_not_writable_by_any_means_is_refused() -> None:
    assert "TS_STATE_DIR" in problem(Path("/proc/cc-tailscale"))


def test_a_root_that_others_can_write_to_is_refused_with_the_command_to_run(root: Path) -> None:
    root.mkdir(parents=True)
    for mode in (0o770, 0o707, 0o1777):
        root.chmod(mode)
        assert f"chmod 700 {root}" in problem(root)
    root.chmod(0o755)  # others may see the names; the directories in it are private
    take(root).close()


@pytest.mark.skipif(not as_root, reason="only root can give a folder away")
def test_a_root_or_a_directory_of_another_user_is_refused(root: Path) -> None:
    with take(root) as taken:
        pass
    taken.path.chmod(0o755)
    os.chown(taken.path, 12345, -1)
    assert "belongs to another user" in problem(root)
    os.chown(root, 12345, -1)
    assert f"{root} belongs to another user" in problem(root)


def test_a_root_that_is_a_link_to_a_folder_of_ones_own_is_fine(root: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    root.parent.mkdir()
    root.symlink_to(tmp_path / "disk")
    with take(root) as taken:
        assert taken.path == tmp_path / "disk" / taken.hostname
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "circle" in problem(tmp_path / "circle")


def test_a_sessions_directory_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    with take(root) as taken:
        pass
    taken.path.rename(tmp_path / "moved")
    taken.path.symlink_to(tmp_path / "moved")
    assert f"{taken.path} is a symbolic link" in problem(root)
    assert f"rm {taken.path}" in problem(root)
    assert (tmp_path / "moved" / "session.json").exists()


def test_a_sessions_directory_that_others_can_write_to_is_refused(root: Path) -> None:
    with take(root) as taken:
        pass
    taken.path.chmod(0o777)
    assert f"chmod 700 {taken.path}" in problem(root)


def test_a_sessions_directory_that_others_can_only_read_is_made_private(root: Path) -> None:
    with take(root) as taken:
        taken.path.chmod(0o755)
    with take(root) as again:
        assert again.path == taken.path
        assert stat.S_IMODE(again.path.stat().st_mode) == 0o700


def test_the_sweep_can_be_told_to_leave_what_was_used_lately(root: Path) -> None:
    with take(root) as old:
        pass
    with take(root, OTHER) as young:
        pass
    assert old.record.last_used < young.record.last_used
    assert abandoned(root, unused_since=old.record.last_used - 1) == []
    (found,) = abandoned(root, unused_since=old.record.last_used)
    with found:
        assert found.path == old.path


def test_a_lock_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    with take(root) as taken:
        pass
    (taken.path / "lock").unlink()
    (taken.path / "lock").symlink_to(tmp_path / "target")
    assert "symbolic link" in problem(root)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (statedir.errno.ENOSPC, "full disk"),
        (statedir.errno.EDQUOT, "quota"),
        (statedir.errno.EROFS, "read-only"),
        (statedir.errno.EIO, "cannot be used"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_disk_that_fails_is_a_clear_error_and_leaves_nothing_behind(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str, again: bool
) -> None:
    root.mkdir(parents=True, mode=0o700)
    if again:
        take(root).close()
    before, open_before = names(root), descriptors()

    def failing(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(statedir.os, "fsync", failing)
        assert says in problem(root)
    assert names(root) == before
    assert descriptors() == open_before
    with take(root) as taken:
        assert names(taken.path) == {"lock", "session.json"}


def test_a_file_system_without_locks_is_a_clear_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(statedir.errno.ENOLCK, "no locks")

    monkeypatch.setattr(statedir.fcntl, "flock", failing)
    assert "without locks" in problem(root)
    assert names(root) == set()


def test_a_directory_that_cannot_be_removed_is_a_clear_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = take(root)

    def failing(*_: object) -> None:
        raise PermissionError(statedir.errno.EACCES, "no")

    with monkeypatch.context() as patched:
        patched.setattr(statedir.Path, "rename", failing)
        with pytest.raises(StateDirError, match="is not writable"):
            taken.remove()
    with take(root) as again:
        assert again.path == taken.path
