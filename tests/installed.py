"""`python -m tests.installed`: the cc-tailscale that is installed joins a local tailnet and fetches from a peer.

It is what each wheel is tried with on its platform, by cibuildwheel and by `nox -s wheel`. It takes an environment with
nothing but the wheel and what that requires, and the local tailnet's program (`nox -s localnet`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from tests.agent import Agent
from tests.localnet import Localnet

COMMAND = Path(sysconfig.get_path("scripts"), "cc-tailscale")


def main() -> None:
    began = time.monotonic()
    package = importlib.util.find_spec("cctailscale")
    assert package is not None, "cc-tailscale is not installed here"
    assert Path(str(package.origin)).is_relative_to(sysconfig.get_path("platlib")), f"{package.origin} is no wheel's"
    version = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    asyncio.run(join_and_fetch())
    print(f"{version.strip()} on Python {sys.version.split()[0]}: joined and fetched, {time.monotonic() - began:.1f} s")


async def join_and_fetch() -> None:
    """From the start of the server to a page of the peer `web`, and out in peace."""
    with tempfile.TemporaryDirectory(prefix="cc-tailscale-installed-") as home, Localnet.started() as tailnet:
        settings = {
            "CLAUDE_PROJECT_DIR": home,
            "HOME": home,
            "TS_AUTHKEY": tailnet.auth_key,
            "TS_CONTROL_URL": tailnet.control_url,
            "TS_STATE_DIR": str(Path(home, "state")),
            "USER": "tester",
        }
        with tailnet.peer("web"):
            async with Agent.started(settings, command=(str(COMMAND),)) as agent:
                answer = await agent.succeed("tailscale_fetch", url="http://web/")
                assert "200" in answer.text, answer.text
                assert tailnet.agents(), "nothing joined"
                code = await agent.stop()
        assert code == 0, f"cc-tailscale ended with {code}: {agent.stderr[-2000:]}"
        assert not tailnet.agents(), "its device was left behind"


if __name__ == "__main__":
    main()
