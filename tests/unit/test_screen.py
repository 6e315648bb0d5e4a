"""What a command may write to a terminal, and what to a pipe."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cctailscale.commands.arguments import in_shell_words
from cctailscale.commands.render import rendered
from cctailscale.commands.screen import REPLACEMENT, Screen, visible
from cctailscale.errors import BadName, ControlUnreachable
from cctailscale.redact import MARK, Redactor
from cctailscale.tailnet.results import DeviceRow, Devices, DnsLookup, Identity, Owner, Record

SECRET = "headscale-key-without-a-prefix"
HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e[bold red]x[/] :smile:\r\x00\x7f"
# Whatever a peer may send, with a good share of what does harm.
chosen = st.text(
    st.sampled_from("\x1b\x07\x08\x9b\x9d\x90\r\n\t\x00\x7f\u202e\u2066\u2028\u200f[]/a:m") | st.characters()
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> tuple[Screen, io.StringIO, io.StringIO]:
    """A screen and its two outputs. Rich asks the environment for what a terminal can do."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    return Screen(Redactor(SECRET)), out, err


def obeyed(text: str) -> set[str]:
    """What of a text a terminal would obey, but for line feeds and tabs."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n", "\t"}


@given(chosen)
def test_a_visible_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    seen = visible(text)
    assert not obeyed(seen)
    assert "\x1b" not in seen
    assert not [c for c in seen if "\x80" <= c <= "\x9f"]


@given(st.text(st.characters(categories=["L", "N", "P", "S"]) | st.sampled_from(" \n\t")))
def test_a_text_without_any_of_that_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_what_is_taken_out_leaves_a_mark_and_line_ends_of_the_network_do_not() -> None:
    assert visible("a\x1bb\r\nc\rd") == f"a{REPLACEMENT}b\nc{REPLACEMENT}d"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen, chosen, chosen)
def test_nothing_that_a_peer_chose_moves_the_cursor_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: str, value: str
) -> None:
    with monkeypatch.context() as patched:
        screen, out, _ = shown(patched, terminal=True)
        results = (
            Devices(
                total=1,
                online=1,
                devices=[DeviceRow(name=name, addresses=[value], owner=owner, online=True)],
                cursor=None,
            ),
            Identity(
                name=name,
                stable_id=value,
                addresses=[value],
                owner=Owner(login=owner, display_name=name),
                capabilities={name: [value]},
            ),
            DnsLookup(
                name=name,
                type="TXT",
                outcome="found",
                records=[Record(name=name, type="TXT", ttl_ms=1, value=value)],
                resolver=owner,
            ),
        )
        for result in results:
            screen.result(*rendered(result, screen))
    # Rich's own colours are all that is left.
    assert not obeyed(out.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", ""))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(chosen, chosen | st.lists(chosen)))
def test_json_is_printable_ascii_and_reads_back_as_it_was(
    monkeypatch: pytest.MonkeyPatch, value: dict[str, Any]
) -> None:
    with monkeypatch.context() as patched:
        screen, out, _ = shown(patched, terminal=True)
        screen.result_json(value)
    assert all(" " <= c <= "~" or c == "\n" for c in out.getvalue())
    assert json.loads(out.getvalue()) == value


def test_markup_and_emoji_names_are_not_taken_for_such(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, err = shown(monkeypatch, terminal=True)
    screen.result(screen.text(HOSTILE))
    screen.note(HOSTILE)
    screen.as_is(HOSTILE)
    for text in (out.getvalue(), err.getvalue()):
        assert "[bold red]x[/] :smile:" in text
        assert not obeyed(text)


def test_errors_are_shown_without_what_a_terminal_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, err = shown(monkeypatch, terminal=True)
    screen.error(ControlUnreachable("http://control", HOSTILE))
    screen.error(BadName(HOSTILE))
    text = err.getvalue().replace("\x1b[1;31m", "").replace("\x1b[0m", "")
    assert not obeyed(text)
    assert "gave no answer" in text
    assert out.getvalue() == ""


def test_off_a_terminal_there_is_no_colour_no_spinner_and_no_wrapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    screen, out, err = shown(monkeypatch, terminal=False)
    with screen.progress() as progress:
        progress.show("Joining")
        progress.show("Joining")
        progress.show("Measuring")
    screen.note("x" * 500, "bold red")
    screen.result(screen.text("y" * 500, "green"))
    assert err.getvalue() == f"Joining\nMeasuring\n{'x' * 500}\n"
    assert out.getvalue() == "y" * 500 + "\n"


def test_on_a_terminal_there_is_colour_and_a_spinner_that_is_wiped_out(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, out, err = shown(monkeypatch, terminal=True)
    with screen.progress() as progress:
        progress.show("Joining")
    screen.result(screen.text("well", "green"))
    assert "Joining" in err.getvalue()
    assert err.getvalue().endswith("\x1b[2K")  # the line is empty again
    assert out.getvalue() == "\x1b[32mwell\x1b[0m\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    screen, out, err = shown(monkeypatch, terminal=terminal)
    screen.result(screen.text(SECRET))
    screen.result_json({SECRET: [SECRET]})
    screen.as_is(SECRET)
    screen.note(SECRET)
    screen.link("open", f"https://control/{SECRET}")
    screen.error(ControlUnreachable(f"https://control/{SECRET}"))
    assert SECRET not in out.getvalue() + err.getvalue()
    assert out.getvalue().count(MARK) == 4


def test_a_link_is_one_line_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, _, err = shown(monkeypatch, terminal=True)
    url = "https://login.example.com/" + "a" * 200
    screen.link("To log in, open", url)
    assert url in err.getvalue()


def test_a_terminal_that_is_gone_does_not_keep_a_command_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, _, err = shown(monkeypatch, terminal=True)

    def gone(_: str) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(err, "write", gone)
    screen.note("still here?")
    screen.link("open", "https://control/a")


def test_texts_of_the_tools_name_commands() -> None:
    assert in_shell_words("tailscale_connect_test finds that out; see tailscale_devices.") == (
        "cc-tailscale connect finds that out; see cc-tailscale devices."
    )
