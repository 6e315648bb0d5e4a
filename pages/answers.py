"""Each tool is asked once, on a local tailnet; what its answer was is kept in answers.json.

What differs from run to run gets a stand-in, so that two runs of the same code give the same file.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.agent import Agent
from tests.localnet import Localnet

FILE = Path(__file__).parent / "answers.json"
PREFIX = "tailscale_"
OWNER = "ada@example.com"
# Pings until the path to a peer is direct; the first may be relayed.
MAX_WARM_UP = 20
MESSAGE = "Rk2GxVQb6qBgmFfQ"

# What the network measures, and what is the machine's: fields, with what stands for them.
STAND_INS: dict[str, Any] = {
    "latency_ms": 0.5, "min_ms": 0.5, "avg_ms": 0.5, "max_ms": 0.5, "connect_ms": 1.5, "uptime_ms": 1500, "os": "linux",
    "ipv6": False, "ipv6_on_host": True, "preferred_derp": "lo1", "port_mapping": [],
}  # fmt: skip
# What is recognised by its form: times, HTTP's too, the marks around others' text, ports of this machine.
FORMS = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "2026-01-02T03:04:05Z"),
    (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", "Fri, 02 Jan 2026 03:04:05 GMT"),
    (r"(</?(?:data|message)) [0-9a-f]{16}>", r"\1 0123456789abcdef>"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:41641"),
)


@dataclass(frozen=True)
class Asked:
    """One call: its arguments, and what was answered, as JSON or as text."""

    arguments: dict[str, Any]
    language: str
    answer: str


class _Run:
    """The calls of one run, with the stand-ins for what this run alone has."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = dict(known)
        self.asked: dict[str, Asked] = {}

    async def ask(self, agent: Agent, tool: str, **arguments: str | int | list[str]) -> None:
        result = await agent.succeed(PREFIX + tool, **arguments)
        if tool == "send_message" and result.structured:
            self.known[result.structured["id"]] = MESSAGE
        if result.structured is None:
            language, answer = "text", result.text
        else:
            language, answer = "json", json.dumps(steady(result.structured), indent=2, ensure_ascii=False)
        shown = {name: self._stood_in(value) if isinstance(value, str) else value for name, value in arguments.items()}
        self.asked[PREFIX + tool] = Asked(shown, language, self._stood_in(answer).rstrip())

    def _stood_in(self, text: str) -> str:
        for actual, stand_in in self.known.items():
            text = text.replace(actual, stand_in)
        return shaped(text)


def steady(value: Any, field: str = "") -> Any:  # noqa: ANN401 - JSON
    """Data with a stand-in in each field that a machine or a moment decides; regions in the order of their codes."""
    if field in STAND_INS and value is not None:
        return STAND_INS[field]
    if isinstance(value, dict):
        return {name: steady(one, name) for name, one in value.items()}
    if isinstance(value, list):
        items = sorted(value, key=lambda region: region["code"]) if field == "regions" else value
        return [steady(item) for item in items]
    return value


def shaped(text: str) -> str:
    """Text with a stand-in for each time, port, mark and id in it."""
    for form, stand_in in FORMS:
        text = re.sub(form, stand_in, text, flags=re.MULTILINE)
    return text


async def asked() -> dict[str, Asked]:
    """Asks each tool on a tailnet of this run's own, from a person's desk and laptop; "web" is another program."""
    with tempfile.TemporaryDirectory(prefix="cc-tailscale-pages-") as folder, Localnet.started() as tailnet:
        home = Path(folder)
        with tailnet.peer("web"):
            async with (
                Agent.started(environ(tailnet, home, "ada")) as desk,
                Agent.started(environ(tailnet, home, "laptop")) as laptop,
            ):
                names = [str((await agent.status())["hostname"]) for agent in (desk, laptop)]
                run = _Run(
                    {
                        tailnet.control_url: "http://control.example.com",
                        names[0]: "cc-ada-app-3f2a",
                        names[1]: "cc-laptop-app-91c7",
                    }
                )
                await _reach(run, desk)
                await _talk(run, desk, laptop, names[1])
                await _work(run, desk, laptop, names[0])
    return run.asked


async def _reach(run: _Run, agent: Agent) -> None:
    for _ in range(MAX_WARM_UP):
        pinged = (await agent.succeed(f"{PREFIX}ping", host="web", count=1)).structured
        if pinged and pinged["replies"][0]["path"].startswith("direct"):
            break
    await run.ask(agent, "status")
    await run.ask(agent, "fetch", url="http://web/")
    await run.ask(agent, "devices", filter="web")
    await run.ask(agent, "whois", address="web")
    await run.ask(agent, "dns_lookup", name="web")
    await run.ask(agent, "ping", host="web", count=2)
    await run.ask(agent, "connect_test", host="web", port=80)
    await run.ask(agent, "acl_check", source="web", port=80)
    await run.ask(agent, "netcheck")
    await run.ask(agent, "cert", domain="web")
    await run.ask(agent, "port_forward", action="create", host="web", port=80)


async def _talk(run: _Run, desk: Agent, laptop: Agent, name: str) -> None:
    await run.ask(desk, "agents", status="Fixing the login test")
    await run.ask(desk, "send_message", to=name, subject="Port 8080", body="Is your dev server still using it?")
    await run.ask(laptop, "check_messages")


async def _work(run: _Run, desk: Agent, laptop: Agent, name: str) -> None:
    await run.ask(desk, "team_create", name="release")
    await desk.succeed(f"{PREFIX}task_create", subject="Fix the login test")
    await run.ask(desk, "task_create", subject="Publish", blocked_by=["task-1"])
    await run.ask(laptop, "team_join", lead_hostname=name)
    await run.ask(laptop, "task_update", action="claim")
    await run.ask(desk, "task_list")
    await run.ask(desk, "team_info")
    await run.ask(laptop, "team_leave")


def environ(tailnet: Localnet, home: Path, user: str, owner: str = OWNER) -> dict[str, str]:
    """A session of `owner` on the machine that is called `user`."""
    repository = home / user / "app" / ".git"
    repository.mkdir(parents=True)
    (repository / "HEAD").write_text("ref: refs/heads/main\n")
    return {
        "TS_AUTHKEY": tailnet.key(user=owner, reusable=True, ephemeral=True),
        "TS_CONTROL_URL": tailnet.control_url,
        "TS_ENABLE_TEAMS": "1",
        "TS_STATE_DIR": str(home / user / "state"),
        "CLAUDE_PROJECT_DIR": str(repository.parent),
        "HOME": str(home / user),
        "USER": user,
    }


def kept() -> dict[str, Asked]:
    return {tool: Asked(**one) for tool, one in json.loads(FILE.read_text(encoding="utf-8")).items()}


def as_text(answers: Mapping[str, Asked]) -> str:
    return json.dumps({tool: asdict(one) for tool, one in answers.items()}, indent=1, ensure_ascii=False) + "\n"
