"""A question to the tailnet's DNS and what came back, as records that a person can read.

The node answers for MagicDNS names by itself and asks the resolvers of the tailnet's DNS settings for all others. The
host's resolver is not asked.
"""

from ipaddress import ip_address, ip_network

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.reversename
import dns.rrset

from cctailscale.errors import LocalApiError, plain
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.dial import literal_address
from cctailscale.tailnet.identify import owner_of
from cctailscale.tailnet.models import DNSAnswer
from cctailscale.tailnet.peers import away
from cctailscale.tailnet.results import DnsLookup, Record, RecordType

# A zone may hold thousands of records; a reader needs to see that there are many.
MAX_RECORDS = 50
# A TXT record can be 64 KiB.
MAX_VALUE_CHARS = 500
MAX_RESOLVERS = 8
MAX_ADDRESSES = 4

MAGIC_DNS = "MagicDNS (this node)"
# The addresses of all tailnets; the node answers for their names backwards by itself.
TAILSCALE = (ip_network("100.64.0.0/10"), ip_network("fd7a:115c:a1e0::/48"))


async def look_up(device: Device, host: str, kind: RecordType) -> DnsLookup:
    """Asks for `kind` of a name (short, full, with a final dot); of an address, whatever `kind`, for its name.

    A short name is tried as a MagicDNS name first. Raises BadName, LocalApiError.
    """
    address = literal_address(host)
    if address is not None:
        kind, names = "PTR", [dns.reversename.from_address(str(address)).to_text(omit_final_dot=True)]
    else:
        names = device.dialer.full_names(host)
    lookup = await _first_found(device, names, kind)
    owner = await owner_of(device, [str(address)] if address is not None else addresses_in(lookup))
    lookup.peer = plain(owner.node.name) if owner else None
    lookup.notice = away(await device.api.shared_status(peers=False))
    return lookup


async def _first_found(device: Device, names: list[str], kind: RecordType) -> DnsLookup:
    """What the first of `names` that has records has; if none has any, what was said to the first."""
    first: DnsLookup | None = None
    for name in names:
        try:
            answer = read(name, kind, await device.api.dns_query(name, kind), device.dialer.magic_dns_suffix)
        except LocalApiError as error:
            if error.status is None:
                raise
            answer = _unanswered(name, kind, f"no answer: {error.reason}")
        if answer.records:
            return answer
        first = first or answer
    assert first is not None
    return first


def read(name: str, kind: str, answer: DNSAnswer, magic_dns_suffix: str) -> DnsLookup:
    """The answer to a question for `kind` of `name`."""
    try:
        message = dns.message.from_wire(answer.message)
    except dns.exception.DNSException as error:
        return _unanswered(name, kind, f"no answer: what came back is no DNS message ({plain(str(error), 100)})")
    records = [record for records in message.answer for record in _records(records)]
    return DnsLookup(
        name=name,
        type=kind,
        outcome=_outcome(message, answer, has_records=bool(records)),
        records=records[:MAX_RECORDS],
        left_out=max(0, len(records) - MAX_RECORDS) or None,
        resolver=_resolver(name, message, answer, magic_dns_suffix),
    )


def addresses_in(lookup: DnsLookup) -> list[str]:
    """The addresses that the answer holds, as many as it makes sense to look at."""
    return [record.value for record in lookup.records if record.type in ("A", "AAAA")][:MAX_ADDRESSES]


def _unanswered(name: str, kind: str, outcome: str) -> DnsLookup:
    return DnsLookup(name=name, type=kind, outcome=outcome, records=[], resolver="none")


def _records(records: dns.rrset.RRset) -> list[Record]:
    kind = dns.rdatatype.to_text(records.rdtype)
    name = plain(records.name.to_text(omit_final_dot=True))
    return [Record(name=name, type=kind, ttl_ms=records.ttl * 1000, value=_value(record)) for record in records]


def _value(record: dns.rdata.Rdata) -> str:
    strings = getattr(record, "strings", None)
    if strings is not None:  # TXT: its strings are one text (RFC 7208, 3.3)
        return plain(b"".join(strings).decode("utf-8", "replace"), MAX_VALUE_CHARS)
    text = record.to_text()
    return plain(text.removesuffix(".") if text.endswith(".") and text != "." else text, MAX_VALUE_CHARS)


def _outcome(message: dns.message.Message, answer: DNSAnswer, *, has_records: bool) -> str:
    rcode = message.rcode()
    if has_records:
        return "found"
    if rcode in (dns.rcode.NOERROR, dns.rcode.NOTIMP):  # the second is MagicDNS's, for NS
        return "no records of this type"
    if rcode == dns.rcode.NXDOMAIN:
        return "no such name"
    if rcode == dns.rcode.SERVFAIL and not answer.resolvers:
        return "no such name: the tailnet's DNS has no resolver for it"
    return f"no answer: the resolver said {dns.rcode.to_text(rcode)}"


def _resolver(name: str, message: dns.message.Message, answer: DNSAnswer, magic_dns_suffix: str) -> str:
    """LocalAPI says who would be asked about such a name, and not whether the node answered by itself."""
    resolvers = [plain(str(resolver.get("Addr", ""))) for resolver in answer.resolvers[:MAX_RESOLVERS]]
    if not resolvers and message.rcode() == dns.rcode.SERVFAIL:
        return "none"
    by_itself = bool(message.flags & dns.flags.AA)  # the node sets it, and so do servers of split-DNS zones
    if by_itself and (not resolvers or _within(name, magic_dns_suffix) or _is_tailscale_reverse(name)):
        return MAGIC_DNS
    asked = " or ".join(resolvers) or "unknown"
    return f"{asked} or {MAGIC_DNS}" if by_itself else asked


def _within(name: str, suffix: str) -> bool:
    return bool(suffix) and (name.casefold() == suffix or name.casefold().endswith(f".{suffix}"))


def _is_tailscale_reverse(name: str) -> bool:
    if not name.endswith((".in-addr.arpa", ".ip6.arpa")):
        return False
    try:
        address = ip_address(dns.reversename.to_address(dns.name.from_text(name)))
    except (dns.exception.DNSException, ValueError):
        return False
    return any(address.version == network.version and address in network for network in TAILSCALE)
