"""From what a person writes to the device that it means."""

from cctailscale.errors import NoSuchDevice
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.models import Status, WhoIs
from cctailscale.tailnet.peers import everybody, identity, router_of, split_port
from cctailscale.tailnet.results import Identity

# Who joins between two whole network maps is one person or a few.
MAX_UNKNOWN = 20


async def who_is(device: Device, text: str) -> Identity:
    """The device that `text` (a name, an address, or one of them with a port) means.

    Raises BadName, NoSuchName, NoSuchDevice, LocalApiError.
    """
    host = split_port(text)
    addresses = [str(address) for address in await device.dialer.resolve(host)]
    who = await owner_of(device, addresses)
    if who is None:
        raise NoSuchDevice(addresses[0], router_of(await device.api.shared_status(), addresses[0]))
    return identity(who, await device.api.shared_status(peers=False))


async def with_owners(device: Device, status: Status) -> Status:
    """`status` with the people whom it lacks.

    The node learns of a new person together with their first device; its `status` does not show them until the next
    whole network map, `whois` does (Tailscale 1.102).
    """
    unknown = {peer.user_id: peer.tailscale_ips for peer in everybody(status) if not peer.tags}
    for user_id in [user_id for user_id in unknown if user_id not in status.users][:MAX_UNKNOWN]:
        who = await owner_of(device, unknown[user_id][:1])
        if who is not None:
            status.users[user_id] = who.user_profile
    return status


async def owner_of(device: Device, addresses: list[str]) -> WhoIs | None:
    """The device that has the first of `addresses` that any device has."""
    for address in addresses:
        who = await device.whois(address)
        if who is not None:
            return who
    return None
