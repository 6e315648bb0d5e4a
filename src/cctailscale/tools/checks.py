"""Tools that look at this node's own standing: its packet filter, the network around it, its certificate."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cctailscale.tailnet.node import Node
from cctailscale.tailnet.results import AclCheck, Certificate, NetCheck, Protocol
from cctailscale.tools.diagnostics import MAX_HOST_CHARS, Host, Port
from cctailscale.tools.progress import Progress

# The check itself ends after five seconds, the one for port mapping included.
NETCHECK_SECONDS = 15.0
# For the certificate authority. Claude Code gives a tool a minute by default.
CERTIFICATE_SECONDS = 45.0


class Checks:
    """The tools; each docstring is what Claude reads."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def tailscale_acl_check(
        self,
        ctx: Context[Any],
        source: Annotated[
            str | None,
            Field(max_length=MAX_HOST_CHARS, description="a device's name, an IP address, or a tag such as tag:ci"),
        ] = None,
        port: Port | None = None,
        protocol: Protocol = "tcp",
    ) -> AclCheck:
        """Says who may reach which ports of this node, from its packet filter in words.

        With `source` and `port`: whether that is allowed, and by which rule. Only what comes in is decided here. For
        what this node may reach, the rules live at the other end: use tailscale_connect_test.
        """
        from cctailscale.tailnet.acl import check

        return await check(await self._node.device(Progress(ctx)), source, port, protocol)

    async def tailscale_netcheck(self, ctx: Context[Any]) -> NetCheck:
        """Checks the network around this machine: UDP, IPv4, IPv6, NAT kind, port mapping, latency to DERP regions.

        It explains why paths are relayed instead of direct, or why nothing gets through. Takes up to some seconds.
        """
        from cctailscale.tailnet import surroundings

        progress = Progress(ctx)
        device = await self._node.device(progress)
        await progress("Measuring the way to the DERP regions")
        found = surroundings.read(await device.handle.netcheck(NETCHECK_SECONDS))
        found.notice = await self._node.notice()
        return found

    async def tailscale_cert(
        self,
        ctx: Context[Any],
        domain: Annotated[Host | None, Field(description="this node's name or another host; default this node")] = None,
        save_to: Annotated[
            str | None,
            Field(description="file below the project's folder for the chain (tls/web.crt); its key goes beside it"),
        ] = None,
    ) -> Certificate:
        """Shows this node's HTTPS certificate, or the one that another host serves on port 443.

        For this node it is asked for if there is none yet (Let's Encrypt, up to 45 s); that publishes the device's name
        in the public certificate log. If HTTPS is not enabled for the tailnet, the error names the admin's step. Only
        save_to gives out the private key, into a new file that its owner alone can read.
        """
        from cctailscale.tailnet.certificate import look
        from cctailscale.tools.keypair import save_pair

        progress = Progress(ctx)
        device = await self._node.device(progress)
        if save_to is None:
            return await look(device, domain, CERTIFICATE_SECONDS, progress)
        project = self._node.settings.project_dir
        return await save_pair(device, domain, project, save_to, CERTIFICATE_SECONDS, progress)
