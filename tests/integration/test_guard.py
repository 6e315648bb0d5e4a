"""What a fetch cannot reach, whatever it is called and whoever leads there; and that the host's network is not used."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rrset
import pytest

from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet

# The private namespace of the tests has this address beside loopback; it stands for the host's own.
OWN = "10.99.0.1"
LISTENING = ("127.0.0.1", "::1", OWN)

# Address -> what the error calls it.
OUTSIDE = {
    "127.0.0.1": "127.0.0.1",
    "127.8.8.8": "127.8.8.8",
    "::1": "[::1]",
    OWN: OWN,
    "0.0.0.0": "0.0.0.0",
    "::": "[::]",
    "169.254.169.254": "169.254.169.254",
    "fe80::1": "[fe80::1]",
    "fd00:ec2::254": "[fd00:ec2::254]",
    "100.100.100.100": "100.100.100.100",
    "fd7a:115c:a1e0::53": "[fd7a:115c:a1e0::53]",
    "100.99.99.99": "100.99.99.99",
    "192.0.2.1": "192.0.2.1",
    "224.0.0.1": "224.0.0.1",
    "255.255.255.255": "255.255.255.255",
    "::ffff:127.0.0.1": "[::ffff:7f00:1]",
    "::ffff:10.99.0.1": "[::ffff:a63:1]",
    "::127.0.0.1": "[::7f00:1]",
    "64:ff9b::7f00:1": "[64:ff9b::7f00:1]",
    "2002:7f00:1::": "[2002:7f00:1::]",
}
# MagicDNS hands this one out as 127.0.0.1, which is in the list.
NAMED = [address for address in OUTSIDE if address != "::127.0.0.1"]
# What some programs read as 127.0.0.1, 0.0.0.0 or 10.99.0.1.
OTHER_FORMS = (
    "2130706433", "017700000001", "0x7f000001", "127.1", "127.0.1", "0177.0.0.1", "0x7f.0.0.1", "0", "00.0.0.0",
    "174260225", "127.0.0.1.", "127.0.0.01", "\uff11\uff12\uff17.0.0.1", "\u2460\u2461\u2466.0.0.1",
    "127\u30020\u30020\u30021",
)  # fmt: skip
LOCAL_NAMES = ("localhost", "LOCALHOST.", "web.localhost", "localhost.localdomain", "ip6-localhost", "{machine}")


class Trap:
    """An HTTP listener on the host's own addresses; `caught` has every connection that came, by address."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.caught: list[str] = []

    async def take(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.caught.append(writer.get_extra_info("sockname")[0])
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\ncaught")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
async def trap() -> AsyncIterator[Trap]:
    """The listener, after a proof that it takes what comes to each of the addresses."""
    sockets = [socket.create_server(("127.0.0.1", 0))]
    trap = Trap(sockets[0].getsockname()[1])
    sockets.append(socket.create_server(("::1", trap.port), family=socket.AF_INET6))
    try:
        sockets.append(socket.create_server((OWN, trap.port)))
    except OSError:
        pytest.skip(f"there is no private network with the address {OWN}: see CONTRIBUTING.md")
    async with contextlib.AsyncExitStack() as servers:
        for listener in sockets:
            await servers.enter_async_context(await asyncio.start_server(trap.take, sock=listener))
        for address in LISTENING:
            reader, writer = await asyncio.open_connection(address, trap.port)
            assert (await reader.read()).endswith(b"caught")
            writer.close()
        assert trap.caught == list(LISTENING)
        trap.caught.clear()
        yield trap


class Resolver(asyncio.DatagramProtocol):
    """A DNS server that answers every question with 127.0.0.1, by UDP and TCP; `seen` has the names."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        assert self._transport is not None
        self._transport.sendto(self.answer(data), address)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                wire = self.answer(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
                writer.write(len(wire).to_bytes(2) + wire)
                await writer.drain()
        writer.close()

    def answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        for question in query.question:
            self.seen.append(question.name.to_text(omit_final_dot=True))
            if question.rdtype == dns.rdatatype.A:
                reply.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", "127.0.0.1"))
        return reply.to_wire()


class Lair:
    """A mount namespace in which the host's resolver is ours. `command` runs a program there."""

    def __init__(self, resolver: Resolver, resolv_conf: Path) -> None:
        self.resolver = resolver
        self._resolv_conf = resolv_conf

    def command(self, *program: str) -> tuple[str, ...]:
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        return ("unshare", "-m", "sh", "-c", script, str(self._resolv_conf), *program)

    async def proves_itself(self) -> None:
        """Fails unless a program that asks the host's resolver asks ours."""
        program = "import socket; print(socket.getaddrinfo('control.example', 80, socket.AF_INET)[0][4][0])"
        process = await asyncio.create_subprocess_exec(
            *self.command(sys.executable, "-c", program), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, errors = await asyncio.wait_for(process.communicate(), 20)
        if b"unshare" in errors or b"mount" in errors:
            pytest.skip(f"no mount namespace can be had here: {errors.decode()}")
        assert out == b"127.0.0.1\n", errors.decode()
        assert "control.example" in self.resolver.seen


@pytest.fixture(scope="module")
async def lair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lair]:
    resolv_conf = tmp_path_factory.mktemp("lair") / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")
    resolver = Resolver()
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: resolver, local_addr=("127.0.0.1", 53)
        )
    except OSError as error:
        pytest.skip(f"port 53 of 127.0.0.1 cannot be had here ({error}): see CONTRIBUTING.md")
    async with await asyncio.start_server(resolver.take, "127.0.0.1", 53):
        lair = Lair(resolver, resolv_conf)
        await lair.proves_itself()
        resolver.seen.clear()
        yield lair
    transport.close()
    await asyncio.sleep(0)


