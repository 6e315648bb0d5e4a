"""The steps of the demo, in order. Later parts of the project add theirs to STEPS."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import anyio
import anyio.to_thread

from demo.door import Door
from demo.reach import the_diagnosis, the_forward
from demo.stage import Stage, Step, expect
from demo.talk import another_person, the_conversation
from demo.team import a_team, the_lead_gone
from tests.localnet import Localnet

PEER = "web"
OWNER = "alice@example.com"
BOB = "bob@example.com"
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
    expect(online == [PEER], f"control has these devices online: {online}")
    return "a tailnet with one device on it"


async def a_server(stage: Stage) -> str:
    """cc-tailscale as a client starts it: nothing joins before a tool is called."""
    agent = stage.alice = await stage.agent("alice", "shop", TS_ALLOW_FROM=BOB, TS_ENABLE_TEAMS="1")
    stage.screen.facts(
        {
            "server": f"cc-tailscale {agent.version}; initialize answered {agent.answered_ms:.0f} ms after exec",
            "tools": ", ".join(agent.tools),
        }
    )
    missing = {"tailscale_status", "tailscale_fetch"} - set(agent.tools)
    expect(not missing, f"the server does not have {missing}")
    joined = stage.tailnet.agents()
    expect(not joined, f"it has joined the tailnet before any tool was called: {joined}")
    return "it speaks MCP, and has not joined the tailnet yet"


async def the_join(stage: Stage) -> str:
    """The first tool call joins, and says so while it does."""
    answer, stages = await stage.call(stage.alice, "tailscale_status")
    expect(not answer.is_error, answer.text)
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
    expect(status["state"] == "running", f"the node does not run: {answer.text}")
    expect(any("Joining the tailnet" in told for told in stages), f"no progress was reported, but {stages}")
    device = stage.tailnet.node(status["hostname"])
    expect(device["ephemeral"], f"control knows it as a device that stays: {device}")
    expect(device["addresses"] == status["ips"], f"control gave it {device['addresses']}")
    expect(device["user"] == OWNER == status["owner"], f"control has {device['user']} as its owner")
    passed = f"{answer.milliseconds:.0f} ms, loading the Go node included"
    return f"joined in {passed}, as a device that goes when this session goes"


async def the_fetch(stage: Stage) -> str:
    """An answer of the peer, which knows by WhoIs who asked."""
    answer, _ = await stage.call(stage.alice, "tailscale_fetch", url=f"http://{PEER}/")
    stage.screen.quote(answer.text)
    (device,) = stage.tailnet.agents()
    wanted = f"Hello from {stage.peer['name']}. You are {device['name']} ({OWNER})."
    expect(not answer.is_error, "the fetch did not succeed")
    expect(wanted in answer.text, f"the answer does not hold: {wanted}")
    expect("HTTP/1.1 200 OK" in answer.text, "the answer has no status line")
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
            answer, _ = await stage.call(stage.alice, "tailscale_fetch", url=refusal.url)
            stage.screen.refusal(answer.text)
            expect(answer.is_error, f"{refusal.url} was answered")
            expect(refusal.reads in answer.text, f'the refusal does not say "{refusal.reads}"')
        expect(door.visits == 1, f"the server on this machine was visited {door.visits - 1} times")
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
    """The clients hang up: logged out, removed, nothing left."""
    stage.screen.note("Both clients hang up, which ends the stdin of their servers.")
    passed = 0.0
    for agent in (stage.alice, stage.bob):
        (device,) = [device for device in stage.tailnet.agents() if device["user"] == f"{agent.user}@example.com"]
        seen = stage.tailnet.last_event()
        moment = await agent.leave()
        wait = functools.partial(
            stage.tailnet.wait_for, "removed", device["hostname"], after=seen, seconds=REMOVAL_SECONDS
        )
        removed = await anyio.to_thread.run_sync(wait)
        passed = max(passed, (removed["time_ns"] - moment) / 1e6)
        stage.screen.facts({"control": f"{device['name']} is gone ({removed['detail']})"})
        expect(removed["detail"] == "logout", f"it was removed for another reason: {removed['detail']}")
    left = [node["hostname"] for node in stage.tailnet.agents()]
    expect(not left, f"control still has {left}")
    state = [path for path in stage.folder.glob("*/state/**/*") if path.is_file() and path.name != ".lock"]
    kept = {path.name for path in state if not {"inboxes", "teams"}.intersection(path.parts)}
    expect(not kept, f"the state directories still hold {kept}")
    return f"gone from control {passed:.0f} ms after their clients left; their inboxes stay, and Alice's team"


STEPS = (
    Step("A tailnet and a peer", a_tailnet),
    Step("cc-tailscale, started by an MCP client", a_server),
    Step("The first tool call joins the tailnet", the_join),
    Step("A fetch from the peer", the_fetch),
    Step("What it refuses, and why", the_refusals),
    Step("Why something does not work", the_diagnosis),
    Step("A port for a local program", the_forward),
    Step("Another person's agent", another_person),
    Step("A message, and its answer", the_conversation),
    Step("A team, and its tasks", a_team),
    Step("A lead that is killed, and comes back", the_lead_gone),
    Step("The end of the session", the_end),
)
