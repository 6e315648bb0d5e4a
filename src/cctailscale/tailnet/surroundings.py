"""The network around this machine, as the node's check of it reports."""

from pydantic import ValidationError

from cctailscale.errors import NodeFailed, plain
from cctailscale.tailnet.models import NetReport, Region
from cctailscale.tailnet.results import Latency, NetCheck


def read(text: str) -> NetCheck:
    """The document of `tailscale_netcheck` in words. Raises NodeFailed if it is none."""
    try:
        report = NetReport.model_validate_json(text)
    except ValidationError as error:
        raise NodeFailed(f"its network check has an unknown form ({error.error_count()} faults)") from error
    codes = {region.id: plain(region.code) for region in report.regions}
    return NetCheck(
        udp=report.udp,
        ipv4=report.ipv4,
        ipv6=report.ipv6,
        ipv6_on_host=report.ipv6_on_host,
        mapped_ipv4=report.mapped_ipv4 or None,
        mapped_ipv6=report.mapped_ipv6 or None,
        nat=_nat(report),
        port_mapping=_port_mapping(report),
        captive_portal=report.captive_portal,
        preferred_derp=codes.get(report.preferred_region),
        regions=[_latency(region) for region in report.regions],
    )


def _latency(region: Region) -> Latency:
    measured = None if region.latency_ms is None else round(region.latency_ms, 3)
    return Latency(code=plain(region.code), name=plain(region.name), latency_ms=measured)


def _nat(report: NetReport) -> str:
    if report.mapped_is_own:
        return "none: this machine has its public address itself"
    if report.mapping_varies:
        return "hard: it maps anew for each destination, so direct paths are rare unless the other side has an easy one"
    if report.mapping_varies is False:
        return "easy: one mapping for all destinations, so direct paths are usual"
    if report.udp:
        return "unknown: only one server answered, which cannot tell"
    return "unknown: UDP is blocked, so every path is relayed over TCP"


def _port_mapping(report: NetReport) -> list[str] | None:
    asked = {"UPnP": report.upnp, "NAT-PMP": report.nat_pmp, "PCP": report.pcp}
    if all(answer is None for answer in asked.values()):
        return None
    return [name for name, answer in asked.items() if answer]
