"""A team that is kept here, whatever comes together: retries, cancellations, a store that fails."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from cctailscale.errors import TeamUnusable
from cctailscale.teams.commands import Claim, Complete, Create, Release
from cctailscale.teams.lead import Lead
from cctailscale.teams.model import Change, Team
from tests.leading import CREATE, LEAD, Store, joined, leading, owners

ACTIONS = st.sampled_from(["create", "claim", "complete", "release"])
STEPS = st.lists(
    st.tuples(
        st.integers(1, 3),  # who
        st.integers(1, 4),  # the id: small, so that there are retries
        ACTIONS,
        st.sampled_from(["", "", "", "cancel", "fail", "fail after"]),
        st.integers(0, 6),  # how far before the next begins
    ),
    max_size=25,
)


def _command(action: str, number: int) -> Create | Claim | Complete | Release:
    match action:
        case "create":
            return Create(subject=f"Task {number}")
        case "claim":
            return Claim()
        case "complete":
            return Complete(task=f"task-{number}")
        case _:
            return Release(task=f"task-{number}")


@settings(max_examples=150)
@given(STEPS)
def test_in_any_order_with_retries_cancellations_and_failures_memory_is_what_the_store_has(
    steps: list[tuple[int, int, str, str, int]],
) -> None:
    anyio.run(_together, steps)


async def _together(steps: list[tuple[int, int, str, str, int]]) -> None:
    async with leading() as (lead, store):
        for number in (2, 3):
            await joined(lead, number)
        failing: Iterator[str] = iter([step[3] for step in steps])

        async def before() -> None:
            store.fails = "is on a full disk" if (what := next(failing, "")) == "fail" else ""
            store.after = what  # type: ignore[attr-defined]

        async def after() -> None:
            await anyio.lowlevel.checkpoint()
            if store.after == "fail after":  # type: ignore[attr-defined]
                store.fails = "is on a disk that fails"

        store.before_commit, store.after_commit = before, after  # type: ignore[method-assign]
        answers: dict[tuple[str, int], object] = {}

        async def ask(member: str, action: str, number: int, scope: anyio.CancelScope) -> None:
            with scope:
                try:
                    answer = await lead.command(member, f"id-{number}", _command(action, number))
                except TeamUnusable:
                    return
                if answer.task:
                    assert answers.setdefault((member, number), answer) == answer

        async with anyio.create_task_group() as tasks:
            for who, number, action, what, pause in steps:
                scope = anyio.CancelScope()
                tasks.start_soon(ask, f"member-{who}", action, number, scope)
                for _ in range(pause):
                    await anyio.lowlevel.checkpoint()
                if what == "cancel":
                    scope.cancel()
        await anyio.wait_all_tasks_blocked()
        async with lead._one_at_a_time:  # those whose callers were cancelled have come to their ends
            pass
        store.before_commit = Store.before_commit.__get__(store)  # type: ignore[method-assign]
        store.after_commit = Store.after_commit.__get__(store)  # type: ignore[method-assign]
        store.fails = ""
        final = await lead.command(LEAD, "final", CREATE)
        assert final.task is not None
        await _is_sound(lead, await store.load(), store.commits)


async def _is_sound(lead: Lead, team: Team, commits: list[Change]) -> None:
    assert lead.facts == team.facts
    assert owners(lead) == {task.id: task.owner for task in team.tasks.values()}
    assert all((task.owner is not None) == (task.status == "in_progress") for task in team.tasks.values())
    assert [change.base for change in commits] == [commits[0].base, *(change.facts.version for change in commits[:-1])]
    told = (await lead.events(0, 0)).events
    assert [event.seq for event in told] == list(range(1, team.facts.version + 1))
