"""The command line, before there is anything that waits for a signal."""

import signal

import pytest

from cctailscale import cli
from cctailscale.commands import arguments


def test_ctrl_c_while_a_command_is_still_loaded_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(arguments, "parsed", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["team"])
    assert ended.value.code == 128 + signal.SIGINT
