"""tailscale_dns_lookup, with MagicDNS, extra records and a resolver on the tailnet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet
from tests.scripted import ScriptedPeer

MAGIC_DNS = "MagicDNS (this node)"
ZONE = {
    "A": ["192.0.2.7", "192.0.2.8"],
    "AAAA": ["2001:db8::7"],
    "CNAME": ["other.split.example."],
    "MX": ["10 mail.split.example.", "20 backup.split.example."],
    "NS": ["ns1.split.example."],
    "PTR": ["host.split.example."],
    "SRV": ["0 5 5060 sip.split.example."],
    "TXT": ['"v=spf1 -all"'],
}


async def resolver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers for everything called all.split.example, refuses slow.split.example, and knows no other name."""
    while True:
        query = dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        (question,) = query.question
        reply = dns.message.make_response(query)
        kind = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text()
        if name == "all.split.example.":
            reply.answer.append(dns.rrset.from_text(question.name, 300, "IN", kind, *ZONE[kind]))
        elif name == "broken.split.example.":
            reply.set_rcode(dns.rcode.REFUSED)
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        wire = reply.to_wire()
        writer.write(len(wire).to_bytes(2) + wire)
        await writer.drain()


@pytest.fixture(scope="module")
async def peer(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer.joined(tailnet, "nameserver", tmp_path_factory.mktemp("nameserver")) as peer:
        await peer.serve(53, resolver)
        records = [{"name": "db.corp.example", "type": "A", "value": peer.ipv4}]
        tailnet.admin("PUT", "/dns", {"extra_records": records, "routes": {"split.example": [peer.ipv4]}})
        yield peer
        tailnet.admin("PUT", "/dns", {"extra_records": [], "routes": {}})


@pytest.fixture(scope="module")
async def agent(
    tailnet: Localnet, peer: ScriptedPeer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Agent]:
    async with Agent.started(environ_for(tailnet, tmp_path_factory.mktemp("agent"))) as agent:
        yield agent


async def looked_up(agent: Agent, name: str, kind: str = "A") -> dict[str, Any]:
    structured = (await agent.succeed("tailscale_dns_lookup", name=name, type=kind)).structured
    assert structured is not None
    return structured


@pytest.mark.parametrize("name", ["web", "web.", "WEB", "web.tail1234.ts.net", "web.tail1234.ts.net."])
async def test_a_device_s_name_is_answered_by_magicdns_and_known_as_a_peer(
    tailnet: Localnet, agent: Agent, name: str
) -> None:
    web = tailnet.node("web")
    found = await looked_up(agent, name)
    assert [(record["type"], record["value"]) for record in found["records"]] == [("A", web["addresses"][0])]
    assert found["records"][0]["ttl_ms"] == 5000
    assert (found["outcome"], found["resolver"], found["peer"]) == ("found", MAGIC_DNS, web["name"])
    # MagicDNS keeps a device's IPv6 address to itself where it has an IPv4 one.
    assert (await looked_up(agent, name, "AAAA"))["outcome"] == "no records of this type"


async def test_an_address_is_looked_up_backwards(tailnet: Localnet, agent: Agent) -> None:
    web = tailnet.node("web")
    for address in web["addresses"]:
        found = await looked_up(agent, address)
        assert found["type"] == "PTR"
        assert [record["value"] for record in found["records"]] == [web["name"]]
        assert (found["peer"], found["resolver"]) == (web["name"], MAGIC_DNS)


async def test_an_extra_record_leads_to_a_peer(agent: Agent, peer: ScriptedPeer) -> None:
    found = await looked_up(agent, "db.corp.example")
    assert [record["value"] for record in found["records"]] == [peer.ipv4]
    assert (found["resolver"], found["peer"]) == (MAGIC_DNS, peer.name)


@pytest.mark.parametrize("kind", ZONE)
async def test_a_split_dns_route_s_resolver_is_asked_for_each_kind_of_record(
    agent: Agent, peer: ScriptedPeer, kind: str
) -> None:
    found = await looked_up(agent, "all.split.example", kind)
    wanted = [value.strip('"').removesuffix(".") for value in ZONE[kind]]
    assert sorted(record["value"] for record in found["records"]) == sorted(wanted)
    assert {record["ttl_ms"] for record in found["records"]} == {300_000}
    assert (found["type"], found["outcome"], found["resolver"]) == (kind, "found", peer.ipv4)
    assert "peer" not in found


async def test_a_name_without_an_answer_says_why(agent: Agent, peer: ScriptedPeer) -> None:
    unknown = await looked_up(agent, "nothing.split.example")
    assert (unknown["outcome"], unknown["records"], unknown["resolver"]) == ("no such name", [], peer.ipv4)
    assert (await looked_up(agent, "nobody"))["outcome"] == "no such name"
    public = await looked_up(agent, "example.com", "MX")
    assert (public["outcome"], public["resolver"]) == ("no such name: the tailnet's DNS has no resolver for it", "none")
    assert (await looked_up(agent, "web", "MX"))["outcome"] == "no records of this type"
    assert (await looked_up(agent, "web", "NS"))["outcome"] == "no records of this type"


async def test_a_resolver_that_refuses_is_said_to_do_so(agent: Agent) -> None:
    assert (await looked_up(agent, "broken.split.example"))["outcome"].startswith("no answer: ")


async def test_a_resolver_that_is_offline_is_an_outcome_within_a_bound(tailnet: Localnet, agent: Agent) -> None:
    routes = tailnet.admin("GET", "/dns")["routes"]
    tailnet.admin("PUT", "/dns", {"routes": routes | {"dead.example": ["100.127.0.1"]}})
    try:
        outcome = "no such name"
        with anyio.fail_after(30):
            while outcome.startswith("no such name"):  # until the node has the new route
                found = await looked_up(agent, "x.dead.example")
                outcome = found["outcome"]
        assert outcome.startswith("no answer: ")
        assert found["records"] == []
    finally:
        tailnet.admin("PUT", "/dns", {"routes": routes})


async def test_a_resolver_that_fails_is_not_taken_for_a_name_that_does_not_exist(
    agent: Agent, peer: ScriptedPeer
) -> None:
    failed = f"The name broken.split.example could not be looked up: {peer.ipv4} said REFUSED."
    assert (await agent.fail("tailscale_fetch", url="http://broken.split.example/")).startswith(failed)
    assert (await agent.fail("tailscale_ping", host="broken.split.example")).startswith(failed)
    tried = (await agent.succeed("tailscale_connect_test", host="broken.split.example", port=80)).structured
    assert tried is not None
    assert (tried["reachable"], tried["reason"]) == (False, "no answer from DNS")
    assert tried["explanation"].startswith(failed)
    missing = await agent.fail("tailscale_fetch", url="http://nothing.split.example/")
    assert missing.startswith("The tailnet has no name nothing.split.example.")


async def test_a_resolver_that_says_nothing_is_named_as_what_a_test_waited_for(tailnet: Localnet, agent: Agent) -> None:
    tailnet.admin("POST", "/fake-peers", {"count": 1, "online": True})
    (mute,) = (node for node in tailnet.nodes() if node["fake"])
    routes = tailnet.admin("GET", "/dns")["routes"]
    tailnet.admin("PUT", "/dns", {"routes": routes | {"mute.example": [mute["addresses"][0]]}})
    try:
        reason = "no such name"
        with anyio.fail_after(20):
            while reason == "no such name":  # until the node has the new route
                tried = await agent.succeed("tailscale_connect_test", host="x.mute.example", port=80, timeout_seconds=1)
                assert tried.structured is not None
                reason = tried.structured["reason"]
        assert reason == "timed out"
        explanation = tried.structured["explanation"]
        assert explanation.startswith("x.mute.example:80 gave no answer within 1 s (looking the name up).")
        assert "Check that the resolver is online (tailscale_dns_lookup names it)" in explanation
        text = await agent.fail("tailscale_fetch", url="http://x.mute.example/", timeout_seconds=1)
        assert "http://x.mute.example/ gave no answer within 1 s (looking the name up)." in text
    finally:
        tailnet.admin("PUT", "/dns", {"routes": routes})
        tailnet.admin("DELETE", "/fake-peers")


async def test_an_unknown_type_of_record_is_refused_with_those_that_are_known(agent: Agent) -> None:
    known = "type: input should be 'a', 'aaaa', 'cname', 'mx', 'ns', 'ptr', 'srv' or 'txt'"
    assert known in await agent.fail("tailscale_dns_lookup", name="web", type="AXFR")
