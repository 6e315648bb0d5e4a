"""A tailnet of our own for tests, demo and benchmarks: the program in libtailscale/localnet, run and steered.

Everything is on loopback, with real WireGuard, DERP and control. `CCTAILSCALE_LOCALNET` names the built program.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = "CCTAILSCALE_LOCALNET"
DEFAULT_PROGRAM = Path(__file__).parent.parent / "build" / "localnet"
# A child that has not said its line by then is broken; a join takes less than a tenth of a second.
START_SECONDS = 30.0


def program() -> Path:
    """The built localnet program."""
    path = Path(os.environ.get(PROGRAM, DEFAULT_PROGRAM))
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not built: run `nox -s localnet`, or set {PROGRAM} to the program")
    return path


@contextlib.contextmanager
def running(*arguments: str, environ: dict[str, str] | None = None) -> Iterator[tuple[dict[str, Any], int]]:
    """Runs a localnet subcommand; gives its ready line and its pid. It ends with the block."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TS_DISABLE_PORTMAPPER": "1"} | (environ or {})
    child = subprocess.Popen(
        [program(), *arguments, "-stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"localnet {arguments[0]} ended with exit code {child.wait(START_SECONDS)}")
        yield json.loads(line), child.pid
    finally:
        child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(5)
        child.stdout.close()


class Localnet:
    """A running control server (with DERP and STUN) and what its admin API does."""

    def __init__(self, ready: dict[str, Any], pid: int) -> None:
        self.pid = pid
        self.control_url: str = ready["control_url"]
        self.admin_url: str = ready["admin_url"]
        self.magic_dns_suffix: str = ready["magic_dns_suffix"]
        self.auth_key: str = ready["auth_key"]  # reusable, of alice@example.com
        self.client_secret: str = ready["client_secret"]

    @classmethod
    @contextlib.contextmanager
    def started(cls, *arguments: str) -> Iterator[Localnet]:
        with running("serve", *arguments) as (ready, pid):
            yield cls(ready, pid)

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None, seconds: float = 30) -> Any:
        """One call of the admin API (libtailscale/localnet/admin.go lists them)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.admin_url + path, data=data, method=method)  # noqa: S310 - our own URL
        request.add_header("Content-Type", "application/json")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=seconds) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def key(self, **spec: Any) -> str:
        """Makes an auth key: user, reusable, ephemeral, preauthorized, tags, expired, key (the text itself)."""
        key: str = self.admin("POST", "/keys", spec)["key"]
        return key

    def nodes(self) -> list[dict[str, Any]]:
        """All devices that control knows."""
        nodes: list[dict[str, Any]] = self.admin("GET", "/nodes")["nodes"]
        return nodes

    def node(self, hostname: str) -> dict[str, Any]:
        """The device that asked for this hostname."""
        found = [node for node in self.nodes() if node["hostname"] == hostname]
        assert len(found) == 1, f"{len(found)} devices are called {hostname}"
        return found[0]

    def agents(self) -> list[dict[str, Any]]:
        """The devices of cc-tailscale processes."""
        return [node for node in self.nodes() if node["hostname"].startswith("cc-")]

    def last_event(self) -> int:
        """The number of the last event so far, for `wait_for`."""
        events = self.admin("GET", "/events?after=0&wait_ms=0")["events"]
        return max((event["seq"] for event in events), default=0)

    def wait_for(
        self, kind: str, hostname: str | None = None, *, after: int = 0, seconds: float = 20
    ) -> dict[str, Any]:
        """The first event of a kind (registered, online, offline, logout, removed, …) after number `after`."""
        query: dict[str, Any] = {"kind": kind} | ({"hostname": hostname} if hostname else {})
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            query |= {"after": after, "wait_ms": max(1, int(left * 1000))}
            events = self.admin("GET", f"/events?{urllib.parse.urlencode(query)}", seconds=left + 5)["events"]
            if events:
                event: dict[str, Any] = events[0]
                return event
        raise TimeoutError(f"no event {kind} of {hostname or 'anybody'} within {seconds:g} s")

    def faults(self, **faults: Any) -> None:
        """Sets what is wrong with control (delay_ms, logout_delay_ms, hang, outage, …); none given: nothing."""
        self.admin("PUT", "/faults", faults)

    def cut(self, *pairs: tuple[str, str]) -> None:
        """Lets no packet pass between these nodes ("*": all others) and no longer keeps others apart; none: nobody.

        They go on to see each other, and control.
        """
        self.admin("PUT", "/cuts", {"cuts": pairs})

    @contextlib.contextmanager
    def peer(self, hostname: str, *arguments: str, key: str | None = None) -> Iterator[dict[str, Any]]:
        """A peer with HTTP, HTTPS and TCP services (libtailscale/localnet/peer.go), as long as the block."""
        flags = ["-control", self.control_url, "-authkey", key or self.auth_key, "-hostname", hostname]
        with running("peer", *flags, *arguments) as (ready, pid):
            yield ready | {"pid": pid}
