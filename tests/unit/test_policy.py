"""Who may talk to this agent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cctailscale.agents.policy import Action, Policy, Principal, Refused, principal
from cctailscale.agents.refusals import MAX_PEERS, Refusals
from cctailscale.agents.wire import CAPABILITY, Refusal
from cctailscale.tailnet.models import WhoIs

CLOSED = Policy()
ALICE = Principal("n1", "cc-alice-app-1a2b.tail1234.ts.net", "alice@example.com")
BOB = Principal("n2", "cc-bob-app-3c4d.tail1234.ts.net", "bob@example.com")
ROBOT = Principal("n3", "robot.tail1234.ts.net", None, ("tag:ci",))
# The first label of ALICE's other device, in another tailnet.
STRANGER = Principal("n9", "web.tail9999.ts.net", "mallory@example.net")

ACTIONS: tuple[Action, ...] = ("message", "team")
TAGS = ("tag:agent", "tag:ci", "tag:prod")
LOGINS = ("alice@example.com", "bob@example.com", "mallory@example.net")

actions = st.sampled_from(ACTIONS)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(ACTIONS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["allow", "x"]), inner, max_size=2),
    max_leaves=6,
)


@st.composite
def principals(draw: st.DrawFn) -> Principal:
    """Any that WhoIs can give: a device has an owner or tags, never both."""
    tags = tuple(draw(st.lists(st.sampled_from(TAGS), unique=True, max_size=2)))
    login = None if tags else draw(st.sampled_from(LOGINS) | st.none())
    name = draw(st.sampled_from(["a.tail1234.ts.net", "b.tail1234.ts.net", "a.tail9999.ts.net", "a", ""]))
    return Principal(draw(st.sampled_from(["n1", "n2", "n3"])), name, login, tags)


allow_lists = st.lists(
    st.sampled_from([*TAGS, *LOGINS, "a", "b", "a.tail1234.ts.net", "carol@", "*"]), max_size=3, unique=True
).map(tuple)


def allowed(me: Principal, peer: Principal, *entries: str, action: Action = "message") -> bool:
    return Policy(entries).decide(me, peer, action) is None


def granting(*values: Any) -> dict[str, list[Any]]:
    return {CAPABILITY: list(values)}


def who(login: str = "bob@example.com", tags: list[str] | None = None, capabilities: Any = None) -> WhoIs:
    """As LocalAPI writes it: a device with tags has a pseudo-user; what is empty is left out or null."""
    node = {"StableID": "n2", "Name": "cc-bob-app-3c4d.tail1234.ts.net.", "Tags": tags}
    answer = {"Node": node, "UserProfile": {"ID": 7, "LoginName": login}, "CapMap": capabilities}
    return WhoIs.model_validate_json(json.dumps(answer))


# ---- who somebody is


def test_an_untagged_device_acts_for_its_owner() -> None:
    assert principal(who()) == BOB


def test_a_device_with_tags_acts_for_nobody_whoever_made_it() -> None:
    for login in ("tagged-devices", "bob@example.com"):
        assert principal(who(login, ["tag:ci"])) == Principal("n2", BOB.name, None, ("tag:ci",))


@pytest.mark.parametrize("login", ["", "tagged-devices", "Tagged-Devices"])
def test_a_user_without_a_name_and_the_pseudo_user_are_nobody(login: str) -> None:
    assert principal(who(login)).login is None


def test_what_the_policy_of_the_tailnet_grants_is_part_of_who_somebody_is() -> None:
    found = principal(who(capabilities={CAPABILITY: [{"allow": ["team"]}], "example.com/cap/other": None}))
    assert found.capabilities == {CAPABILITY: [{"allow": ["team"]}], "example.com/cap/other": []}


# ---- each rule


def test_devices_of_one_owner_may_talk() -> None:
    assert allowed(ALICE, replace(ALICE, node_id="n5", name="laptop.tail1234.ts.net"))
    assert allowed(ALICE, replace(ALICE, login="Alice@Example.COM"))


def test_devices_of_two_owners_may_not() -> None:
    assert not allowed(ALICE, BOB)
    assert not allowed(ALICE, STRANGER)


def test_a_shared_in_user_is_the_owner_if_whois_says_so_in_whichever_tailnet() -> None:
    assert allowed(ALICE, Principal("n8", "laptop.tail9999.ts.net", "alice@example.com"))


@pytest.mark.parametrize(
    "look_alike", ["al\u0131ce@example.com", "\u0430lice@example.com", "AL\u0130CE@example.com", "alice@example.com "]
)
def test_a_login_that_only_looks_the_same_is_another(look_alike: str) -> None:
    assert not allowed(ALICE, replace(BOB, login=look_alike))
    assert not allowed(replace(ALICE, login="kate@example.com"), replace(BOB, login="\u212aate@example.com"))
    assert not allowed(replace(ALICE, login="strasse@example.com"), replace(BOB, login="stra\u00dfe@example.com"))


def test_two_devices_of_nobody_have_no_owner_in_common() -> None:
    for nobody in (None, ""):
        assert not allowed(replace(ALICE, login=nobody), replace(BOB, login=nobody))


def test_devices_that_share_a_tag_may_talk() -> None:
    me = replace(ALICE, login=None, tags=("tag:agent", "tag:ci"))
    assert allowed(me, ROBOT)
    assert not allowed(me, replace(ROBOT, tags=("tag:prod",)))
    assert not allowed(me, replace(ROBOT, tags=("tag:CI",)))  # tags are exact


def test_a_tag_of_another_tailnet_is_another_tag() -> None:
    me = replace(ROBOT, node_id="n4", name="cc-ci-app-1a2b.tail1234.ts.net")
    stranger = replace(ROBOT, name="robot.tail9999.ts.net")
    assert not allowed(me, stranger)
    assert not allowed(ALICE, stranger, "tag:ci")
    assert not allowed(me, replace(ROBOT, name=""))
    assert not allowed(replace(me, name=""), replace(ROBOT, name=""))


def test_tags_count_where_names_have_no_suffix_at_all() -> None:
    me = Principal("n4", "one", None, ("tag:ci",))  # a control server without a base domain
    assert allowed(me, Principal("n5", "two", None, ("tag:ci",)))


def test_a_tagged_device_and_its_maker_may_not_talk_in_either_direction() -> None:
    made_by_alice = replace(principal(who("alice@example.com", ["tag:ci"])), node_id="n3")
    assert not allowed(ALICE, made_by_alice)
    assert not allowed(made_by_alice, ALICE)


@pytest.mark.parametrize(
    ("entry", "peer"),
    [
        ("bob@example.com", BOB),
        ("BOB@Example.com", BOB),
        ("tag:ci", ROBOT),
        ("robot", ROBOT),
        ("ROBOT", ROBOT),
        ("robot.tail1234.ts.net", ROBOT),
        ("Robot.Tail1234.ts.net", ROBOT),
        ("web.tail9999.ts.net", STRANGER),
        ("mallory@example.net", STRANGER),
        ("bob@", replace(BOB, login="bob")),
        ("bob@", replace(BOB, login="bob@")),
        ("*", BOB),
        ("*", ROBOT),
        ("*", STRANGER),
    ],
)
def test_ts_allow_from_names_logins_tags_and_devices(entry: str, peer: Principal) -> None:
    assert allowed(ALICE, peer, entry)
    assert allowed(ALICE, peer, "nobody@example.com", entry)
    assert not allowed(ALICE, peer)


@pytest.mark.parametrize(
    ("entry", "peer"),
    [
        ("bob@example.com", replace(ROBOT, login="bob@example.com")),  # no principal() makes one; no rule believes it
        ("bob@example.com", replace(BOB, login="bob@example.community")),
        ("bob@", BOB),
        ("bob", replace(BOB, login="bob")),  # a login is not the name of a device
        ("tag:ci", replace(ROBOT, tags=("tag:CI", "tag:ci-2"))),
        ("robot", BOB),
        ("robot", replace(ROBOT, name="robot-1.tail1234.ts.net")),
        ("robot", replace(ROBOT, name="robot.tail9999.ts.net")),  # another tailnet's, shared with us
        ("robot", replace(ROBOT, name="robot.sub.tail1234.ts.net")),
        ("robot.tail1234.ts.net", replace(ROBOT, name="robot.tail9999.ts.net")),
        ("robot.tail1234.ts.net", replace(ROBOT, name="robot")),
        ("web", replace(STRANGER, name="")),
        ("", replace(STRANGER, name="")),
        ("tagged-devices", ROBOT),
        ("tagged-devices", replace(BOB, login="tagged-devices")),
    ],
)
def test_ts_allow_from_names_nobody_else(entry: str, peer: Principal) -> None:
    assert not allowed(ALICE, peer, entry)


@pytest.mark.parametrize("peer", [BOB, ROBOT, STRANGER])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_app_capability_grants_the_actions_that_it_lists(peer: Principal, action: Action) -> None:
    other = ACTIONS[1 - ACTIONS.index(action)]
    granted = replace(peer, capabilities=granting({"allow": ["x"]}, {"allow": [action], "later": 1}))
    assert allowed(ALICE, granted, action=action)
    assert not allowed(ALICE, granted, action=other)
    assert allowed(ALICE, replace(peer, capabilities=granting({"allow": list(ACTIONS)})), action=other)


@pytest.mark.parametrize(
    "capabilities",
    [
        {},
        granting(),
        granting(None),
        granting("message"),
        granting({}),
        granting({"allow": None}),
        granting({"allow": "message"}),
        granting({"allow": {"message": True}}),
        granting({"allow": []}),
        granting({"allow": [["message"], {"message": 1}, True, None]}),
        granting({"allow": ["Message", "messages", "*", ""]}),
        granting({"Allow": ["message"]}),
        granting(["message"]),
        granting({"deny": ["message"]}),
        {CAPABILITY + "s": [{"allow": ["message"]}]},
        {"example.com/cap/agent": [{"allow": ["message"]}]},
    ],
)
def test_a_capability_of_another_form_grants_nothing(capabilities: dict[str, list[Any]]) -> None:
    assert not allowed(ALICE, replace(BOB, capabilities=capabilities))


def test_what_is_granted_to_this_node_opens_nothing_here() -> None:
    assert not allowed(replace(ALICE, capabilities=granting({"allow": ["message"]})), BOB)


def test_a_peer_without_an_id_is_nobody() -> None:
    unknown = replace(ALICE, node_id="", capabilities=granting({"allow": ["message"]}))
    refused = Policy(("*",)).decide(ALICE, unknown, "message")
    assert refused is not None
    assert "could not be identified" in refused.reason


# ---- what holds for all


def permitted_by_a_rule(me: Principal, peer: Principal, entries: tuple[str, ...]) -> bool:
    """The rules once more, written the other way round: what a peer is called by, and what is called here."""
    home = me.name.partition(".")[2] if me.name else None
    local = bool(peer.name) and peer.name.partition(".")[2] == home
    calls = {"*", f"login {peer.login}" if peer.login else "*", f"full {peer.name}"}
    if local:
        calls |= {f"tag {tag}" for tag in peer.tags} | {f"short {peer.name.partition('.')[0]}"}
    welcome = {f"tag {tag}" for tag in me.tags} | ({f"login {me.login}"} if me.login else set())
    for entry in entries:
        kind = "tag" if entry in TAGS else "login" if "@" in entry else "full" if "." in entry else "short"
        welcome.add("*" if entry == "*" else f"{kind} {entry}")
    return bool(calls & welcome)


@given(principals(), principals(), allow_lists, actions)
def test_it_is_closed_unless_a_rule_opens_it(
    me: Principal, peer: Principal, entries: tuple[str, ...], action: Action
) -> None:
    assert allowed(me, peer, *entries, action=action) == permitted_by_a_rule(me, peer, entries)


@given(principals(), principals(), allow_lists, actions)
def test_no_rule_comes_from_the_login_of_a_tagged_device(
    me: Principal, peer: Principal, entries: tuple[str, ...], action: Action
) -> None:
    if peer.tags:
        for login in LOGINS:
            claimed = replace(peer, login=login)
            assert allowed(me, claimed, *entries, action=action) == allowed(me, peer, *entries, action=action)
    if me.tags:
        for login in LOGINS:
            claimed = replace(me, login=login)
            assert allowed(claimed, peer, *entries, action=action) == allowed(me, peer, *entries, action=action)


@given(principals(), principals(), allow_lists, allow_lists, actions)
def test_an_entry_more_never_takes_anything_away(
    me: Principal, peer: Principal, entries: tuple[str, ...], more: tuple[str, ...], action: Action
) -> None:
    if allowed(me, peer, *entries, action=action):
        assert allowed(me, peer, *entries, *more, action=action)


@given(principals(), principals(), allow_lists, st.lists(json_values, max_size=3), actions)
@example(ALICE, BOB, (), [{"allow": ["team"]}], "message")
def test_a_capability_opens_its_own_actions_and_closes_none(
    me: Principal, peer: Principal, entries: tuple[str, ...], values: list[Any], action: Action
) -> None:
    granted = replace(peer, capabilities=granting(*values))
    listed = any(
        isinstance(value, dict) and isinstance(value.get("allow"), list) and action in value["allow"]
        for value in values
    )
    assert allowed(me, granted, *entries, action=action) == (listed or allowed(me, peer, *entries, action=action))


@given(principals(), principals(), st.sampled_from(TAGS), actions)
def test_a_tag_that_this_node_has_not_opens_nothing(me: Principal, peer: Principal, tag: str, action: Action) -> None:
    if tag not in me.tags and not allowed(me, peer, action=action):
        assert not allowed(me, replace(peer, login=None, tags=(*peer.tags, tag)), action=action)


# ---- what the refused one is told


@pytest.mark.parametrize(
    ("peer", "entry"),
    [
        (BOB, "bob@example.com"),
        (ROBOT, "tag:ci"),
        (replace(BOB, login="bob"), "bob@"),
        (replace(BOB, login=None), BOB.name),
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_refusal_says_what_to_add_and_adding_it_opens(peer: Principal, entry: str, action: Action) -> None:
    refused = CLOSED.decide(ALICE, peer, action)
    assert refused is not None
    assert peer.name in refused.reason
    assert f"TS_ALLOW_FROM={entry}," in refused.to_add
    assert f'{CAPABILITY} with [{{"allow": ["{action}"]}}].' in refused.to_add
    assert allowed(ALICE, peer, entry, action=action)


@given(st.text(), st.text() | st.none(), st.lists(st.text(min_size=1), max_size=40), actions)
@example("x" * 300, None, ["tag:" + "y" * 300] * 9, "team")
def test_a_refusal_fits_into_the_answer_whatever_names_are(
    name: str, login: str | None, tags: list[str], action: Action
) -> None:
    refused = CLOSED.decide(ALICE, Principal("n7", name, login, tuple(tags)), action)
    if refused is not None:
        Refusal(error="not_allowed", message=str(refused)).to_json()


# ---- who was refused


def note(refusals: Refusals, peer: Principal) -> Refused:
    refused = CLOSED.decide(ALICE, peer, "message")
    assert refused is not None
    refusals.note(peer, refused)
    return refused


def test_refusals_are_counted_and_each_peer_has_one_line() -> None:
    refusals = Refusals()
    assert (refusals.count, refusals.peers) == (0, [])
    for peer in (BOB, ROBOT, BOB):
        note(refusals, peer)
    assert refusals.count == 3
    assert [(line.peer, line.count) for line in refusals.peers] == [(BOB, 2), (ROBOT, 1)]
    assert refusals.peers[1].refused == CLOSED.decide(ALICE, ROBOT, "message")


def test_of_very_many_refused_peers_the_latest_are_remembered() -> None:
    refusals = Refusals()
    for number in range(3 * MAX_PEERS):
        note(refusals, replace(BOB, node_id=f"n{number}"))
    assert refusals.count == 3 * MAX_PEERS
    assert [line.peer.node_id for line in refusals.peers] == [f"n{3 * MAX_PEERS - 1 - i}" for i in range(MAX_PEERS)]
