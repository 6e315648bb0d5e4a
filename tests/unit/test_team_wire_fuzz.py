"""A lead on the wire, asked whatever a member's device can send: sound documents, strange ones, and mere bytes."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.agents.wire import Refusal
from cctailscale.documents import MAX_DOCUMENT_BYTES
from cctailscale.teams.wire import CommandRequest, JoinRequest, LeaveRequest, ProofRequest, TeamView
from tests import schemas
from tests.agent import Json
from tests.hosted import TEAM, hosted

POSTED = {
    "/v1/team/command": CommandRequest,
    "/v1/team/join": JoinRequest,
    "/v1/team/leave": LeaveRequest,
    "/v1/team/proof": ProofRequest,
}
# A page of events that waits for its time would take it.
READ = ("/v1/team", "/v1/team/tasks")
FIELDS = ("team", "after", "status", "owner", "cursor", "limit", "priority", "x")
VALUES = st.one_of(st.sampled_from([TEAM, "0", "-1", "1e9", "pending", "member-1", ""]), st.text(max_size=20))

Question = tuple[str, str, bytes | None]


def posted(path: str) -> st.SearchStrategy[Question]:
    """A request with a document of the kind that is wanted there, sound or spoilt, or with any bytes."""
    schema = POSTED[path].model_json_schema()
    names = [*schema["properties"], "unknown"]
    sound = schemas.fitting(schema).map(_of_this_team)
    spoilt = st.builds(lambda one, name, value: {**one, name: value}, sound, st.sampled_from(names), schemas.ANYTHING)
    bodies = st.one_of(
        st.one_of(sound, spoilt).map(lambda one: json.dumps(one).encode()),
        st.binary(max_size=60),
        st.sampled_from([b"", b"{", b"[" * 5000, b'{"team":' * 500, b" " * (MAX_DOCUMENT_BYTES + 1)]),
    )
    return bodies.map(lambda body: ("POST", path, body))


def _of_this_team(document: Json) -> Json:
    return document | {"team": TEAM} if "team" in document else document


asked = st.tuples(
    st.just("GET"),
    st.builds(
        lambda path, query: f"{path}?{'&'.join(f'{name}={quote(value)}' for name, value in query.items())}",
        st.sampled_from(READ), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    ),
    st.none(),
)  # fmt: skip
questions = st.lists(st.one_of(asked, *map(posted, POSTED)), min_size=1, max_size=6)


@given(questions)
def test_whatever_a_member_asks_is_answered_in_form_and_leaves_the_team_sound(
    tmp_path_factory: pytest.TempPathFactory, asked: list[Question]
) -> None:
    errors: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = errors.append  # type: ignore[method-assign]

    async def run() -> None:
        async with hosted(tmp_path_factory.mktemp("host")) as host, host.peer() as peer, host.peer(3) as other:
            await peer.join()
            for question in asked:
                try:
                    status, body = await peer.ask(*question)
                except (EOFError, ConnectionError):  # a body beyond the limit costs the connection
                    break
                assert status < 500, (question, status, body)
                if status != 200:
                    assert Refusal.from_json(body).message.isprintable()
            await other.join()
            view = await other.get(TeamView, "/v1/team")  # others are answered as before
            assert view.you != view.lead
            assert host.lead is not None
            _look_at(host.lead)

    logging.getLogger().addHandler(handler)
    try:
        anyio.run(run)
    finally:
        logging.getLogger().removeHandler(handler)
    assert not errors


def _look_at(lead: Any) -> None:
    team = lead._team
    for task in team.tasks.values():
        assert (task.status == "in_progress") == (task.owner is not None)
        assert set(task.blocked_by) <= team.tasks.keys()
    assert team.facts.lead in team.members