def name_of(address: str) -> str:
    """The name in the tailnet's DNS that resolves to an address outside."""
    return f"{address.replace('.', '-').replace(':', '-').strip('-')}x.evil.example"


@pytest.fixture(scope="module")
def records(tailnet: Localnet) -> Iterator[None]:
    """Names that an administrator, or an attacker with an administrator's rights, could make."""
    ipv6 = tailnet.node("web")["addresses"][1]
    pairs = [(name_of(address), address) for address in NAMED]
    pairs += [("mixed.evil.example", "127.0.0.1"), ("mixed.evil.example", ipv6)]
    extra = [{"name": name, "type": "AAAA" if ":" in value else "A", "value": value} for name, value in pairs]
    tailnet.admin("PUT", "/dns", {"extra_records": extra})
    yield
    tailnet.admin("PUT", "/dns", {"extra_records": []})


@pytest.fixture(scope="module")
def router(tailnet: Localnet) -> Iterator[dict[str, Any]]:
    """A subnet router whose route is approved."""
    with tailnet.peer("router", "-routes", "10.77.0.0/24") as router:
        tailnet.admin("POST", "/nodes/router/routes", {"approve": ["10.77.0.0/24"]})
        yield router


SERVER = (sys.executable, "-m", "cctailscale")


@pytest.fixture(scope="module")
async def agent(
    tailnet: Localnet, records: None, router: None, lair: Lair, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Agent]:
    environ = environ_for(tailnet, tmp_path_factory.mktemp("agent"))
    async with Agent.started(environ, command=lair.command(*SERVER)) as agent:
        yield agent


@pytest.fixture(scope="module")
async def open_agent(
    tailnet: Localnet, records: None, lair: Lair, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Agent]:
    """An agent that may use the host's network, and no route of the tailnet."""
    environ = environ_for(tailnet, tmp_path_factory.mktemp("open-agent"))
    environ |= {"TS_ALLOW_HOST_NETWORK": "1", "TS_ACCEPT_ROUTES": "0"}
    async with Agent.started(environ, command=lair.command(*SERVER)) as agent:
        yield agent


def refusal(address: str, port: int) -> str:
    return (
        f"{OUTSIDE.get(address, address)}:{port} is not on the tailnet. No peer and no accepted subnet route owns that "
        "address, so nothing was sent. Use a device of the tailnet; for hosts behind a subnet router, have its route "
        "approved."
    )


def literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


# ---- addresses outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", OUTSIDE)
async def test_an_address_outside_is_refused(agent: Agent, trap: Trap, address: str) -> None:
    text = await agent.fail("tailscale_fetch", url=f"http://{literal(address)}:{trap.port}/")
    assert text == refusal(address, trap.port)
    assert trap.caught == []


