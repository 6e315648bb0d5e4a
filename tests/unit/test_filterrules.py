"""The packet filter: what a rule lets pass, and how it reads."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.tailnet.filterrules import AddressSet, PacketFilter, Source
from cctailscale.tailnet.models import FilterRule, Status
from cctailscale.tailnet.results import Protocol

ME = ["100.64.0.1", "fd7a:115c:a1e0::1"]
WEB = ["100.64.0.2", "fd7a:115c:a1e0::2"]
STATUS = Status.model_validate(
    {
        "TailscaleIPs": ME,
        "Self": {"ID": "n1", "DNSName": "me.tail1234.ts.net.", "TailscaleIPs": ME},
        "Peer": {"k": {"ID": "n2", "DNSName": "web.tail1234.ts.net.", "TailscaleIPs": WEB}},
    }
)


def rule(sources: list[str], *targets: tuple[str, int, int], proto: list[int] | None = None) -> FilterRule:
    ports = [{"IP": ip, "Ports": {"First": first, "Last": last}} for ip, first, last in targets]
    return FilterRule.model_validate({"SrcIPs": sources, "DstPorts": ports, "IPProto": proto})


def grant(sources: list[str], *names: str) -> FilterRule:
    grants = [{"Dsts": [f"{ME[0]}/32"], "CapMap": dict.fromkeys(names)}]
    return FilterRule.model_validate({"SrcIPs": sources, "CapGrant": grants})


def rules(*all_rules: FilterRule) -> PacketFilter:
    return PacketFilter(all_rules, STATUS)


def source(address: str, *capabilities: str) -> Source:
    return Source(ip_address(address), frozenset(capabilities))


# ---- decisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("*", ["100.64.0.9", "fd7a::1", "8.8.8.8"], []),
        ("100.64.0.2", ["100.64.0.2"], ["100.64.0.3", "::ffff:100.64.0.2"]),
        ("100.64.0.2/32", ["100.64.0.2"], ["100.64.0.3"]),
        ("100.64.0.0/10", ["100.64.0.1", "100.127.255.255"], ["100.128.0.0", "fd7a::1"]),
        ("100.64.0.9/10", ["100.64.0.1"], ["100.128.0.0"]),
        ("100.64.0.2-100.64.0.5", ["100.64.0.2", "100.64.0.5"], ["100.64.0.1", "100.64.0.6", "fd7a::3"]),
        ("fd7a::1-fd7a::5", ["fd7a::1", "fd7a::5"], ["fd7a::6", "100.64.0.2"]),
        ("cap:x", [], ["100.64.0.2"]),
        ("nonsense", [], ["100.64.0.2"]),
        ("100.64.0.2-x", [], ["100.64.0.2"]),
    ],
)
def test_every_form_of_addresses_is_understood(text: str, inside: list[str], outside: list[str]) -> None:
    addresses = AddressSet([text])
    assert [address for address in inside if ip_address(address) not in addresses] == []
    assert [address for address in outside if ip_address(address) in addresses] == []


@pytest.mark.parametrize(
    ("address", "port", "protocol", "by"),
    [
        ("100.64.0.2", 80, "tcp", 1),
        ("100.64.0.2", 90, "tcp", 1),
        ("100.64.0.2", 91, "tcp", None),
        ("100.64.0.2", 79, "tcp", None),
        ("100.64.0.2", 80, "udp", None),
        ("100.64.0.3", 80, "tcp", None),
        ("100.64.0.3", 22, "tcp", 2),
        ("100.64.0.3", 22, "udp", 2),
        ("fd7a:115c:a1e0::2", 80, "tcp", None),  # the rule names the IPv4 address alone
        ("fd7a:115c:a1e0::3", 22, "tcp", 2),
        ("100.64.0.2", 0, "icmp", 1),  # whoever may send anything may ping
        ("100.64.0.9", 0, "icmp", 2),
        ("8.8.8.8", 0, "icmp", None),
    ],
)
def test_a_packet_passes_by_the_first_rule_that_has_all_of_it(
    address: str, port: int, protocol: Protocol, by: int | None
) -> None:
    found = rules(
        rule(["*"], ("10.0.0.0/8", 0, 65535)),  # for a subnet, not for this node
        rule(["100.64.0.2"], (ME[0], 80, 90), proto=[6]),
        rule(["100.64.0.0/10", "fd7a:115c:a1e0::/48"], ("*", 22, 22)),
    )
    assert found.deciding(source(address), port, protocol) == by


def test_a_source_can_be_everybody_with_a_capability() -> None:
    found = rules(rule(["cap:example.com/x"], ("*", 80, 80)))
    assert found.deciding(source(WEB[0], "example.com/x"), 80, "tcp") == 0
    assert found.deciding(source(WEB[0], "example.com/y"), 80, "tcp") is None
    assert found.deciding(source(WEB[0]), 80, "tcp") is None


def test_a_rule_that_only_grants_capabilities_lets_nothing_pass() -> None:
    assert rules(grant(["*"], "example.com/cap/x")).deciding(source(WEB[0]), 80, "tcp") is None


def test_without_rules_nothing_passes() -> None:
    assert rules().deciding(source(WEB[0]), 80, "tcp") is None


def test_a_protocol_number_of_tailscale_s_own_lets_nothing_pass() -> None:
    assert rules(rule(["*"], ("*", 0, 65535), proto=[300])).deciding(source(WEB[0]), 80, "tcp") is None


def test_rules_concern_a_question_by_source_and_by_port() -> None:
    found = rules(
        rule([WEB[0]], ("*", 80, 80)),
        rule(["100.64.0.9"], ("*", 80, 80)),
        rule(["*"], ("*", 22, 22)),
        grant(["*"], "x"),
    )
    assert found.concerning([], None) == [0, 1, 2, 3]
    assert found.concerning([source(WEB[0])], None) == [0, 2, 3]
    assert found.concerning([], 80) == [0, 1]
    assert found.concerning([source(WEB[0])], 22) == [2]


@given(st.lists(st.text("*0123456789.:/-afcp", max_size=24), max_size=6))
def test_no_text_of_a_rule_can_break_a_decision(sources: list[str]) -> None:
    found = rules(rule(sources, *((text, 0, 65535) for text in sources)))
    by = found.deciding(source(WEB[0]), 80, "tcp")
    assert by in (None, 0)
    assert found.in_words(0).startswith("1. ")


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (rule(["*"], ("*", 0, 65535)), "1. Anyone may reach any port of this node."),
        (rule(WEB, (ME[0], 80, 80), (ME[1], 80, 80)), "1. web may reach port 80 of this node."),
        (
            rule([f"{WEB[0]}/32", "100.64.0.9"], ("*", 80, 90), proto=[6]),
            "1. web and 100.64.0.9 may reach TCP ports 80-90 of this node.",
        ),
        (
            rule(["100.64.0.0/10"], ("10.0.0.0/8", 22, 22), proto=[6, 17]),
            "1. 100.64.0.0/10 may reach TCP and UDP port 22 of 10.0.0.0/8.",
        ),
        (
            rule(["*"], ("*", 1, 1), ("*", 2, 2), proto=[47]),
            "1. Anyone may reach IP protocol 47 port 1 of this node and port 2 of this node.",
        ),
        (rule(["*"], (f"{WEB[1]}/128", 1, 1), proto=[6, 17, 1, 58]), "1. Anyone may reach port 1 of web."),
        (
            rule(["cap:example.com/x"], ("*", 1, 1)),
            "1. devices with the capability example.com/x may reach port 1 of this node.",
        ),
        (rule([WEB[0], "*"], ("*", 1, 1)), "1. Anyone may reach port 1 of this node."),
        (rule([], ("*", 1, 1)), "1. Nobody may reach port 1 of this node."),
        (rule(["*"]), "1. Anyone may reach nothing."),
        (
            grant(WEB, "b.example/cap", "a.example/cap"),
            "1. web has here the app capabilities a.example/cap and b.example/cap.",
        ),
    ],
)
def test_a_rule_reads_as_a_sentence(one: FilterRule, words: str) -> None:
    assert rules(one).in_words(0) == words


def test_a_rule_for_a_whole_company_names_some_and_counts_the_rest() -> None:
    words = rules(rule([f"10.0.0.{n}" for n in range(1, 100)], ("*", 1, 1))).in_words(0)
    assert "10.0.0.12 and 87 more may reach" in words
    assert len(words) < 300


def test_the_answer_of_localapi_is_read_as_it_is() -> None:
    answer: list[dict[str, Any]] = [
        {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]},
        {"SrcIPs": ["100.64.0.2"], "CapGrant": [{"Dsts": ["100.64.0.1/32"], "CapMap": {"x.example/cap": None}}]},
        {"SrcIPs": None, "DstPorts": None, "IPProto": None, "CapGrant": None},
    ]
    found = rules(*(FilterRule.model_validate(one) for one in answer))
    assert [found.in_words(n) for n in range(found.count)] == [
        "1. Anyone may reach any port of this node.",
        "2. web has here the app capabilities x.example/cap.",
        "3. Nobody may reach nothing.",
    ]
