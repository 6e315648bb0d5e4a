"""What the doctor looks at, in order. Each check says what it found; an error of ours is a finding as it stands."""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from cctailscale.agents import wire
from cctailscale.commands.calls import Tools
from cctailscale.commands.committed import keys_in_git
from cctailscale.commands.findings import Found
from cctailscale.config import Settings
from cctailscale.tailnet import binding, control
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.session import Session

# Most checks take milliseconds, the one of the network some seconds.
CHECK_SECONDS = 20.0
CONTROL_SECONDS = 10.0
# Beyond the join's own bounds, so that these tell what was in the way.
JOIN_GRACE_SECONDS = 5.0
# Certificates that were issued a moment ago, and keys about to expire, are judged by this machine's clock.
MAX_CLOCK_SECONDS = 60.0


class Examination:
    """What the checks share, and what earlier ones leave for later ones."""

    device: Device
    answer: control.ControlAnswer

    def __init__(self, tools: Tools, children: Mapping[str, str]) -> None:
        self.tools = tools
        self.children = children

    @property
    def settings(self) -> Settings:
        return self.tools.parts.loaded.settings


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `needs` names those without which it makes no sense, `seconds` says how long it may take."""

    name: str
    look: Callable[[Examination], Awaitable[Found]]
    needs: tuple[str, ...] = ()
    seconds: Callable[[Settings], float] = lambda _: CHECK_SECONDS


async def _settings(examination: Examination) -> Found:
    """Which are set and what is wrong with them; their values stay hidden."""
    loaded = examination.tools.parts.loaded
    loaded.check()
    if loaded.settings.warnings:
        return Found("warning", " ".join(loaded.settings.warnings), "Correct the environment, or leave it so.")
    key = await anyio.to_thread.run_sync(loaded.settings.read_key, abandon_on_cancel=True)
    how = f"a key from {key.source}" if key else "no key, so a person has to log in"
    names = ", ".join(loaded.settings.given)
    return Found("ok", f"{how}; set: {names or 'nothing'}")


async def _committed(examination: Examination) -> Found:
    parts = examination.tools.parts
    return await keys_in_git(parts.loaded.settings.project_dir, parts.redactor, examination.children)


async def _extension(_: Examination) -> Found:
    began = time.perf_counter()
    await anyio.to_thread.run_sync(binding.load, abandon_on_cancel=True)
    return Found("ok", f"loaded in {(time.perf_counter() - began) * 1000:.0f} ms")


async def _state_directory(examination: Examination) -> Found:
    return await anyio.to_thread.run_sync(_tried, examination.settings, abandon_on_cancel=True)


def _tried(settings: Settings) -> Found:
    """Makes a session's directory as the join will, and removes it."""
    Session.claim(settings).end()
    root = settings.state_dir
    mode = stat.S_IMODE(root.stat().st_mode)
    others = "for you alone" if mode & 0o077 == 0 else "others can see the devices' names, not their keys"
    free = shutil.disk_usage(root).free / (1 << 30)
    return Found("ok", f"{_short(root)} can be written to, is yours, mode {mode:04o} ({others}), {free:.1f} GiB free")


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _join_seconds(settings: Settings) -> float:
    """A person has TS_JOIN_TIMEOUT to log in, and then the join has as long."""
    return 2 * settings.join_timeout + JOIN_GRACE_SECONDS


async def _join(examination: Examination) -> Found:
    began = time.perf_counter()
    examination.device = await examination.tools.joined()
    node = examination.tools.parts.node
    return Found("ok", f"as {node.hostname}, in {(time.perf_counter() - began) * 1000:.0f} ms")


async def _control(examination: Examination) -> Found:
    examination.answer = await control.ask(examination.settings, CONTROL_SECONDS)
    return Found("ok", f"{examination.settings.control_url} answered in {examination.answer.milliseconds:g} ms")


async def _health(examination: Examination) -> Found:
    status = await examination.tools.call("tailscale_status")
    if status.health:
        return Found("warning", " ".join(status.health), "See what it says; some of it passes by itself.")
    return Found("ok", f"the node (Tailscale {status.tailscale_version}) has nothing to report")


async def _derp(examination: Examination) -> Found:
    check = await examination.tools.call("tailscale_netcheck")
    measured = [region for region in check.regions if region.latency_ms is not None]
    if not measured:
        step = "Have the firewall let out UDP 3478 and TCP 443, or set HTTPS_PROXY."
        return Found("failed", "no DERP region answers: nothing can be relayed", step)
    answering = f"{len(measured)} of {len(check.regions)} regions answer"
    nearest = f"{measured[0].name} {measured[0].latency_ms:g} ms, {answering}"
    if not check.udp:
        step = "Have the firewall let UDP out (3478, 41641); it works without, but slower."
        return Found("warning", f"{nearest}; UDP is blocked, so every path is relayed", step)
    return Found("ok", f"{nearest}; NAT {check.nat.partition(':')[0]}")


async def _magic_dns(examination: Examination) -> Found:
    status = await examination.device.api.status(peers=False)
    tailnet, name = status.current_tailnet, status.me.name if status.me else ""
    if tailnet is None or not tailnet.magic_dns_enabled or not name:
        step = "An admin can turn MagicDNS on (DNS page of the admin console)."
        return Found("warning", "off for this tailnet: devices are reached by address alone", step)
    found = await examination.tools.call("tailscale_dns_lookup", name=name)
    if not {record.value for record in found.records} & set(status.tailscale_ips):
        return Found("failed", f"{name} is not found ({found.outcome})", "Look at the DNS page of the admin console.")
    return Found("ok", f"{name} is {found.records[0].value}")


async def _agent_port(examination: Examination) -> Found:
    """Whether this node can listen where agents do, and whom the policy lets come there."""
    with await examination.device.handle.listen(wire.PORT):
        pass
    access = await examination.tools.call("tailscale_acl_check", port=wire.PORT)
    if not access.rules:
        step = f"An admin can grant port {wire.PORT} in the policy, among the devices of one tag for example."
        return Found("warning", f"{wire.PORT} can be listened on, but the policy lets nobody reach it", step)
    return Found("ok", f"{wire.PORT} can be listened on; policy: {access.rules[0]}")


async def _clock(examination: Examination) -> Found:
    ahead = examination.answer.ahead_seconds
    if ahead is None:
        return Found("warning", "control does not say what time it has", "Compare the clock with another one.")
    if abs(ahead) > MAX_CLOCK_SECONDS:
        told = f"{abs(ahead):g} s {'ahead of' if ahead > 0 else 'behind'} control's"
        return Found("failed", told, "Set the clock, and let NTP keep it (timedatectl set-ntp true).")
    return Found("ok", f"{abs(ahead):g} s off control's" if ahead else "less than a second off control's")


CHECKS = (
    Check("settings", _settings),
    Check(".mcp.json", _committed),
    Check("extension", _extension),
    Check("state directory", _state_directory),
    Check("join", _join, ("settings", "extension", "state directory"), _join_seconds),
    Check("control", _control, needs=("settings",)),  # with unsound settings nothing is sent
    Check("health", _health, needs=("join",)),
    Check("DERP latency", _derp, needs=("join",)),
    Check("MagicDNS", _magic_dns, needs=("join",)),
    Check("agent port", _agent_port, needs=("join",)),
    Check("clock", _clock, needs=("control",)),
)
