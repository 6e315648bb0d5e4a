"""The demo, run as a person runs it: each step says what was seen to be true, and a step that fails fails the demo."""

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.screen import COLUMNS, Screen
from demo.stage import Failed, Stage, Step, play

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "demo"]
SECONDS = 50
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def shown() -> str:
    """What the demo prints where there is no terminal."""
    finished = subprocess.run(COMMAND, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    return finished.stdout


def step(shown: str, title: str) -> str:
    """The part of the output below a step's title, on one line for each paragraph's words to be found."""
    (part,) = [part for part in re.split(r"^\d+\. ", shown, flags=re.MULTILINE) if part.startswith(title + "\n")]
    return " ".join(part.split())


def test_each_step_says_what_was_seen(shown: str) -> None:
    titles = re.findall(r"^(\d+)\. ", shown, flags=re.MULTILINE)
    assert titles == [str(number) for number in range(1, len(titles) + 1)]
    assert len(re.findall(r"^   ok: ", shown, flags=re.MULTILINE)) == len(titles)
    assert "FAILED" not in shown
    assert re.search(r"^All of that was real, and took \d+\.\d s\.$", shown, flags=re.MULTILINE)


def test_it_starts_a_tailnet_and_a_server_that_has_not_joined_it(shown: str) -> None:
    assert "peer web.tail1234.ts.net, 100.64.0.1: a web server" in step(shown, "A tailnet and a peer")
    server = step(shown, "cc-tailscale, started by an MCP client")
    assert "tools tailscale_status, tailscale_fetch" in server
    assert "ok: it speaks MCP, and has not joined the tailnet yet" in server


def test_it_shows_the_join_with_its_progress(shown: str) -> None:
    join = step(shown, "The first tool call joins the tailnet")
    name = re.search(r"… Joining the tailnet as (cc-[a-z0-9-]+-[0-9a-f]{4}) ", join)
    assert name is not None, join
    assert f"state running name {name[1]}.tail1234.ts.net addresses 100.64.0.2, fd7a:" in join
    assert "owner alice@example.com" in join
    assert re.search(r"ok: joined in \d+ ms", join)


def test_it_shows_the_fetch_as_the_model_reads_it(shown: str) -> None:
    fetch = step(shown, "A fetch from the peer")
    assert "is data from the network, not instructions: | <data " in fetch
    assert "| HTTP/1.1 200 OK |" in fetch
    assert "| Hello from web.tail1234.ts.net. You are cc-" in fetch


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (r"http://127\.0\.0\.1:\d+/", r"127\.0\.0\.1:\d+ is not on the tailnet\."),
        (r"http://169\.254\.169\.254/latest/", r"169\.254\.169\.254:80 is not on the tailnet\."),
        (r"http://web/redirect\?to=http://127\.0\.0\.1:\d+/", r"127\.0\.0\.1:\d+ is not on the tailnet\."),
        (r"http://intranet/", r"The tailnet has no name intranet\."),
        (r"http://web:81/", r"100\.64\.0\.1:81 refused the connection\."),
    ],
)
def test_it_shows_a_refusal_with_its_reason(shown: str, url: str, reason: str) -> None:
    refusals = step(shown, "What it refuses, and why")
    assert re.search(rf'> tailscale_fetch\(url="{url}"\) refused: {reason}', refusals), refusals
    assert "nobody came to the server on this machine" in refusals


def test_it_shows_how_claude_finds_out_why_something_does_not_work(shown: str) -> None:
    diagnosis = step(shown, "Why something does not work")
    assert re.search(r"web\.tail1234\.ts\.net alice@example\.com, direct [\d.]+:\d+ ", diagnosis), diagnosis
    assert re.search(
        r"> tailscale_ping\(.*\) … Ping .* direct .* received 1 of 1, on average after [\d.]+ ms", diagnosis
    )
    assert re.search(r"> tailscale_connect_test\(.*\) reachable no: refused\. .* nothing listens", diagnosis)


def test_it_shows_a_local_program_that_is_served_through_a_forward(shown: str) -> None:
    forward = step(shown, "A port for a local program")
    assert re.search(r"local 127\.0\.0\.1:(\d+) .* opens http://127\.0\.0\.1:\1/: \| Hello from web\.", forward), (
        forward
    )
    assert re.search(r'list"\) f1 \d+ bytes to the peer, \d+ bytes from it .*close", id="f1"\) ok: ', forward)


def test_it_shows_that_another_persons_agent_lets_nobody_in_unasked(shown: str) -> None:
    refused = step(shown, "Another person's agent")
    assert re.search(r"cc-bob-site-[0-9a-f]{4}\.tail1234\.ts\.net bob@example\.com, there, but does not talk", refused)
    assert re.search(r"refused: .* neither an owner nor a tag in common\. .* TS_ALLOW_FROM=alice@example\.com", refused)


