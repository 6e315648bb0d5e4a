"""The tools' results as people read them, in 80 columns and in a pipe."""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from cctailscale.commands.render import exit_code, fact, rendered
from cctailscale.commands.screen import Screen
from cctailscale.redact import Redactor
from cctailscale.tailnet.results import (
    AclCheck,
    Certificate,
    ConnectTest,
    DeviceRow,
    Devices,
    DnsLookup,
    Identity,
    Latency,
    NetCheck,
    Owner,
    PingRow,
    Pings,
    Record,
)
from cctailscale.tools.networking import Self

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def lines(monkeypatch: pytest.MonkeyPatch, result: BaseModel) -> list[str]:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    screen = Screen(Redactor())
    screen.result(*rendered(result, screen))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(
    ("name", "value", "label", "text"),
    [
        ("connect_ms", 3.5, "connect", "3.5 ms"),
        ("size_bytes", 12, "size", "12 bytes"),
        ("key_expiry", NOON, "key expiry", "2026-01-02 12:00 UTC"),
        ("udp", True, "udp", "yes"),
        ("tags", ["tag:a", "tag:b"], "tags", "tag:a, tag:b"),
        ("warnings", ["One thing.", "Another."], "warnings", "One thing.\nAnother."),
        ("owner", Owner(login="ada@x", display_name="Ada"), "owner", "Ada <ada@x>"),
        ("owner", Owner(login="ada@x", display_name=""), "owner", "ada@x"),
        ("capabilities", {"x.com/cap": [1]}, "capabilities", '{"x.com/cap": [1]}'),
    ],
)
def test_a_fact_has_its_unit_and_no_underscores(name: str, value: object, label: str, text: str) -> None:
    assert fact(name, value) == (label, text)


def test_devices_have_a_line_each_and_short_names(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = DeviceRow(name="cc-a.t.net", addresses=["100.64.0.1", "fd7a::1"], os="linux", owner="ada@x", online=True)
    mine.this_node = True
    other = DeviceRow(name="db.t.net", addresses=["100.64.0.2"], tags=["tag:db"], online=False, last_seen=NOON)
    other.routes = ["10.0.0.0/8"]
    assert lines(monkeypatch, Devices(total=2, online=1, devices=[mine, other], cursor=None)) == [
        "name  address     os     owner or tags  state",
        "cc-a  100.64.0.1  linux  ada@x          online, this device",
        "db    100.64.0.2         tag:db         offline since 2026-01-02 12:00 UTC, routes 10.0.0.0/8",
    ]


def test_names_of_several_tailnets_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [DeviceRow(name=name, addresses=["100.64.0.1"], online=True) for name in ("a.t.net", "b.other.net")]
    _, first, second = lines(monkeypatch, Devices(total=2, online=2, devices=rows, cursor=None))
    assert first.startswith("a.t.net ")
    assert second.startswith("b.other.net ")


def test_pings_end_with_what_they_come_to(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [PingRow(number=1, latency_ms=2, path="DERP nyc"), PingRow(number=2), PingRow(number=3, error="no")]
    result = Pings(
        host="web", name="web.t.net", address="100.64.0.1", type="disco", replies=replies,
        sent=3, received=1, min_ms=2, avg_ms=2, max_ms=2, explanation="See tailscale_devices.",
    )  # fmt: skip
    assert lines(monkeypatch, result) == [
        "web.t.net (100.64.0.1), disco",
        "1  2 ms      DERP nyc",
        "2  no reply",
        "3  no",
        "1 of 3 answered; min 2, avg 2, max 2 ms",
        "See cc-tailscale devices.",
    ]


def test_a_connect_test_says_first_whether_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ConnectTest(
        host="web", port=81, reachable=False, reason="refused", explanation="Nothing listens.", address="100.64.0.1"
    )
    assert lines(monkeypatch, result) == [
        "web:81 cannot be reached: refused",
        "explanation  Nothing listens.",
        "address      100.64.0.1",
    ]


def test_records_stand_as_in_a_zone_file(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(name="web.t.net", type="A", ttl_ms=600_000, value="100.64.0.1")
    result = DnsLookup(
        name="web.t.net", type="A", outcome="found", records=[record], resolver="MagicDNS", peer="web.t.net"
    )
    assert lines(monkeypatch, result) == [
        "web.t.net  600 s  A  100.64.0.1",
        "resolver  MagicDNS",
        "peer      web.t.net",
    ]


def test_a_name_without_records_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    result = DnsLookup(name="x.t.net", type="A", outcome="no such name", records=[], resolver="MagicDNS")
    assert lines(monkeypatch, result) == ["outcome   no such name", "resolver  MagicDNS"]


def test_regions_come_below_what_the_network_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    regions = [
        Latency(code="nyc", name="New York", latency_ms=5.25),
        Latency(code="fra", name="Frankfurt", latency_ms=None),
    ]
    result = NetCheck(
        udp=True, ipv4=True, ipv6=False, ipv6_on_host=False, mapped_ipv4="192.0.2.1:1", mapped_ipv6=None, nat="easy",
        port_mapping=[], captive_portal=None, preferred_derp="nyc", regions=regions,
    )  # fmt: skip
    assert lines(monkeypatch, result)[-3:] == [
        "DERP region  code  latency",
        "New York     nyc   5.25 ms",
        "Frankfurt    fra   no reply",
    ]


def test_rules_come_below_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    result = AclCheck(allowed=True, explanation="web may.", rules=["1. Anyone may."], rules_total=3)
    assert lines(monkeypatch, result) == ["web may.", "1. Anyone may.", "1 of 3 rules are shown."]


def test_status_leaves_out_what_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lines(monkeypatch, Self(state="running", control_url="https://c", peers_online=1, peers_total=2))
    assert seen[0].split() == ["state", "running"]
    assert seen[-1] == "1 of 2 peers are online"
    assert not any(line.startswith(("tags", "owner", "health")) for line in seen)


CERTIFICATE = Certificate(
    host="web", served_by="web:443", subject="web", names=["web"], issuer="CA", not_before=NOON, not_after=NOON,
    days_left=1, key_type="EC",
)  # fmt: skip
LOOKUP = DnsLookup(name="x", type="A", outcome="no such name", records=[], resolver="r")
ACL = AclCheck(allowed=None, explanation="x", rules=[], rules_total=0)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Identity(name="web", stable_id="n1", addresses=[]), 0),
        (ConnectTest(host="web", port=1, reachable=True), 0),
        (ConnectTest(host="web", port=1, reachable=False), 1),
        (Pings(host="web", name=None, address="a", type="disco", replies=[], sent=4, received=1), 0),
        (Pings(host="web", name=None, address="a", type="disco", replies=[], sent=4, received=0), 1),
        (Pings(host="me", name=None, address="a", type="disco", replies=[]), 0),
        (LOOKUP, 1),
        (ACL, 0),
        (ACL.model_copy(update={"allowed": False}), 1),
        (CERTIFICATE, 0),
        (CERTIFICATE.model_copy(update={"trusted": False}), 1),
    ],
)
def test_the_exit_code_is_1_where_the_answer_is_no(result: BaseModel, code: int) -> None:
    assert exit_code(result) == code
