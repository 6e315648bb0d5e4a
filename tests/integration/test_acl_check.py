"""tailscale_acl_check: this node's packet filter, as the local tailnet's policy makes it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet

OTHER_END = "the rules at the other end: tailscale_connect_test finds that out."


@pytest.fixture(scope="module")
async def agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


@pytest.fixture(scope="module")
async def policy(tailnet: Localnet, agent: Agent) -> AsyncIterator[dict[str, Any]]:
    """A policy with a tag, a port, a protocol and a capability; gives the peer "ci-1", which has the tag."""
    me = (await agent.status())["magic_dns_name"]
    rules = [
        {"src": ["web"], "dst": [f"{me}:80-90,443"], "proto": [6]},
        {"src": ["tag:ci"], "dst": [f"{me}:22"]},
        {"src": ["ci-1"], "dst": [f"{me}:5432"]},
    ]
    grants = [{"src": ["web"], "dst": [me], "app": {"example.com/cap/deploy": [{}]}}]
    tagged = tailnet.key(tags=["tag:ci"], reusable=True)
    with tailnet.peer("ci-1", key=tagged) as peer, tailnet.peer("ci-2", key=tagged):
        tailnet.admin("PUT", "/policy", {"rules": rules, "grants": grants})
        await checked_until(agent, lambda found: found["rules_total"] == 4)
        yield peer
    tailnet.admin("PUT", "/policy", {})


async def checked(agent: Agent, **arguments: Any) -> dict[str, Any]:
    structured = (await agent.succeed("tailscale_acl_check", **arguments)).structured
    assert structured is not None
    return structured


async def checked_until(agent: Agent, right: Callable[[dict[str, Any]], bool], **arguments: Any) -> dict[str, Any]:
    """Asks until the answer is right: a change of the rules raises no event at the node."""
    with anyio.fail_after(5):
        while True:
            found = await checked(agent, **arguments)
            if right(found):
                return found
            await anyio.sleep(0.02)


async def test_without_a_question_the_rules_stand_in_words(agent: Agent, policy: dict[str, Any]) -> None:
    found = await checked(agent)
    assert found["allowed"] is None
    sentences = {rule.partition(". ")[2] for rule in found["rules"]}
    assert sentences == {
        "web may reach TCP ports 80-90 of this node and port 443 of this node.",
        "ci-1 and ci-2 may reach port 22 of this node.",
        "ci-1 may reach port 5432 of this node.",
        "web has here the app capabilities example.com/cap/deploy.",
    }
    assert found["explanation"].endswith(OTHER_END)


async def test_of_hundreds_of_rules_as_many_are_shown_as_claude_reads_and_the_rest_is_counted(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    own_tailnet.admin("POST", "/fake-peers", {"count": 20})
    async with Agent.started(own_environ) as agent:
        me = (await agent.status())["magic_dns_name"]
        sources = [node["hostname"] for node in own_tailnet.nodes()]
        rules = [
            {"src": sources, "dst": [f"{me}:{','.join(str(number + 1000 * part) for part in range(1, 20))}"]}
            for number in range(300)
        ]
        own_tailnet.admin("PUT", "/policy", {"rules": rules})
        found = await checked_until(agent, lambda found: found["rules_total"] == 300)
        shown = len(found["rules"])
        assert 20 < shown <= 50
        assert f" {300 - shown} more rules are about it than are shown. " in found["explanation"]
        assert len(json.dumps(found)) < 4 * 10_000  # Claude Code warns at 10,000 tokens


@pytest.mark.parametrize("form", ["web", "web.", "WEB", "web.tail1234.ts.net", "web.tail1234.ts.net.", "{0}", "{1}"])
async def test_who_may_reach_a_port_may_by_a_rule_in_each_form_of_its_name(
    tailnet: Localnet, agent: Agent, policy: dict[str, Any], form: str
) -> None:
    source = form.format(*tailnet.node("web")["addresses"])
    found = await checked(agent, source=source, port=85)
    assert found["allowed"] is True
    assert found["explanation"].startswith("web may reach TCP port 85 of this node, by rule ")
    (rule,) = found["rules"]
    assert rule.endswith("web may reach TCP ports 80-90 of this node and port 443 of this node.")
    assert f"by rule {rule.partition('.')[0]};" in found["explanation"]


@pytest.mark.parametrize(
    ("source", "port", "protocol", "allowed"),
    [
        ("web", 443, "tcp", True),
        ("web", 443, "udp", False),
        ("web", 91, "tcp", False),
        ("web", 22, "tcp", False),
        ("ci-1", 22, "udp", True),
        ("ci-1", 5432, "tcp", True),
        ("ci-2", 5432, "tcp", False),
        ("ci-2", None, "icmp", True),
        ("tag:ci", 22, "tcp", True),
        ("tag:ci", 5432, "tcp", False),
        ("8.8.8.8", 22, "tcp", False),
        ("8.8.8.8", None, "icmp", False),
    ],
)
async def test_a_decision_follows_the_rules(
    agent: Agent, policy: dict[str, Any], source: str, port: int | None, protocol: str, allowed: bool
) -> None:
    found = await checked(agent, source=source, protocol=protocol, **({"port": port} if port else {}))
    assert found["allowed"] is allowed, found["explanation"]


async def test_of_a_tag_those_who_may_are_told_from_those_who_may_not(agent: Agent, policy: dict[str, Any]) -> None:
    text = (await checked(agent, source="tag:ci", port=5432))["explanation"]
    assert text.startswith("Not all may reach TCP port 5432 of this node: ci-1 may, by rule ")
    assert "; not ci-2: it is dropped in silence, which looks like a time-out." in text


async def test_a_tag_that_no_device_has_is_no_decision(agent: Agent, policy: dict[str, Any]) -> None:
    found = await checked(agent, source="tag:none", port=22)
    assert (found["allowed"], found["rules"]) == (None, [])
    assert found["explanation"].startswith("No device that this node knows has tag:none.")


async def test_a_change_of_the_policy_changes_the_decision(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    with own_tailnet.peer("web"):
        async with Agent.started(own_environ) as agent:
            assert (await checked(agent, source="web", port=80))["allowed"] is True
            own_tailnet.admin("PUT", "/policy", {"rules": []})
            found = await checked_until(agent, lambda found: not found["allowed"], source="web", port=80)
            assert (found["rules"], found["rules_total"]) == ([], 0)
            assert found["explanation"].startswith("No rule lets web reach TCP port 80 of this node: it is dropped")


async def test_the_decision_is_what_the_filter_does(own_tailnet: Localnet, own_environ: dict[str, str]) -> None:
    """The policy of a peer is asked here as if it were this node's, and then tried."""
    own_tailnet.admin("PUT", "/policy", {"rules": [{"src": ["*"], "dst": ["*:80", "*:7"]}]})
    with own_tailnet.peer("web"):
        async with Agent.started(own_environ) as agent:
            for port in (80, 7, 8080):
                allowed = (await checked(agent, source="web", port=port))["allowed"]
                tried = await agent.succeed("tailscale_connect_test", host="web", port=port, timeout_seconds=1)
                assert tried.structured is not None
                assert tried.structured["reachable"] is allowed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"source": "nobody", "port": 80}, "The tailnet has no name nobody."),
        ({"protocol": "sctp"}, "protocol: input should be 'tcp', 'udp' or 'icmp'"),
    ],
)
async def test_wrong_arguments_are_refused_with_what_is_right(
    agent: Agent, arguments: dict[str, Any], reason: str
) -> None:
    assert reason in await agent.fail("tailscale_acl_check", **arguments)
