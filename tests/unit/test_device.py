"""What a device makes of its bus, where the moment matters."""

import asyncio
from pathlib import Path

import pytest

from cctailscale.errors import LoginNeeded
from cctailscale.tailnet.binding import NodeConfig
from cctailscale.tailnet.device import Device
from cctailscale.tailnet.models import Notify

URL = "https://login.example.com/a/1"


async def test_a_login_that_is_completed_while_a_call_gives_up_is_not_taken_for_a_time_out() -> None:
    device = Device(NodeConfig("web", Path("/nonexistent")), "")
    device._take(Notify(browse_to_url=URL))
    asyncio.get_running_loop().call_soon(device._take, Notify(login_finished={}))
    with pytest.raises(LoginNeeded):
        await device.joined(5)
    assert device.login_url is None  # the bus did speak meanwhile
