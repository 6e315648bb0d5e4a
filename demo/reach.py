"""The steps in which Claude finds out what can be reached, and lets a local program reach it."""

from __future__ import annotations

import urllib.request

import anyio.to_thread

from demo.stage import Stage, expect

CLOSED_PORT = 81
OPEN_SECONDS = 10.0


async def the_diagnosis(stage: Stage) -> str:
    """Who is there, how it is reached, and why a port is not."""
    peer = stage.peer["hostname"]
    listed = await stage.data(stage.alice, "tailscale_devices")
    rows = listed["devices"]
    stage.screen.facts(
        {row["name"]: "this node" if row.get("this_node") else f"{row['owner']}, {row.get('path')}" for row in rows}
    )
    expect([row["name"] for row in rows[1:]] == [stage.peer["name"]], f"the devices are {rows}")

    pings = await stage.data(stage.alice, "tailscale_ping", host=peer, count=1)
    stage.screen.facts({"received": f"{pings['received']} of {pings['sent']}, on average after {pings['avg_ms']} ms"})
    expect(pings["received"] == 1, f"the ping was lost: {pings}")
    expect(pings["replies"][0]["path"].startswith("direct"), f"the path is not direct: {pings}")

    tested = await stage.data(stage.alice, "tailscale_connect_test", host=peer, port=CLOSED_PORT)
    stage.screen.facts({"reachable": f"no: {tested['reason']}. {tested['explanation']}"})
    expect(tested["reason"] == "refused", f"port {CLOSED_PORT} is {tested}")
    return "the device is there, the path is direct, and it is the port that is closed"


async def the_forward(stage: Stage) -> str:
    """A program on this machine, which has no tailnet of its own, opens the peer's page."""
    created = await stage.data(
        stage.alice, "tailscale_port_forward", action="create", host=stage.peer["hostname"], port=80
    )
    stage.screen.facts({"local": created["local"], "target": created["target"]})
    stage.screen.note(f"A program that knows nothing of the tailnet opens http://{created['local']}/:")
    page = await anyio.to_thread.run_sync(_opened, f"http://{created['local']}/")
    stage.screen.quote(page)
    expect(f"Hello from {stage.peer['name']}" in page, "that is not the peer's page")
    (forward,) = (await stage.data(stage.alice, "tailscale_port_forward", action="list"))["forwards"]
    sent, received = forward["sent_bytes"], forward["received_bytes"]
    stage.screen.facts({forward["id"]: f"{sent} bytes to the peer, {received} bytes from it"})
    expect(forward["connections_total"] == 1, f"the forward has seen {forward['connections_total']} connections")
    await stage.data(stage.alice, "tailscale_port_forward", action="close", id=forward["id"])
    return "a local program was served through the tailnet"


def _opened(url: str) -> str:
    """The page at a URL, without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=OPEN_SECONDS) as response:
        page: bytes = response.read()
    return page.decode()
