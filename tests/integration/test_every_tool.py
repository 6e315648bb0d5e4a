"""What holds for every tool: the forms of a host, what is refused, what an outage of control does, units and limits."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from tests.agent import Agent, Json
from tests.conftest import environ_for
from tests.localnet import Localnet

AWAY = "Control does not answer: this is what the node knew when it last did, and may have changed since."
NAMES = ["web", "WEB", "web.", "web.tail1234.ts.net", "Web.Tail1234.ts.net.", "{0}", "{1}", "[{1}]"]
FORMS = "Give a short name (web), a full name (web.tail1234.ts.net), an IPv4 address (100.64.0.1) or an IPv6 address"
# Of each tool that takes a host: the parameter, and what else a call needs.
HOSTS: dict[str, tuple[str, dict[str, Any]]] = {
    "acl_check": ("source", {"port": 80}),
    "cert": ("domain", {}),
    "connect_test": ("host", {"port": 80}),
    "dns_lookup": ("name", {}),
    "fetch": ("url", {}),
    "ping": ("host", {"count": 1}),
    "port_forward": ("host", {"action": "create", "port": 80}),
    "whois": ("address", {}),
}
# And those that take one which is to be an agent's.
ALL_HOSTS = HOSTS | {"team_join": ("lead_hostname", {})}
# What each tool knows while control is away; the others know the peer.
KNOWN = {
    "agents": '"this_agent": true',
    "check_messages": "No new messages.",
    "netcheck": "lo1",
    "port_forward": '"id": "f1"',
}
OTHERS = ("agents", "check_messages", "devices", "netcheck", "send_message", "status")
TEAMS = ("team_create", "team_info", "team_leave", "task_create", "task_list", "task_update")


@pytest.fixture(scope="module")
async def agent(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    environ = environ_for(tailnet, tmp_path_factory.mktemp("agent"))
    async with Agent.started(environ | {"TS_ENABLE_TEAMS": "1"}) as agent:
        yield agent


@pytest.fixture(scope="module")
async def tools(agent: Agent) -> dict[str, Json]:
    return {tool["name"].removeprefix("tailscale_"): tool for tool in (await agent.request("tools/list"))["tools"]}


def arguments(tool: str, host: str) -> dict[str, Any]:
    """A call of `tool` about `host`."""
    parameter, more = ALL_HOSTS[tool]
    if tool == "fetch":
        host = f"http://[{host}]/" if host.count(":") > 1 and not host.startswith("[") else f"http://{host}/"
    return {parameter: host} | more


async def test_each_tool_is_looked_at_here(tools: dict[str, Json]) -> None:
    assert set(tools) == {*ALL_HOSTS, *OTHERS, *TEAMS}


# ---- hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", NAMES)
@pytest.mark.parametrize("tool", HOSTS)
async def test_a_host_is_understood_in_each_form_that_a_person_writes(
    tailnet: Localnet, agent: Agent, tool: str, form: str
) -> None:
    web = tailnet.node("web")
    result = await agent.succeed(f"tailscale_{tool}", **arguments(tool, form.format(*web["addresses"])))
    said = result.text if result.structured is None else json.dumps(result.structured)
    means_web = {
        "acl_check": "web may reach TCP port 80 of this node",
        "cert": f'"subject": "CN={web["name"]}"',
        "connect_test": '"reachable": true',
        "dns_lookup": f'"peer": "{web["name"]}"',
        "fetch": "Hello from web.",
        "ping": f'"name": "{web["name"]}"',
        "port_forward": '"id": "f1"',  # all forms give the same
        "whois": f'"stable_id": "{web["stable_id"]}"',
    }
    assert means_web[tool] in said


@pytest.mark.parametrize(
    "host",
    [
        "a host", " web", "web ", "", ".", "-web", "web!", "x" * 300, "x" * 300 + ".tail1234.ts.net",
        "100.64.0.0/10", "fd7a:115c:a1e0::/48", "fd7a::g",
    ],
)  # fmt: skip
@pytest.mark.parametrize("tool", ALL_HOSTS)
async def test_what_is_no_host_is_refused_with_the_forms_that_are_taken(agent: Agent, tool: str, host: str) -> None:
    text = await agent.fail(f"tailscale_{tool}", **arguments(tool, host))
    url = "Give an http or https URL with a host on the tailnet, such as http://web:8080/health."
    assert FORMS in text or (tool == "fetch" and (url in text or host == "100.64.0.0/10"))  # a URL with the path /10
    assert len(text) < 700


@pytest.mark.parametrize("tool", sorted({*HOSTS} - {"fetch", "whois"}))
async def test_a_host_with_a_port_is_no_host_where_none_belongs_to_it(agent: Agent, tool: str) -> None:
    assert FORMS in await agent.fail(f"tailscale_{tool}", **arguments(tool, "web:80"))


@pytest.mark.parametrize("tool", ALL_HOSTS)
async def test_an_address_of_a_link_is_none_on_the_tailnet(agent: Agent, tool: str) -> None:
    text = await agent.fail(f"tailscale_{tool}", **arguments(tool, "fe80::1%eth0"))
    assert FORMS in text or (tool == "fetch" and "[fe80::1%eth0]:80 is not on the tailnet" in text)


@pytest.mark.parametrize("port", [0, 65536])
@pytest.mark.parametrize("tool", ["acl_check", "connect_test", "fetch", "port_forward", "whois"])
async def test_a_port_that_is_none_is_refused_with_what_is_one(agent: Agent, tool: str, port: int) -> None:
    call = arguments(tool, f"web:{port}" if tool in ("fetch", "whois") else "web")
    text = await agent.fail(f"tailscale_{tool}", **(call | {"port": port} if "port" in call else call))
    wanted = {
        "fetch": r"The URL http://web:\d+/ (has the port 0|cannot be read \(Port out of range 0-65535\))",
        "whois": r"web:\d+ has a port that is no number from 1 to 65535",
    }
    assert re.search(
        wanted.get(tool, "port: input should be (greater than or equal to 1|less than or equal to 65535)"), text
    )


# ---- control is away -------------------------------------------------------------------------------------------------


async def test_while_control_is_away_each_tool_answers_from_what_the_node_knows_and_says_so(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    with own_tailnet.peer("web"):
        async with Agent.started(own_environ) as agent:
            calls = {tool: arguments(tool, "web") for tool in HOSTS}
            calls |= {tool: {} for tool in ("agents", "check_messages", "devices", "netcheck")}
            for tool, call in calls.items():
                assert AWAY not in (await agent.succeed(f"tailscale_{tool}", **call)).text, tool
            own_tailnet.faults(outage=True)
            await noticed(agent)
            for tool, call in calls.items():
                result = await agent.succeed(f"tailscale_{tool}", **call)
                assert AWAY in result.text, tool
                assert result.structured is None or result.structured["notice"] == AWAY, tool
                assert KNOWN.get(tool, "web") in result.text, tool
            with anyio.fail_after(20):
                while not (seen := await agent.status())["problem"]:
                    pass
            assert seen["state"] == "running"
            assert f"The control server {own_tailnet.control_url} gave no answer" in seen["problem"]
            for tool, host in (("whois", "newcomer"), ("fetch", "newcomer"), ("ping", "100.64.0.99")):
                text = await agent.fail(f"tailscale_{tool}", **arguments(tool, host))
                assert text.endswith(AWAY), tool
            assert AWAY not in await agent.fail("tailscale_port_forward", action="close", id="f9")


async def noticed(agent: Agent) -> None:
    """Returns once the node has noticed that control is away, of which no event tells."""
    with anyio.fail_after(15):
        while AWAY not in (await agent.succeed("tailscale_devices")).text:  # noqa: ASYNC110
            await anyio.sleep(0.1)


# ---- units -----------------------------------------------------------------------------------------------------------


def fields_of(schema: Json) -> Iterator[tuple[str, Json]]:
    """Every field of a result, those of its parts included."""
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", {}).items()


def is_a(kind: str, schema: Json) -> bool:
    return kind in json.dumps(schema)


async def test_durations_end_in_ms_sizes_in_bytes_and_times_are_of_rfc_3339(tools: dict[str, Json]) -> None:
    times, counts = set(), set()
    for name, tool in tools.items():
        if name in ("check_messages", "fetch"):
            assert "outputSchema" not in tool  # prose, and what it holds is a peer's
            continue
        for field, schema in fields_of(tool["outputSchema"]):
            assert not re.search(r"_(s|sec|secs|seconds?|minutes?|hours?|us|ns|kb|mb|kib|mib)$", field), field
            if is_a("date-time", schema):
                times.add(field)
            elif is_a("number", schema) or is_a("integer", schema):
                counts.add(field)
    assert times == {
        "as_of", "at", "claimed", "completed", "created", "delivered", "joined", "key_expiry", "last_seen", "not_after",
        "not_before", "since"
    }  # fmt: skip
    assert {field for field in counts if field.endswith("_ms")} == {
        "age_ms", "avg_ms", "connect_ms", "latency_ms", "lease_ms", "max_ms", "min_ms", "ttl_ms", "uptime_ms"
    }  # fmt: skip
    assert {field for field in counts if field.endswith("_bytes")} == {"received_bytes", "sent_bytes"}


async def test_the_time_since_the_join_is_told_in_milliseconds(
    own_tailnet: Localnet, own_environ: dict[str, str]
) -> None:
    async with Agent.started(own_environ) as agent:
        began = anyio.current_time()
        first = (await agent.status())["uptime_ms"]
        await anyio.sleep(0.2)  # what is tested is the passing of time
        passed = (anyio.current_time() - began) * 1000
        assert 200 <= (await agent.status())["uptime_ms"] - first + 1 < passed + 1000


async def test_the_forward_says_who_can_use_it(tools: dict[str, Json]) -> None:
    assert "any local user of this machine can connect to it" in tools["port_forward"]["description"]
