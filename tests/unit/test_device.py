"""What a device makes of its bus, where the moment matters, and where its errors send people."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cctailscale.config import load_settings
from cctailscale.errors import LoginNeeded
from cctailscale.tailnet.binding import NodeConfig
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.models import IPNState, Notify

URL = "https://login.example.com/a/1"
CONSOLE = "https://login.tailscale.com/admin/machines"
HEADSCALE = "https://headscale.example.com"


async def test_a_login_that_is_completed_while_a_call_gives_up_is_not_taken_for_a_time_out() -> None:
    device = Device(NodeConfig("web", Path("/nonexistent")), "")
    device._take(Notify(browse_to_url=URL))
    asyncio.get_running_loop().call_soon(device._take, Notify(login_finished={}))
    with pytest.raises(LoginNeeded):
        await device.joined(5)
    assert device.login_url is None  # the bus did speak meanwhile


@pytest.mark.parametrize(
    ("control_url", "where"),
    [
        (load_settings({}).settings.control_url, CONSOLE),
        ("", CONSOLE),
        ("https://login.tailscale.com", CONSOLE),
        (HEADSCALE, HEADSCALE),
    ],
)
def test_a_device_that_waits_for_approval_says_where_it_is_given(control_url: str, where: str) -> None:
    device = Device(NodeConfig("cc-tester", Path("/nowhere"), control_url), "TS_AUTHKEY")
    device.state = IPNState.NeedsMachineAuth
    assert f"Have it approved at {where}, then" in str(device.obstacle())


@pytest.mark.parametrize(
    ("secret", "url"),
    [
        ("tskey-client-kX-y", "https://api.tailscale.com"),
        ("tskey-client-kX-y?ephemeral=true&preauthorized=true", "https://api.tailscale.com"),
        ("tskey-client-kX-y?ephemeral=true&baseURL=http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
@pytest.mark.parametrize("control_url", ["", load_settings({}).settings.control_url, HEADSCALE])
def test_a_client_secret_is_exchanged_where_it_says_whatever_control_is(
    control_url: str, secret: str, url: str
) -> None:
    assert NodeConfig("cc-tester", Path("/nowhere"), control_url, client_secret=secret).oauth_url == url
