"""The steps in which two people's agents talk to each other: Alice's, which has been there so far, and Bob's."""

from __future__ import annotations

from typing import Any

import anyio

from demo.agent import Agent
from demo.stage import Stage, expect

ALICE = "alice@example.com"
BOB = "bob@example.com"
FIND_SECONDS = 10.0
QUESTION = "Is main green at your end?"
ANSWER = "Green since this morning."


async def another_person(stage: Stage) -> str:
    """An agent of another owner is found, and takes no message from whom its user has not named."""
    stage.bob = await stage.agent("bob", "site")
    his = await _joined(stage, stage.bob, status="fixing the build")
    await _known(stage.alice, his)
    listed = await stage.data(stage.alice, "tailscale_agents")
    stage.screen.facts({row["name"]: _about(row) for row in [*listed["agents"], *listed["silent"]]})
    (bob,) = listed["silent"]
    expect(bob["name"] == his and bob["owner"] == BOB, f"another device is silent: {bob}")

    answer, _ = await stage.call(stage.alice, "tailscale_send_message", to=his, subject="Build", body=QUESTION)
    stage.screen.refusal(answer.text)
    expect(answer.is_error, "the message was delivered")
    expect(f"TS_ALLOW_FROM={ALICE}" in answer.text, "the refusal does not say what to add")
    return "Bob's agent takes nothing from Alice; the refusal says what he can add"


async def the_conversation(stage: Stage) -> str:
    """Bob adds what the refusal named. A message arrives, is told, read, and answered."""
    stage.screen.note("Bob adds that, and starts his session again:")
    await stage.bob.leave()
    stage.bob = await stage.agent("bob", "site", TS_ALLOW_FROM=ALICE, TS_ENABLE_TEAMS="1")
    his = await _joined(stage, stage.bob, status="fixing the build")
    await _known(stage.alice, his)
    listed = await stage.data(stage.alice, "tailscale_agents")
    stage.screen.facts({row["name"]: _about(row) for row in listed["agents"]})

    sent = await stage.data(stage.alice, "tailscale_send_message", to=his, subject="Build", body=QUESTION)
    stage.screen.facts({recipient["to"]: recipient["outcome"] for recipient in sent["recipients"]})
    expect(sent["delivered_count"] == 1, f"the message was not delivered: {sent}")
    hint = await stage.bob.hint()
    stage.screen.note("Bob's Claude is told, without having asked:")
    stage.screen.quote(hint.content)
    expect(hint.meta.get("owner") == ALICE, f"the hint names another sender: {hint.meta}")

    read = await _read(stage, stage.bob)
    hers = hint.meta["sender"]
    expect(f"From {hers} ({ALICE}), verified" in read and QUESTION in read, "the message is another one")
    await stage.data(
        stage.bob, "tailscale_send_message", to=hers, subject="Re: Build", body=ANSWER, in_reply_to=sent["id"]
    )
    read = await _read(stage, stage.alice)
    expect(f"From {his} ({BOB}), verified" in read and ANSWER in read, "the answer is another one")
    expect(f"{sent['id']} to {his}: read" in read, "Alice is not told that her message was read")
    return "asked and answered, from node to node, each sure of who the other is"


async def _joined(stage: Stage, agent: Agent, **arguments: str) -> str:
    """Joins the tailnet by a call of tailscale_agents; the agent's name."""
    me, *_ = (await stage.data(agent, "tailscale_agents", **arguments))["agents"]
    name: str = me["name"]
    return name


async def _known(agent: Agent, name: str) -> None:
    """Waits until an agent that has just joined answers to this one: control tells of it a moment later."""
    with anyio.fail_after(FIND_SECONDS):
        while True:
            listed = (await agent.call("tailscale_agents", {}, lambda _: None)).data
            if name in (row["name"] for row in [*listed["agents"], *listed.get("silent", ())]):
                return


async def _read(stage: Stage, agent: Agent) -> str:
    answer, _ = await stage.call(agent, "tailscale_check_messages")
    stage.screen.quote(answer.text)
    expect(not answer.is_error, "the messages could not be read")
    return answer.text


def _about(row: dict[str, Any]) -> str:
    if row.get("this_agent"):
        return "this agent"
    if "why" in row:
        return f"{row['owner']}, there, but does not talk to this agent"
    return f'{row["owner"]}, project {row["project"]}: "{row["status"]}"'
