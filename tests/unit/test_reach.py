"""What pings come to, and one status for all who ask."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace
from typing import cast

import anyio
import pytest

from cctailscale.errors import NodeFailed, Unreachable
from cctailscale.tailnet import localapi, surroundings
from cctailscale.tailnet.binding import Loopback
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.localapi import LocalAPI
from cctailscale.tailnet.models import NetReport, PingReply, Region, Status
from cctailscale.tailnet.reach import became_direct, connect_test, path_in, summed
from cctailscale.tailnet.results import PingRow, Pings

DIRECT, DERP = "direct 192.0.2.1:41641", "DERP fra"


def rows(*paths: str | None) -> list[PingRow]:
    return [PingRow(number=number, latency_ms=1 if path else None, path=path) for number, path in enumerate(paths, 1)]


@pytest.mark.parametrize(
    ("paths", "number"),
    [
        ((DERP, DERP, DIRECT, DIRECT), 3),
        ((DERP, None, DIRECT), 3),
        (("peer relay 192.0.2.1:7:vni:1", DIRECT), 2),
        ((DIRECT, DIRECT), None),
        ((DIRECT, DERP, DIRECT), None),
        ((None, DIRECT), None),
        ((DERP, DERP), None),
        ((None, None), None),
        ((), None),
    ],
)
def test_a_path_became_direct_if_it_was_another_one_at_first(paths: tuple[str | None, ...], number: int | None) -> None:
    assert became_direct(rows(*paths)) == number


def test_lost_pings_count_for_the_loss_and_not_for_the_times() -> None:
    replies = [PingRow(number=1, latency_ms=2.0), PingRow(number=2), PingRow(number=3, latency_ms=5.0)]
    result = Pings(host="web", name=None, address="100.64.0.1", type="disco", replies=replies)
    summed(result)
    assert (result.sent, result.received, result.loss_percent) == (3, 2, 33.3)
    assert (result.min_ms, result.avg_ms, result.max_ms) == (2.0, 3.5, 5.0)


def test_where_all_pings_are_lost_there_are_no_times() -> None:
    result = Pings(host="web", name=None, address="100.64.0.1", type="disco", replies=rows(None, None))
    summed(result)
    assert (result.loss_percent, result.min_ms, result.avg_ms, result.max_ms) == (100, None, None, None)


@pytest.mark.parametrize(
    ("reply", "path"),
    [
        (PingReply(endpoint="192.0.2.1:41641", derp_region_code=""), DIRECT),
        (PingReply(derp_region_code="fra"), DERP),
        (PingReply(peer_relay="192.0.2.1:7:vni:1"), "peer relay 192.0.2.1:7:vni:1"),
        (PingReply(), None),
    ],
)
def test_a_reply_tells_its_path_if_it_is_of_a_kind_that_does(reply: PingReply, path: str | None) -> None:
    assert path_in(reply) == path


async def test_one_status_serves_all_who_ask_within_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def status(*, peers: bool = True) -> Status:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Status(version=f"{asked} {peers}")

    monkeypatch.setattr(localapi, "SHARED_STATUS_SECONDS", 0.02)
    async with LocalAPI(Loopback("127.0.0.1", 9, "", "")) as api:
        monkeypatch.setattr(api, "status", status)
        versions = {one.version for one in await asyncio.gather(*(api.shared_status() for _ in range(10)))}
        assert versions == {"1 True"}
        assert (await api.shared_status(peers=False)).version == "2 False"
        version = "1 True"
        with anyio.fail_after(5):
            while version == "1 True":
                await asyncio.sleep(0.005)
                version = (await api.shared_status()).version
        assert asked == 3


async def test_a_peer_to_which_no_path_leads_is_said_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    address = ip_address("100.64.0.7")

    async def resolve(_: str) -> list[object]:
        return [address]

    async def connect(*_: object) -> None:
        raise Unreachable("100.64.0.7:80")

    async def ping(*_: object) -> None:
        return None

    async def shared_status(**_: object) -> Status:
        return Status()

    dialer = SimpleNamespace(resolve=resolve, connect=connect)
    device = SimpleNamespace(dialer=dialer, api=SimpleNamespace(ping=ping, shared_status=shared_status))
    found = await connect_test(cast(Device, device), "web", 80, 5)
    assert (found.reachable, found.reason, found.address, found.path) == (False, "no path", "100.64.0.7", None)
    assert found.explanation is not None
    assert found.explanation.startswith("There is no path to 100.64.0.7:80.")


# ---- the network around the machine ----------------------------------------------------------------------------------


def report(**facts: object) -> str:
    known = {
        "udp": True, "ipv4": True, "ipv6": False, "ipv6_on_host": True, "mapped_ipv4": "192.0.2.9:1", "mapped_ipv6": "",
        "mapped_is_own": False, "mapping_varies": None, "upnp": None, "nat_pmp": None, "pcp": None,
        "captive_portal": None, "preferred_region": 2,
        "regions": [Region(id=2, code="fra", name="Frankfurt", latency_ms=1.23456),
                    Region(id=1, code="nyc", name="New York", latency_ms=None)],
    }  # fmt: skip
    return NetReport.model_validate(known | facts).model_dump_json()


@pytest.mark.parametrize(
    ("facts", "nat"),
    [
        ({"mapped_is_own": True}, "none:"),
        ({"mapping_varies": True}, "hard:"),
        ({"mapping_varies": False}, "easy:"),
        ({}, "unknown: only one server answered"),
        ({"udp": False}, "unknown: UDP is blocked"),
    ],
)
def test_the_kind_of_nat_is_said_in_words(facts: dict[str, object], nat: str) -> None:
    assert surroundings.read(report(**facts)).nat.startswith(nat)


def test_regions_keep_their_order_and_the_preferred_one_has_its_code() -> None:
    found = surroundings.read(report())
    assert [(region.code, region.latency_ms) for region in found.regions] == [("fra", 1.235), ("nyc", None)]
    assert found.preferred_derp == "fra"
    assert surroundings.read(report(preferred_region=0)).preferred_derp is None
    assert (found.mapped_ipv4, found.mapped_ipv6) == ("192.0.2.9:1", None)


@pytest.mark.parametrize(
    ("facts", "offered"),
    [
        ({}, None),
        ({"upnp": False, "nat_pmp": False, "pcp": False}, []),
        ({"upnp": True, "nat_pmp": False, "pcp": True}, ["UPnP", "PCP"]),
    ],
)
def test_port_mapping_that_was_not_looked_for_is_not_said_to_be_missing(
    facts: dict[str, object], offered: list[str] | None
) -> None:
    assert surroundings.read(report(**facts)).port_mapping == offered


def test_a_report_of_another_form_is_an_error() -> None:
    with pytest.raises(NodeFailed, match="its network check has an unknown form"):
        surroundings.read('{"udp": 1}')
