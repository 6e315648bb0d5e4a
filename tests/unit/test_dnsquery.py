"""DNS messages as records."""

from __future__ import annotations

from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.tailnet.dnsquery import MAGIC_DNS, MAX_RECORDS, read
from cctailscale.tailnet.models import DNSAnswer
from cctailscale.tailnet.results import DnsLookup

SUFFIX = "tail1234.ts.net"


def answered(
    name: str,
    kind: str,
    *values: str,
    ttl: int = 60,
    rcode: int = 0,
    by_itself: bool = False,
    resolvers: tuple[str, ...] = (),
) -> DnsLookup:
    message = dns.message.make_response(dns.message.make_query(f"{name}.", kind))
    message.set_rcode(dns.rcode.from_text(dns.rcode.to_text(dns.rcode.Rcode(rcode))))
    if by_itself:
        message.flags |= dns.flags.AA
    if values:
        message.answer = [dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *values)]
    return read(name, kind, DNSAnswer(message=message.to_wire(), resolvers=[{"Addr": r} for r in resolvers]), SUFFIX)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("A", "192.0.2.1", "192.0.2.1"),
        ("AAAA", "2001:db8::1", "2001:db8::1"),
        ("CNAME", "other.example.", "other.example"),
        ("MX", "10 mail.example.", "10 mail.example"),
        ("NS", "ns1.example.", "ns1.example"),
        ("PTR", "web.example.", "web.example"),
        ("SRV", "0 5 5060 sip.example.", "0 5 5060 sip.example"),
        ("TXT", '"v=spf1 " "-all"', "v=spf1 -all"),
    ],
)
def test_each_kind_of_record_is_shown_as_a_person_writes_it(kind: str, value: str, shown: str) -> None:
    found = answered("x.corp.example", kind, value)
    assert [(record.name, record.type, record.ttl_ms, record.value) for record in found.records] == [
        ("x.corp.example", kind, 60_000, shown)
    ]
    assert found.outcome == "found"


@pytest.mark.parametrize(
    ("rcode", "resolvers", "outcome"),
    [
        (dns.rcode.NOERROR, ("192.0.2.53",), "no records of this type"),
        (dns.rcode.NOTIMP, (), "no records of this type"),
        (dns.rcode.NXDOMAIN, ("192.0.2.53",), "no such name"),
        (dns.rcode.SERVFAIL, (), "no such name: the tailnet's DNS has no resolver for it"),
        (dns.rcode.SERVFAIL, ("192.0.2.53",), "no answer: the resolver said SERVFAIL"),
        (dns.rcode.REFUSED, ("192.0.2.53",), "no answer: the resolver said REFUSED"),
    ],
)
def test_an_answer_without_records_says_why(rcode: int, resolvers: tuple[str, ...], outcome: str) -> None:
    found = answered("x.corp.example", "A", rcode=rcode, resolvers=resolvers)
    assert (found.outcome, found.records) == (outcome, [])


@pytest.mark.parametrize(
    ("name", "by_itself", "resolvers", "resolver"),
    [
        ("web.tail1234.ts.net", True, (), MAGIC_DNS),
        ("web.tail1234.ts.net", True, ("192.0.2.53",), MAGIC_DNS),
        ("db.corp.example", True, (), MAGIC_DNS),  # an extra record
        ("1.0.64.100.in-addr.arpa", True, ("192.0.2.53",), MAGIC_DNS),
        ("1.2.0.192.in-addr.arpa", True, ("192.0.2.53",), f"192.0.2.53 or {MAGIC_DNS}"),
        ("db.corp.example", False, ("192.0.2.53",), "192.0.2.53"),
        ("db.corp.example", False, ("192.0.2.53", "https://dns.example/q"), "192.0.2.53 or https://dns.example/q"),
        ("db.corp.example", True, ("192.0.2.53",), f"192.0.2.53 or {MAGIC_DNS}"),  # LocalAPI does not tell these apart
    ],
)
def test_the_resolver_is_who_answered_as_far_as_it_can_be_known(
    name: str, by_itself: bool, resolvers: tuple[str, ...], resolver: str
) -> None:
    kind = "PTR" if name.endswith("arpa") else "A"
    value = "web.example." if kind == "PTR" else "192.0.2.1"
    assert answered(name, kind, value, by_itself=by_itself, resolvers=resolvers).resolver == resolver


def test_where_nobody_could_be_asked_there_is_no_resolver() -> None:
    assert answered("example.com", "A", rcode=dns.rcode.SERVFAIL, by_itself=True).resolver == "none"


def test_more_records_than_a_reader_needs_are_counted() -> None:
    found = answered("x.example", "A", *(f"10.0.{n // 250}.{n % 250}" for n in range(MAX_RECORDS + 30)))
    assert (len(found.records), found.left_out) == (MAX_RECORDS, 30)
    assert "left_out" not in answered("x.example", "A", "192.0.2.1").model_dump()


def test_a_text_that_a_zone_s_owner_chose_is_one_printable_line() -> None:
    (record,) = answered("x.example", "TXT", '"a\\010b\\027[2J' + "c" * 200 + '"', *[]).records
    assert record.value.startswith("a b [2Jccc")
    assert record.value.isprintable()


def test_a_long_text_is_cut() -> None:
    (record,) = answered("x.example", "TXT", " ".join(f'"{"t" * 250}"' for _ in range(20))).records
    assert len(record.value) == 500


@given(st.binary(max_size=200))
def test_what_is_no_dns_message_is_said_to_be_none(garbage: bytes) -> None:
    answer: dict[str, Any] = {"message": garbage, "resolvers": []}
    found = read("x.example", "A", DNSAnswer(**answer), SUFFIX)
    assert found.records == [] or found.outcome == "found"
    assert found.outcome.isprintable()


SPOILT = dns.message.make_response(dns.message.make_query("x.example", "TXT"))
SPOILT.answer = [
    dns.rrset.from_text("x.example.", 60, "IN", kind, *values)
    for kind, values in {
        "A": ["192.0.2.1"],
        "CNAME": ["y.example."],
        "MX": ["10 mail.example."],
        "SRV": ["0 5 443 web.example."],
        "TXT": ['"one" "two"'],
    }.items()
]
WIRE = SPOILT.to_wire()


@given(st.lists(st.tuples(st.integers(0, len(WIRE) - 1), st.integers(0, 255)), max_size=8), st.integers(0, len(WIRE)))
def test_a_message_that_was_spoilt_on_its_way_is_read_or_said_to_be_none(
    changes: list[tuple[int, int]], end: int
) -> None:
    wire = bytearray(WIRE)
    for place, value in changes:
        wire[place] = value
    for part in (bytes(wire), bytes(wire[:end])):
        for kind in ("A", "TXT", "SRV"):
            found = read("x.example", kind, DNSAnswer(message=part, resolvers=[]), SUFFIX)
            assert found.outcome.isprintable()
            assert all(record.value.isprintable() and record.name.isprintable() for record in found.records)
            assert len(found.records) <= MAX_RECORDS