@pytest.mark.parametrize("address", NAMED)
async def test_a_name_that_leads_outside_is_refused(agent: Agent, trap: Trap, address: str) -> None:
    text = await agent.fail("tailscale_fetch", url=f"http://{name_of(address)}:{trap.port}/")
    assert text == refusal(address, trap.port)
    assert trap.caught == []


@pytest.mark.parametrize("address", NAMED)
async def test_a_redirect_that_leads_outside_is_refused(agent: Agent, trap: Trap, address: str) -> None:
    for host in (literal(address), name_of(address)):
        url = f"http://web/redirect?to=http://{host}:{trap.port}/"
        assert await agent.fail("tailscale_fetch", url=url) == refusal(address, trap.port)
    assert trap.caught == []


@pytest.mark.parametrize("host", OTHER_FORMS)
async def test_another_form_of_an_address_reaches_nothing(agent: Agent, trap: Trap, host: str) -> None:
    for url in (f"http://{host}:{trap.port}/", f"http://web/redirect?to=http://{host}:{trap.port}/"):
        text = await agent.fail("tailscale_fetch", url=url)
        reasons = (
            "neither a name nor an address in its usual form",
            "The tailnet has no name ",
            "http://web/redirect redirects to a name that the tailnet does not have.",
            refusal("127.0.0.1", trap.port),
        )
        assert any(reason in text for reason in reasons), text
    assert trap.caught == []


@pytest.mark.parametrize("host", LOCAL_NAMES)
async def test_this_machine_s_names_are_no_names_of_the_tailnet(agent: Agent, trap: Trap, host: str) -> None:
    host = host.format(machine=socket.gethostname())
    text = await agent.fail("tailscale_fetch", url=f"http://{host}:{trap.port}/")
    assert text.startswith(f"The tailnet has no name {host.lower()}. Only the tailnet's own DNS is asked")
    assert trap.caught == []


async def test_the_node_does_not_reach_itself(tailnet: Localnet, agent: Agent, trap: Trap) -> None:
    status = await agent.status()
    ipv4, ipv6 = status["ips"]
    for host, address in {
        status["hostname"]: ipv4, status["magic_dns_name"]: ipv4, ipv4: ipv4, f"[{ipv6}]": f"[{ipv6}]"
    }.items():  # fmt: skip
        for url in (f"http://{host}:{trap.port}/", f"http://web/redirect?to=http://{host}:{trap.port}/"):
            assert await agent.fail("tailscale_fetch", url=url) == refusal(address, trap.port)
    assert trap.caught == []


async def test_a_zone_of_a_link_does_not_lead_anywhere(agent: Agent) -> None:
    for host in ("[fe80::1%25lo]", "[fe80::1%lo]", "[::1%25lo]"):
        text = await agent.fail("tailscale_fetch", url=f"http://{host}/")
        assert "is not on the tailnet (an address with a zone belongs to one link)." in text


async def test_a_name_with_an_address_inside_and_one_outside_reaches_only_the_one_inside(
    agent: Agent, trap: Trap
) -> None:
    answer = await agent.succeed("tailscale_fetch", url="http://mixed.evil.example:8080/")
    assert "Hello from web." in answer.text
    text = await agent.fail("tailscale_fetch", url=f"http://mixed.evil.example:{trap.port}/")
    assert text == refusal("127.0.0.1", trap.port)
    assert trap.caught == []


@pytest.mark.parametrize("scheme", ["file:///etc/hostname", "ftp://web/", "gopher://web/", "javascript:alert(1)"])
async def test_a_redirect_to_something_that_is_no_http_is_refused(agent: Agent, scheme: str) -> None:
    text = await agent.fail("tailscale_fetch", url=f"http://web/redirect?to={scheme}")
    assert text.startswith("The URL http://web/redirect redirects to something that is no http or https URL.")


# ---- routes ----------------------------------------------------------------------------------------------------------


async def test_a_host_behind_an_accepted_route_is_reached(agent: Agent) -> None:
    for url in ("http://10.77.0.1/", "http://web/redirect?to=http://10.77.0.1/"):
        assert "Hello from 10.77.0.1, behind a router." in (await agent.succeed("tailscale_fetch", url=url)).text
    text = await agent.fail("tailscale_fetch", url="http://10.77.0.1:4242/")
    assert text.startswith("10.77.0.1:4242 refused the connection.")


