"""The steps of the demo, in order. Later parts of the project add theirs to STEPS."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from demo.agent import Agent
from demo.door import Door
from demo.stage import Failed, Stage, Step
from tests.localnet import Localnet

PEER = "web"
OWNER = "alice@example.com"
REMOVAL_SECONDS = 5.0


async def a_tailnet(stage: Stage) -> str:
    """A control server with its relays, and a peer that is another program."""
    stage.tailnet = stage.open_ends.enter_context(Localnet.started())
    stage.peer = stage.open_ends.enter_context(stage.tailnet.peer(PEER))
    stage.screen.facts(
        {
            "control": f"{stage.tailnet.control_url}, with three DERP relays and STUN",
            "peer": f"{stage.peer['name']}, {stage.peer['ips'][0]}: a web server on Tailscale's own Go library",
        }
    )
    online = [node["hostname"] for node in stage.tailnet.nodes() if node["online"]]
    _expect(online == [PEER], f"control has these devices online: {online}")
    return "a tailnet with one device on it"


async def a_server(stage: Stage) -> str:
    """cc-tailscale as a client starts it: nothing joins before a tool is called."""
    stage.screen.command("cc-tailscale")
    environ = _environ(stage.tailnet, stage.folder)
    stage.agent = await Agent.started(stage.tasks, environ, stage.log)
    agent = stage.agent
    stage.screen.facts(
        {
            "settings": f"TS_CONTROL_URL={stage.tailnet.control_url} TS_AUTHKEY_FILE=…/authkey",
            "server": f"cc-tailscale {agent.version}; initialize answered {agent.answered_ms:.0f} ms after exec",
            "tools": ", ".join(agent.tools),
        }
    )
    missing = {"tailscale_status", "tailscale_fetch"} - set(agent.tools)
    _expect(not missing, f"the server does not have {missing}")
    joined = stage.tailnet.agents()
    _expect(not joined, f"it has joined the tailnet before any tool was called: {joined}")
    return "it speaks MCP, and has not joined the tailnet yet"


async def the_join(stage: Stage) -> str:
    """The first tool call joins, and says so while it does."""
    answer, stages = await stage.call("tailscale_status")
    _expect(not answer.is_error, answer.text)
    status = answer.data
    stage.screen.facts(
        {
            "state": status["state"],
            "name": str(status["magic_dns_name"]),
            "addresses": ", ".join(status["ips"]),
            "owner": str(status["owner"]),
            "control": status["control_url"],
            "peers": f"{status['peers_online']} of {status['peers_total']} online",
        }
    )
    _expect(status["state"] == "running", f"the node does not run: {answer.text}")
    _expect(any("Joining the tailnet" in told for told in stages), f"no progress was reported, but {stages}")
    device = stage.tailnet.node(status["hostname"])
    _expect(device["ephemeral"], f"control knows it as a device that stays: {device}")
    _expect(device["addresses"] == status["ips"], f"control gave it {device['addresses']}")
    _expect(device["user"] == OWNER == status["owner"], f"control has {device['user']} as its owner")
    passed = f"{answer.milliseconds:.0f} ms, loading the Go node included"
    return f"joined in {passed}, as a device that goes when this session goes"


async def the_fetch(stage: Stage) -> str:
    """An answer of the peer, which knows by WhoIs who asked."""
    answer, _ = await stage.call("tailscale_fetch", url=f"http://{PEER}/")
    stage.screen.quote(answer.text)
    (device,) = stage.tailnet.agents()
    wanted = f"Hello from {stage.peer['name']}. You are {device['name']} ({OWNER})."
    _expect(not answer.is_error, "the fetch did not succeed")
    _expect(wanted in answer.text, f"the answer does not hold: {wanted}")
    _expect("HTTP/1.1 200 OK" in answer.text, "the answer has no status line")
    return f"fetched through the tailnet in {answer.milliseconds:.0f} ms; the peer knows who asked"


@dataclass(frozen=True)
class Refusal:
    """A URL that must not work, what it stands for, and how the refusal reads."""

    about: str
    url: str
    reads: str


async def the_refusals(stage: Stage) -> str:
    """What is not on the tailnet is refused, with the reason. A door on loopback proves that nobody came."""
    async with Door.opened() as door:
        await door.knock()  # it does open, to whoever is on this machine
        for refusal in _refusals(door.url):
            stage.screen.note(f"{refusal.about}:")
            answer, _ = await stage.call("tailscale_fetch", url=refusal.url)
            stage.screen.refusal(answer.text)
            _expect(answer.is_error, f"{refusal.url} was answered")
            _expect(refusal.reads in answer.text, f'the refusal does not say "{refusal.reads}"')
        _expect(door.visits == 1, f"the server on this machine was visited {door.visits - 1} times")
    return "five refusals, each with its reason; nobody came to the server on this machine"


def _refusals(here: str) -> tuple[Refusal, ...]:
    off_the_tailnet = "is not on the tailnet"
    return (
        Refusal("A server on this very machine", here, off_the_tailnet),
        Refusal("Where clouds hand out credentials", "http://169.254.169.254/latest/", off_the_tailnet),
        Refusal("A peer that redirects to that server", f"http://{PEER}/redirect?to={here}", off_the_tailnet),
        Refusal("A name that the tailnet does not have", "http://intranet/", "The tailnet has no name intranet"),
        Refusal("A port of the peer where nothing listens", f"http://{PEER}:81/", "refused the connection"),
    )


async def the_end(stage: Stage) -> str:
    """The client hangs up: logged out, removed, nothing left."""
    (device,) = stage.tailnet.agents()
    stage.screen.note("The client hangs up, which ends the server's stdin.")
    moment = await stage.agent.leave()
    wait = functools.partial(stage.tailnet.wait_for, "removed", device["hostname"], seconds=REMOVAL_SECONDS)
    removed = await anyio.to_thread.run_sync(wait)
    passed = (removed["time_ns"] - moment) / 1e6
    stage.screen.facts({"control": f"{device['name']} is gone ({removed['detail']}) after {passed:.0f} ms"})
    _expect(removed["detail"] == "logout", f"it was removed for another reason: {removed['detail']}")
    left = [node["hostname"] for node in stage.tailnet.agents()]
    _expect(not left, f"control still has {left}")
    state = [path.name for path in (stage.folder / "state").rglob("*") if path.is_file() and path.name != ".lock"]
    _expect(not state, f"its state directory still holds {state}")
    return f"gone from control {passed:.0f} ms after the client left; nothing of it remains"


STEPS = (
    Step("A tailnet and a peer", a_tailnet),
    Step("cc-tailscale, started by an MCP client", a_server),
    Step("The first tool call joins the tailnet", the_join),
    Step("A fetch from the peer", the_fetch),
    Step("What it refuses, and why", the_refusals),
    Step("The end of the session", the_end),
)


def _environ(tailnet: Localnet, folder: Path) -> dict[str, str]:
    """As an `env` block in .mcp.json, plus a home and a project of this demo's own."""
    key = folder / "authkey"
    key.write_text(tailnet.auth_key + "\n")
    key.chmod(0o600)
    project = folder / "demo"
    project.mkdir()
    return {
        "TS_AUTHKEY_FILE": str(key),
        "TS_CONTROL_URL": tailnet.control_url,
        "TS_STATE_DIR": str(folder / "state"),
        "TS_DISABLE_PORTMAPPER": "1",  # Go's, not a setting of ours: ask no router for anything
        "CLAUDE_PROJECT_DIR": str(project),
        "HOME": str(folder),
    }


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)