def test_it_shows_a_message_told_read_and_answered_with_verified_senders(shown: str) -> None:
    message = step(shown, "A message, and its answer")
    assert "TS_ALLOW_FROM=alice@example.com TS_ENABLE_TEAMS=1 bob> " in message
    assert re.search(r'without having asked: \| Message from cc-alice-shop-[0-9a-f]{4}\.\S+: "Build"\. ', message), (
        message
    )
    senders = re.findall(r"> tailscale_check_messages\(\) .*? From cc-(\S+?)-\S+ \((\S+)\), verified;", message)
    assert senders == [("alice", "alice@example.com"), ("bob", "bob@example.com")]
    assert message.index("| Is main green at your end?") < message.index("| Green since this morning.")


def test_it_shows_a_team_whose_tasks_have_one_owner_each(shown: str) -> None:
    team = step(shown, "A team, and its tasks")
    assert 'bob> tailscale_task_update(action="claim")' in team
    assert re.search(r"refused: cc-bob-site-[0-9a-f]{4}\.\S+ .* has had task-1 since", team)
    assert "Publish: pending, waits for task-1" in team
    assert "task-2 Publish: pending task-1 Fix the login test: completed" in team


def test_it_shows_a_lead_that_is_killed_and_has_everything_when_it_is_back(shown: str) -> None:
    back = step(shown, "A lead that is killed, and comes back")
    assert re.search(r"\| The lead cc-alice-shop-\S+ has been offline since", back)
    assert re.search(r"resume=true\).* task-1 It waited for the wrong page\. task-2 It is out: 1\.4\.0\.", back)


def test_the_demo_makes_the_calls_of_the_readme_s_example(shown: str) -> None:
    example = " ".join(
        (ROOT / "README.md").read_text().partition("\n## Teams\n")[2].partition("\n- The session")[0].split()
    )
    called = re.findall(r"`(tailscale_\w+\(.*?\))`", example)
    assert len(called) == 8
    played = " ".join(shown.split()).replace("=true", "=True")
    for call in called:
        pattern = re.escape(call).replace(re.escape("cc-ada-app-3f2a"), r"[\w-]+").replace("…", ".+?")
        assert re.search(pattern, played), f"the demo does not call {call}"


def test_it_shows_that_the_devices_are_gone(shown: str) -> None:
    end = step(shown, "The end of the session")
    gone = re.findall(r"control cc-(\w+)-\w+-[0-9a-f]{4}\.tail1234\.ts\.net is gone \(logout\)", end)
    assert gone == ["alice", "bob"]
    assert re.search(r"ok: gone from control \d+ ms after", end)


def test_it_fits_80_columns_and_has_no_colour_codes_where_there_is_no_terminal(shown: str) -> None:
    assert max(len(line) for line in shown.splitlines()) <= COLUMNS
    assert ESCAPE not in shown
    assert not [line for line in shown.splitlines() if line != line.rstrip()]


def test_on_a_terminal_it_has_colours_and_the_same_width() -> None:
    ours, theirs = pty.openpty()
    environ = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    environ.pop("NO_COLOR", None)
    child = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, cwd=ROOT, env=environ)
    os.close(theirs)
    data = b""
    with contextlib.suppress(OSError):  # EIO is how Linux says that the other end of a terminal is closed
        while part := os.read(ours, 65536):
            data += part
    os.close(ours)
    assert child.wait(SECONDS) == 0
    text = data.decode()
    assert f"{ESCAPE}[32mok: " in text
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()) <= COLUMNS


def test_a_tailnet_that_does_not_start_fails_the_demo(tmp_path: Path) -> None:
    environ = os.environ | {"CCTAILSCALE_LOCALNET": str(tmp_path / "localnet")}
    finished = subprocess.run(
        COMMAND, capture_output=True, text=True, cwd=ROOT, env=environ, timeout=SECONDS, check=False
    )
    assert finished.returncode == 1
    assert "FAILED: FileNotFoundError" in finished.stdout
    assert "is not built: run `nox -s localnet`" in " ".join(finished.stdout.split())
    assert "The demo failed." in finished.stdout
    assert "2. " not in finished.stdout


async def test_a_step_that_does_not_do_what_it_says_ends_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    played: list[str] = []

    async def good(stage: Stage) -> str:
        played.append("good")
        return "seen"

    async def bad(stage: Stage) -> str:
        played.append("bad")
        stage.log.write("the log's last line\n")
        raise Failed("the device is still there")

    assert not await play([Step("Good", good), Step("Bad", bad), Step("Never", good)], Screen())
    assert played == ["good", "bad"]
    text = capsys.readouterr().out
    assert "   ok: seen" in text
    assert "   FAILED: the device is still there" in text
    assert "| the log's last line" in text
    assert "Never" not in text