async def test_a_route_that_is_not_accepted_leads_nowhere(open_agent: Agent, router: dict[str, Any]) -> None:
    status = await open_agent.status()
    assert status["peers_online"] >= 2
    answer = await open_agent.succeed("tailscale_fetch", url="http://router/")
    assert "Hello from router." in answer.text
    # As it may use the host's network, it looks there.
    text = await open_agent.fail("tailscale_fetch", url="http://10.77.0.1/", timeout_seconds=5)
    assert text.startswith("There is no path to 10.77.0.1:80.")


async def test_ts_accept_routes_0_refuses_a_route(tailnet: Localnet, router: dict[str, Any], tmp_path: Path) -> None:
    async with Agent.started(environ_for(tailnet, tmp_path) | {"TS_ACCEPT_ROUTES": "0"}) as agent:
        assert await agent.fail("tailscale_fetch", url="http://10.77.0.1/") == refusal("10.77.0.1", 80)
        assert "Hello from router." in (await agent.succeed("tailscale_fetch", url="http://router/")).text


# ---- the host's network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [address for address in NAMED if address != "192.0.2.1"])
async def test_host_network_still_does_not_open_what_is_this_host_s_own(
    open_agent: Agent, trap: Trap, address: str
) -> None:
    for host in (literal(address), name_of(address)):
        text = await open_agent.fail("tailscale_fetch", url=f"http://{host}:{trap.port}/")
        assert text == refusal(address, trap.port)
    assert trap.caught == []


async def test_host_network_opens_what_is_not(open_agent: Agent) -> None:
    if len(Path("/proc/net/route").read_text().splitlines()) > 1:
        pytest.skip("this network has routes, and the packet would leave")
    # There is no route to it here: the error is the host's network's own, not the guard's.
    text = await open_agent.fail("tailscale_fetch", url="http://192.0.2.1/", timeout_seconds=5)
    assert text.startswith("There is no path to 192.0.2.1:80.")


@pytest.mark.parametrize("which", ["agent", "open_agent"])
async def test_the_host_s_resolver_is_never_asked(
    agent: Agent, open_agent: Agent, lair: Lair, trap: Trap, which: str
) -> None:
    asking = agent if which == "agent" else open_agent
    assert Path(f"/proc/{asking.pid}/root/etc/resolv.conf").read_text() == "nameserver 127.0.0.1\n"
    unknown = ("nobody", "nobody.", "nobody.example.com", "www.example.com.", "localhost", "nobody.tail1234.ts.net")
    for host in unknown:
        for url in (f"http://{host}:{trap.port}/", f"https://{host}/"):
            text = await asking.fail("tailscale_fetch", url=url)
            assert text.startswith(f"The tailnet has no name {host}. Only the tailnet's own DNS is asked")
        text = await asking.fail("tailscale_fetch", url=f"http://web/redirect?to=http://{host}/")
        assert text.startswith("http://web/redirect redirects to a name that the tailnet does not have. Only the")
    assert "Hello from web." in (await asking.succeed("tailscale_fetch", url="http://web/")).text
    await asking.status()
    assert lair.resolver.seen == []
    assert trap.caught == []


# ---- the policy ------------------------------------------------------------------------------------------------------


async def test_a_port_that_the_policy_drops_times_out_with_a_word_about_it_and_works_once_allowed(
    tailnet: Localnet, agent: Agent
) -> None:
    async def until(url: str, wanted: str) -> str:
        """Asks until the peer's new rules show: no event tells when it has them."""
        async with asyncio.timeout(15):
            while True:
                answer = await agent.call("tailscale_fetch", url=url, timeout_seconds=1)
                if wanted in answer.text:
                    return answer.text

    try:
        tailnet.admin("PUT", "/policy", {"rules": [{"src": ["*"], "dst": ["web:80"]}]})
        # TLS with this peer fails, so that no connection is kept that would outlive the rule.
        assert await until("https://web/", "gave no answer") == (
            "https://web/ gave no answer within 1 s (connecting). The device is offline, or the tailnet's access rules "
            "drop the traffic: a drop looks the same. Check that the device is online and that the policy allows this "
            "port; then try again."
        )
        assert "Hello from web." in (await agent.succeed("tailscale_fetch", url="http://web/")).text
    finally:
        tailnet.admin("PUT", "/policy", {})
    assert "self-signed certificate" in await until("https://web/", "No secure connection")
    assert json.dumps(tailnet.admin("GET", "/policy")["rules"]) == "null"
