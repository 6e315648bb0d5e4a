"""The catalogue of tools, as the SDK registers them: annotations that are true, schemas that take nothing unknown.

Making the schemas takes some milliseconds and the types of all results, so it is done once `initialize` is answered.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp_types import ToolAnnotations
from pydantic import BaseModel

from cctailscale.tools import checks, diagnostics, forwards, messaging, networking

if TYPE_CHECKING:
    from cctailscale.agents.agent import Agent
    from cctailscale.agents.inbound import InboundForwards
    from cctailscale.agents.teamwork import Teamwork
    from cctailscale.redact import Redactor
    from cctailscale.tailnet.forward import Forwards
    from cctailscale.tailnet.node import Node


def tools_of(
    node: Node,
    outbound: Forwards,
    inbound: InboundForwards,
    agent: Agent,
    teamwork: Teamwork | None,
    redactor: Redactor,
) -> list[Tool]:
    """Every tool, with annotations that are true and a schema that takes no unknown parameter.

    Those for teams only with `teamwork`.
    """
    tools = [*tailnet_tools(node, outbound, inbound, redactor), *agent_tools(node, agent)]
    return tools if teamwork is None else [*tools, *team_tools(teamwork)]


def tailnet_tools(node: Node, outbound: Forwards, inbound: InboundForwards, redactor: Redactor) -> list[Tool]:
    """Those that reach what is on the tailnet, and find out why not."""
    networking_tools = networking.Networking(node, redactor)
    forwarding = forwards.PortForwarding(node, outbound, inbound)
    diagnosing = diagnostics.Diagnostics(node)
    checking = checks.Checks(node)
    return [
        _tool(networking_tools.tailscale_status, "Tailscale status", read_only=True),
        _tool(networking_tools.tailscale_fetch, "Fetch from the tailnet", read_only=False, meta=networking.META),
        _tool(diagnosing.tailscale_devices, "Devices of the tailnet", read_only=True),
        _tool(diagnosing.tailscale_whois, "Who has an address", read_only=True),
        _tool(diagnosing.tailscale_dns_lookup, "Look a name up", read_only=True),
        _tool(diagnosing.tailscale_ping, "Ping a device", read_only=True),
        _tool(diagnosing.tailscale_connect_test, "Test a connection", read_only=True),
        _tool(checking.tailscale_acl_check, "Check access to this node", read_only=True),
        _tool(checking.tailscale_netcheck, "Check the network", read_only=True),
        _tool(checking.tailscale_cert, "HTTPS certificate", read_only=False, destructive=False),
        _tool(forwarding.tailscale_port_forward, "Forward a port to or from the tailnet", read_only=False),
    ]


def agent_tools(node: Node, agent: Agent) -> list[Tool]:
    """Those that talk to other agents."""
    talking = messaging.Messaging(node, agent)
    return [
        _tool(talking.tailscale_agents, "Other agents", read_only=False, destructive=False),
        _tool(talking.tailscale_send_message, "Send a message to agents", read_only=False, destructive=False),
        _tool(
            talking.tailscale_check_messages,
            "Read messages from agents",
            read_only=False,
            destructive=False,
            meta=messaging.META,
        ),
    ]


def team_tools(teamwork: Teamwork) -> list[Tool]:
    """Those for work that several agents share."""
    from cctailscale.tools.tasks import Tasks
    from cctailscale.tools.teams import Teams

    teams, tasks = Teams(teamwork), Tasks(teamwork)
    return [
        _tool(teams.tailscale_team_create, "Create a team", read_only=False, destructive=False),
        _tool(teams.tailscale_team_join, "Join a team", read_only=False, destructive=False),
        _tool(teams.tailscale_team_info, "The team", read_only=True),
        _tool(teams.tailscale_team_leave, "Leave the team", read_only=False),
        _tool(tasks.tailscale_task_create, "Add a task", read_only=False, destructive=False),
        _tool(tasks.tailscale_task_list, "Tasks of the team", read_only=True),
        _tool(tasks.tailscale_task_update, "Claim, complete or change a task", read_only=False),
    ]


def _tool(
    call: Callable[..., Awaitable[Any]],
    title: str,
    *,
    read_only: bool,
    destructive: bool | None = None,
    meta: dict[str, Any] | None = None,
) -> Tool:
    # A model that sees structured content sees nothing else: prose must not be wrapped into it.
    returned = inspect.signature(call, eval_str=True).return_annotation
    prose = not (isinstance(returned, type) and issubclass(returned, BaseModel))
    tool = Tool.from_function(
        call,
        title=title,
        description=inspect.getdoc(call),  # the docstring itself is indented
        meta=meta,
        structured_output=not prose,
        annotations=ToolAnnotations(
            read_only_hint=read_only,
            destructive_hint=not read_only if destructive is None else destructive,
            idempotent_hint=read_only,
            open_world_hint=True,
        ),
    )
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"  # the SDK would ignore it silently
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    tool.fn_metadata = _Arguments(**dict(tool.fn_metadata))
    return tool


class _Arguments(FuncMetadata):
    """As the SDK's, which reads JSON in a string where a parameter may be something else than a string as well.

    That is kept for clients that send an object as text. Where a string is welcome it would turn a body of JSON, or
    the body "null", into something else than was sent.
    """

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        fields = self.arg_model.model_fields
        return super().pre_parse_json(data) | {
            name: value for name, value in data.items() if name in fields and _takes_text(fields[name].annotation)
        }


def _takes_text(annotation: Any) -> bool:  # noqa: ANN401 - any annotation
    if get_origin(annotation) is Annotated:
        return _takes_text(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_takes_text, get_args(annotation)))
    return annotation is str
