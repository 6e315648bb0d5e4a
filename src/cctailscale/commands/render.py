"""What the tools answer, for people: facts and small tables, made from the typed results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import singledispatch
from typing import Any

from pydantic import BaseModel
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cctailscale.commands.arguments import in_shell_words
from cctailscale.commands.screen import Screen
from cctailscale.tailnet.results import (
    AclCheck,
    ConnectTest,
    DeviceRow,
    Devices,
    DnsLookup,
    NetCheck,
    Owner,
    Pings,
)
from cctailscale.tools.networking import Self

# Units that end a field's name, and how they are written behind its value.
UNITS = {"_ms": " ms", "_bytes": " bytes", "_percent": " %", "_seconds": " s"}


@singledispatch
def rendered(result: BaseModel, screen: Screen) -> Iterable[RenderableType]:
    """The result as what rich prints, one below the other."""
    return [facts(result, screen)]


def facts(result: BaseModel, screen: Screen, *, without: Sequence[str] = ()) -> Table:
    """Each field that says something, with its name before it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name in type(result).model_fields:
        value = getattr(result, name)
        if name in without or name == "notice" or value is None or value in ([], {}):
            continue
        label, text = fact(name, value)
        table.add_row(Text(label), screen.text(in_shell_words(text)))
    return table


def fact(name: str, value: Any) -> tuple[str, str]:  # noqa: ANN401 - a field's value
    """A field's name and value as a person reads them: "connect_ms", 3.5 -> "connect", "3.5 ms"."""
    for ending, unit in UNITS.items():
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), f"{value:g}{unit}"
    return name.replace("_", " "), said(value)


def said(value: Any) -> str:  # noqa: ANN401 - a field's value
    """A value in words."""
    match value:
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case Owner():
            return f"{value.display_name} <{value.login}>" if value.display_name else value.login
        case [*items]:
            return "\n".join(map(said, items)) if any(" " in str(item) for item in items) else ", ".join(items)
        case dict():
            return json.dumps(value)
        case _:
            return str(value)


@rendered.register
def _(result: Devices, screen: Screen) -> Iterable[RenderableType]:
    names = short_names([row.name for row in result.devices])
    rows = [
        (name, (row.addresses or [""])[0], row.os or "", row.owner or ", ".join(row.tags), _standing(row))
        for name, row in zip(names, result.devices, strict=True)
    ]
    return [table(("name", "address", "os", "owner or tags", "state"), rows, screen)]


def short_names(names: list[str]) -> list[str]:
    """Without the tailnet's domain, if all are in the same one."""
    domains = {name.partition(".")[2] for name in names}
    return [name.partition(".")[0] for name in names] if len(domains) == 1 else names


def _standing(row: DeviceRow) -> str:
    since = f" since {said(row.last_seen)}" if row.last_seen else ""
    state = [
        "online" if row.online else f"offline{since}",
        "this device" if row.this_node else "",
        row.path or "",
        "exit node" if row.exit_node else "",
        f"routes {' '.join(row.routes)}" if row.routes else "",
        "key expired" if row.expired else "",
    ]
    return ", ".join(filter(None, state))


@rendered.register
def _(result: Pings, screen: Screen) -> Iterable[RenderableType]:
    yield screen.text(f"{result.name or result.host} ({result.address}), {result.type}", "bold")
    rows = [(str(row.number), _latency(row.latency_ms, row.error), row.path or "") for row in result.replies]
    yield table(("", "latency", "path"), rows, screen, heads=False)
    if result.sent:
        line = f"{result.received} of {result.sent} answered"
        if result.avg_ms is not None:
            line += f"; min {result.min_ms:g}, avg {result.avg_ms:g}, max {result.max_ms:g} ms"
        if result.became_direct is not None:
            line += f"; direct from ping {result.became_direct} on"
        yield screen.text(line, "green" if result.received else "red")
    if result.explanation:
        yield screen.text(in_shell_words(result.explanation))


def _latency(milliseconds: float | None, error: str | None = None) -> str:
    return f"{milliseconds:g} ms" if milliseconds is not None else error or "no reply"


@rendered.register
def _(result: ConnectTest, screen: Screen) -> Iterable[RenderableType]:
    good = result.reachable
    verdict = "can be reached" if good else f"cannot be reached: {result.reason}"
    yield screen.text(f"{result.host}:{result.port} {verdict}", "green" if good else "red")
    yield facts(result, screen, without=("host", "port", "reachable", "reason"))


@rendered.register
def _(result: DnsLookup, screen: Screen) -> Iterable[RenderableType]:
    rows = [(one.name, f"{one.ttl_ms / 1000:g} s", one.type, one.value) for one in result.records]
    if rows:
        yield table(("", "ttl", "type", "value"), rows, screen, heads=False)
    yield facts(result, screen, without=("name", "type", "records", *(["outcome"] if rows else [])))


@rendered.register
def _(result: NetCheck, screen: Screen) -> Iterable[RenderableType]:
    yield facts(result, screen, without=("regions",))
    rows = [(one.name, one.code, _latency(one.latency_ms)) for one in result.regions]
    yield table(("DERP region", "code", "latency"), rows, screen)


@rendered.register
def _(result: AclCheck, screen: Screen) -> Iterable[RenderableType]:
    style = {True: "green", False: "red", None: ""}[result.allowed]
    yield screen.text(in_shell_words(result.explanation), style)
    yield table(("",), [(rule,) for rule in result.rules], screen, heads=False)
    if len(result.rules) < result.rules_total:
        yield screen.text(f"{len(result.rules)} of {result.rules_total} rules are shown.", "dim")


@rendered.register
def _(result: Self, screen: Screen) -> Iterable[RenderableType]:
    yield facts(result, screen, without=("peers_online", "peers_total", "uptime_seconds", "hostname"))
    yield screen.text(f"{result.peers_online} of {result.peers_total} peers are online")


def table(
    heads_of: Sequence[str], rows: Iterable[Sequence[str]], screen: Screen, *, heads: bool = True
) -> RenderableType:
    """Columns without lines. A cell that is too long for the terminal goes on below."""
    grid = Table(box=None, show_header=heads, padding=(0, 2, 0, 0), header_style="dim")
    for name in heads_of:
        grid.add_column(Text(name), overflow="fold")
    for row in rows:
        grid.add_row(*(screen.text(cell) for cell in row))
    return grid


def exit_code(result: BaseModel) -> int:
    """0, or 1 where the answer is no."""
    match result:
        case Pings():
            good = result.received > 0 or result.sent == 0
        case ConnectTest():
            good = result.reachable
        case DnsLookup():
            good = bool(result.records)
        case AclCheck():
            good = result.allowed is not False
        case _:
            good = getattr(result, "trusted", None) is not False
    return 0 if good else 1
