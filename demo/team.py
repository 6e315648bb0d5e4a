"""The steps in which two agents share a list of tasks: the README's example, with a lead that is killed."""

from __future__ import annotations

from typing import Any

import anyio

from demo.agent import Agent
from demo.stage import Stage, expect

TEAM = "release"
FIX = "Fix the login test"
PUBLISH = "Publish"
# For a member to find its lead again, which it does by itself.
BACK_SECONDS = 30.0


async def a_team(stage: Stage) -> str:
    """Alice's agent makes a team and two tasks; Bob's joins, claims, and completes the first."""
    made = await stage.data(stage.alice, "tailscale_team_create", name=TEAM)
    await stage.data(stage.alice, "tailscale_task_create", subject=FIX)
    await stage.data(stage.alice, "tailscale_task_create", subject=PUBLISH, blocked_by=["task-1"])
    lead = made["lead"].partition(".")[0]
    joined = await stage.data(stage.bob, "tailscale_team_join", lead_hostname=lead)
    stage.screen.facts({one["name"]: f"{one['owner']}, {one['role']}" for one in joined["members"]})
    expect(joined["members_total"] == 2, f"the team has other members: {joined}")
    await _listed(stage, stage.bob, {"task-1": "pending", "task-2": "pending, waits for task-1"})

    claimed = await stage.data(stage.bob, "tailscale_task_update", action="claim")
    expect(claimed["id"] == "task-1", f"another task was claimed: {claimed}")
    answer, _ = await stage.call(stage.alice, "tailscale_task_update", action="claim", id="task-1")
    stage.screen.refusal(answer.text)
    expect(answer.is_error and claimed["owner"] in answer.text, "the loser is not told who has the task")
    await stage.data(
        stage.bob, "tailscale_task_update", action="complete", id="task-1", result="It waited for the wrong page."
    )
    await _listed(stage, stage.bob, {"task-2": "pending", "task-1": "completed"})
    return "each task had one owner; the second one could be claimed once the first was done"


async def the_lead_gone(stage: Stage) -> str:
    """The lead is killed and comes back as another device: no task is lost, and what was done meanwhile arrives."""
    claimed = await stage.data(stage.bob, "tailscale_task_update", action="claim")
    expect(claimed["id"] == "task-2", f"another task was claimed: {claimed}")
    stage.screen.note("Alice's server is killed (SIGKILL), while Bob's agent has a task:")
    await stage.alice.kill()
    answer, _ = await stage.call(
        stage.bob, "tailscale_task_update", action="complete", id="task-2", result="It is out: 1.4.0."
    )
    stage.screen.quote(answer.text)
    expect("offline since" in answer.text, "the member is not told that the lead is offline")

    stage.screen.note("Alice starts her session again:")
    stage.alice = await stage.agent("alice", "shop", TS_ALLOW_FROM="bob@example.com", TS_ENABLE_TEAMS="1")
    await stage.data(stage.alice, "tailscale_team_create", name=TEAM, resume=True)
    with anyio.fail_after(BACK_SECONDS):
        while not await _all_done(stage.alice):  # noqa: ASYNC110 - the member tells the lead by itself, not us
            await anyio.sleep(0.1)
    listed = await _listed(stage, stage.alice, {"task-2": "completed", "task-1": "completed"})
    results = {row["id"]: row["result"] for row in listed["tasks"]}
    stage.screen.facts(results)
    expect(results["task-2"] == "It is out: 1.4.0.", f"the results are {results}")
    return "the lead is back with every task, and Bob's result reached it without another call"


async def _all_done(agent: Agent) -> bool:
    info = (await agent.call("tailscale_team_info", {}, lambda _: None)).data
    return bool(info and info["tasks"]["completed"] == 2)


async def _listed(stage: Stage, agent: Agent, wanted: dict[str, str]) -> dict[str, Any]:
    listed = await stage.data(agent, "tailscale_task_list")
    seen = {row["id"]: row["status"] + _waits(row) for row in listed["tasks"]}
    stage.screen.facts({row["id"]: f"{row['subject']}: {seen[row['id']]}" for row in listed["tasks"]})
    expect(seen == wanted, f"the tasks are {seen}")
    return listed


def _waits(row: dict[str, Any]) -> str:
    return f", waits for {', '.join(row['waits_for'])}" if row.get("waits_for") else ""
