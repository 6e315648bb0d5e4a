"""Tools that find out who is on the tailnet and whether they can be reached."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

from cctailscale.tailnet.node import Node
from cctailscale.tailnet.peers import CURSOR_PATTERN, MAX_PORT, page
from cctailscale.tailnet.results import ConnectTest, Devices, DnsLookup, Identity, Pings, PingType, RecordType
from cctailscale.tools.progress import Progress

# A row takes about 80 tokens, and Claude Code warns at 10,000.
MAX_ROWS = 100
MAX_PINGS = 20
# Names have at most 253 characters, IPv6 addresses with a port 47. What is longer than this is refused without being
# looked at; what is shorter, with the forms that are taken.
MAX_HOST_CHARS = 1000

Host = Annotated[
    str,
    Field(max_length=MAX_HOST_CHARS, description="short or full MagicDNS name, or IPv4 or IPv6 address"),
]
Port = Annotated[int, Field(ge=1, le=MAX_PORT)]
Seconds = Annotated[float, Field(gt=0, le=60)]


class Diagnostics:
    """The tools; each docstring is what Claude reads."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def tailscale_devices(
        self,
        ctx: Context[Any],
        filter: Annotated[  # noqa: A002 - Claude's word
            str, Field(max_length=200, description="words that name, address, OS, owner, tag or route must hold")
        ] = "",
        online_only: bool = False,
        limit: Annotated[int, Field(ge=1, le=MAX_ROWS, description="devices on a page, at most")] = 50,
        cursor: Annotated[
            str | None, Field(pattern=CURSOR_PATTERN, max_length=400, description="`cursor` of the page before")
        ] = None,
    ) -> Devices:
        """Lists the devices of the tailnet: name, addresses, OS, owner or tags, online, path, exit node, routes.

        This node comes first and is marked, the others by name. Use `filter` rather than paging through all of them.
        """
        from cctailscale.tailnet.identify import with_owners

        device = await self._node.device(Progress(ctx))
        status = await with_owners(device, await device.api.shared_status())
        return page(status, filter, online_only, limit, cursor)

    async def tailscale_whois(
        self,
        ctx: Context[Any],
        address: Annotated[
            str, Field(max_length=MAX_HOST_CHARS, description="IP, IP:port, or short or full MagicDNS name")
        ],
    ) -> Identity:
        """Says which device of the tailnet has an address or name, and whose it is.

        Owner (login) or tags, addresses, OS, online, last seen, key expiry, and the app capabilities that the policy
        grants it here. The owner is what control vouches for, not what the device says of itself.
        """
        from cctailscale.tailnet.identify import who_is

        return await who_is(await self._node.device(Progress(ctx)), address)

    async def tailscale_dns_lookup(
        self,
        ctx: Context[Any],
        name: Host,
        type: RecordType = "A",  # noqa: A002 - DNS's word
    ) -> DnsLookup:
        """Asks the tailnet's own DNS: MagicDNS, its extra records and split-DNS routes, never this machine's resolver.

        Short names are completed with the tailnet's domain. An address is looked up backwards (PTR). Says which
        resolver answered, and which device the name leads to, if any. tailscale_fetch resolves names in the same way.
        """
        from cctailscale.tailnet.dnsquery import look_up

        return await look_up(await self._node.device(Progress(ctx)), name, type)

    async def tailscale_ping(
        self,
        ctx: Context[Any],
        host: Host,
        type: Annotated[  # noqa: A002 - Tailscale's word
            PingType,
            Field(description="disco: the path itself; tsmp: through WireGuard; icmp: its OS; peerapi: its Tailscale"),
        ] = "disco",
        count: Annotated[int, Field(ge=1, le=MAX_PINGS)] = 4,
        timeout_seconds: Annotated[Seconds, Field(description="for each reply")] = 5,
    ) -> Pings:
        """Pings a device and says by which path: direct, relayed by a DERP region, or by a peer relay.

        Gives each reply's latency, then minimum, average, maximum and loss, and when the path became direct. disco and
        tsmp pass whatever the access rules say, so they tell "offline" from "not allowed".
        """
        from cctailscale.tailnet import reach

        progress = Progress(ctx)
        return await reach.ping(await self._node.device(progress), host, type, count, timeout_seconds, progress)

    async def tailscale_connect_test(
        self,
        ctx: Context[Any],
        host: Host,
        port: Port,
        timeout_seconds: Annotated[
            Seconds, Field(description="for the connection; a ping that tells its path may take 2 s more")
        ] = 5,
    ) -> ConnectTest:
        """Tries whether a TCP port on the tailnet takes a connection from here. Nothing is sent on it.

        If not, `reason` says why: refused (nothing listens), timed out (offline, or the access rules drop it; the
        explanation says which is likelier), no such name, no answer from DNS, not on the tailnet.
        """
        from cctailscale.tailnet import reach

        return await reach.connect_test(await self._node.device(Progress(ctx)), host, port, timeout_seconds)
