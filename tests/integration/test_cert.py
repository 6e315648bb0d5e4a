"""tailscale_cert: this node's certificate from an authority on loopback, and those of other hosts."""

from __future__ import annotations

import asyncio
import ssl
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.acme import DAYS, ISSUER, Authority
from tests.agent import Agent
from tests.conftest import environ_for
from tests.localnet import Localnet
from tests.scripted import ScriptedPeer

# Where no authority may be asked: nothing listens there, whatever the node tries.
NOWHERE = "http://127.0.0.1:1/directory"


@pytest.fixture
async def authority(tailnet: Localnet) -> AsyncIterator[Authority]:
    async with Authority.started(tailnet) as authority:
        yield authority


@pytest.fixture
async def agent(tailnet: Localnet, authority: Authority, tmp_path: Path) -> AsyncIterator[Agent]:
    environ = environ_for(tailnet, tmp_path) | {"TS_DEBUG_ACME_DIRECTORY_URL": authority.directory}
    async with Agent.started(environ) as agent:
        yield agent


@pytest.fixture(scope="module")
async def other(tailnet: Localnet, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    """An agent for what needs no authority."""
    environ = environ_for(tailnet, tmp_path_factory.mktemp("agent")) | {"TS_DEBUG_ACME_DIRECTORY_URL": NOWHERE}
    async with Agent.started(environ) as agent:
        yield agent


@pytest.fixture
def without_https(tailnet: Localnet) -> Iterator[None]:
    tailnet.admin("PUT", "/settings", {"https": False})
    yield
    tailnet.admin("PUT", "/settings", {"https": True})


async def seen(agent: Agent, **arguments: Any) -> dict[str, Any]:
    structured = (await agent.succeed("tailscale_cert", **arguments)).structured
    assert structured is not None
    return structured


# ---- this node's own -------------------------------------------------------------------------------------------------


async def test_this_node_gets_a_certificate_and_keeps_it(agent: Agent, authority: Authority) -> None:
    me = (await agent.status())["magic_dns_name"]
    result = await agent.succeed("tailscale_cert")
    found = result.structured
    assert found is not None
    assert (found["host"], found["served_by"], found["names"]) == (me, "this node", [me])
    assert (found["issuer"], found["key_type"], found["days_left"]) == (f"CN={ISSUER}", "ECDSA secp256r1", DAYS - 1)
    lifetime = datetime.fromisoformat(found["not_after"]) - datetime.fromisoformat(found["not_before"])
    assert lifetime == timedelta(days=DAYS, hours=1)
    assert datetime.fromisoformat(found["not_before"]) < datetime.now(UTC)
    assert f"Getting the certificate for {me}" in result.progress
    assert "saved" not in found
    assert "PRIVATE" not in result.text
    for form in (me, me.partition(".")[0], f"{me}."):
        assert await seen(agent, domain=form) == found
    assert authority.issued == 1


async def test_save_to_writes_chain_and_key_that_belong_together(
    agent: Agent, authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "project" / "tls"
    folder.mkdir()
    result = await agent.succeed("tailscale_cert", save_to="tls/web.crt")
    assert result.structured is not None
    assert result.structured["saved"] == ["tls/web.crt", "tls/web.key"]
    assert "PRIVATE" not in result.text
    assert sorted(path.name for path in folder.iterdir()) == ["web.crt", "web.key"]
    assert stat.S_IMODE((folder / "web.key").stat().st_mode) == 0o600
    key = serialization.load_pem_private_key((folder / "web.key").read_bytes(), None)
    chain = x509.load_pem_x509_certificate((folder / "web.crt").read_bytes())
    assert key.public_key() == chain.public_key()
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(folder / "web.crt", folder / "web.key")


async def test_no_place_outside_of_the_project_or_taken_is_written_to_and_no_certificate_is_asked_for(
    agent: Agent, authority: Authority, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    (project / ".git").mkdir()
    (project / "link").symlink_to(tmp_path)
    (project / "taken.crt").write_text("mine")
    (project / "taken-key.key").write_text("mine")
    before = sorted(path.name for path in project.iterdir())
    for save_to, problem in {
        "../web.crt": "../web.crt leads upwards (..).",
        "/etc/web.crt": "/etc/web.crt lies outside of the project's folder",
        ".git/web.crt": ".git/web.crt has a part that begins with a dot.",
        "link/web.crt": "link/web.crt leads through link, which is a symbolic link.",
        "none/web.crt": "none/web.crt leads through none, which does not exist.",
        "taken.crt": "taken.crt is there already",
        "taken-key.crt": "taken-key.key is there already",
    }.items():
        assert problem in await agent.fail("tailscale_cert", save_to=save_to)
        assert sorted(path.name for path in project.iterdir()) == before
    assert {(project / name).read_text() for name in ("taken.crt", "taken-key.key")} == {"mine"}
    assert not (tmp_path / "web.crt").exists()
    assert authority.issued == 0


async def test_where_https_is_not_enabled_the_error_names_the_admin_s_step(other: Agent, without_https: None) -> None:
    text = ""
    with anyio.fail_after(10):
        while "HTTPS is not enabled" not in text:  # the node learns of the setting a moment later
            text = await other.fail("tailscale_cert")
    me = (await other.status())["magic_dns_name"]
    assert text.startswith(f"There is no certificate for {me}: HTTPS is not enabled for this tailnet.")
    assert "An admin opens https://login.tailscale.com/admin/dns, turns on MagicDNS and then, under HTTPS" in text


async def test_a_refusal_of_the_authority_is_told(agent: Agent, authority: Authority) -> None:
    authority.refusal = (403, "rejectedIdentifier", "this name is on a list")
    text = await agent.fail("tailscale_cert")
    assert "this name is on a list" in text
    assert "proves its name through control" in text


async def test_a_cancelled_wait_for_the_authority_ends_there_too(agent: Agent, authority: Authority) -> None:
    authority.answering.clear()
    number, answer = agent.begin("tools/call", {"name": "tailscale_cert", "arguments": {}})
    with anyio.fail_after(10):
        await authority.waiting.wait()
        await agent.cancel(number)
        await authority.left.wait()
    authority.answering.set()
    assert (await seen(agent))["issuer"] == f"CN={ISSUER}"
    answer.cancel()


IMPATIENT = """
import os
from cctailscale.app import run
from cctailscale.tailnet import certificate
from cctailscale.tools import checks
assert checks.CERTIFICATE_SECONDS == 45
certificate.TELL_SECONDS, checks.CERTIFICATE_SECONDS = 1, 1.5
run(os.environ)
"""


async def test_an_authority_that_does_not_answer_is_waited_for_with_progress_and_not_for_ever(
    tailnet: Localnet, authority: Authority, tmp_path: Path
) -> None:
    environ = environ_for(tailnet, tmp_path) | {"TS_DEBUG_ACME_DIRECTORY_URL": authority.directory}
    authority.answering.clear()
    async with Agent.started(environ, command=(sys.executable, "-c", IMPATIENT)) as agent:
        await agent.status()
        result = await agent.call("tailscale_cert", seconds=10, save_to="web.crt")
        assert result.is_error
        assert "the certificate authority did not finish within 1.5 s." in result.text
        assert "Waiting for the certificate authority (1 s)" in result.progress
        assert list((tmp_path / "project").iterdir()) == []
    authority.answering.set()


# ---- other hosts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["web", "web.", "web.tail1234.ts.net", "{0}", "{1}"])
async def test_another_host_s_certificate_is_read_from_its_port_443(tailnet: Localnet, other: Agent, form: str) -> None:
    web = tailnet.node("web")
    host = form.format(*web["addresses"])
    found = await seen(other, domain=host)
    assert found["served_by"] == (f"[{host}]:443" if ":" in host else f"{host.rstrip('.')}:443")
    assert found["names"] == [web["name"], "web"]
    assert (found["subject"], found["issuer"]) == (f"CN={web['name']}", f"CN={web['name']}")
    assert (found["trusted"], found["problem"]) == (False, "self-signed certificate")
    assert found["days_left"] == 0


async def test_another_host_s_key_is_not_to_be_had(other: Agent) -> None:
    text = await other.fail("tailscale_cert", domain="web", save_to="web.crt")
    assert text.startswith("There is no certificate for web: only this node's own certificate can be saved.")


async def test_a_host_that_is_not_on_the_tailnet_is_not_asked(other: Agent) -> None:
    assert (await other.fail("tailscale_cert", domain="8.8.8.8")).startswith("8.8.8.8:443 is not on the tailnet.")


async def test_a_host_with_nothing_on_its_port_says_so(tailnet: Localnet, other: Agent, tmp_path: Path) -> None:
    async with ScriptedPeer.joined(tailnet, "plain", tmp_path) as peer:
        text = await other.fail("tailscale_cert", domain="plain")
        assert text.startswith(f"{peer.ipv4}:443 refused the connection.")
        await peer.serve(443, greet)
        text = await other.fail("tailscale_cert", domain="plain")
        assert text.startswith("No secure connection to plain:443: ")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that does not speak TLS."""
    writer.write(b"220 hello\r\n")
    await writer.drain()
    await reader.read(1)


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        ("nobody", "The tailnet has no name nobody."),
    ],
)
async def test_wrong_names_are_refused_with_what_is_right(other: Agent, domain: str, reason: str) -> None:
    assert reason in await other.fail("tailscale_cert", domain=domain)
