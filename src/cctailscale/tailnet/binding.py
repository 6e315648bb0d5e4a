"""The Go node as Python calls: the only module that touches the extension.

How control crosses into C:

1. Every call runs in a worker thread, since a C call cannot be interrupted, and has a time-out of its own in C. When
   the waiting task is cancelled, the thread is left to end by that time-out; what it still brings is disposed of.
2. The GIL is released for the length of a call (cffi does that), so that the event loop goes on.
3. A failing call hands out a text of its own. `_failure` is the only place where a code and that text become an error.
4. The Go runtime lives in the process that loaded it. A forked child would hang in its first call, so it is refused.

`libtailscale/tailscale.h` is the contract: units, ownership, errors.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from json import dumps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs

import anyio
import anyio.to_thread

from cctailscale.config import DEFAULT_CONTROL_URL
from cctailscale.errors import (
    CcTailscaleError,
    ConnectionRefused,
    ControlUnreachable,
    ForkError,
    KeyRefused,
    NodeClosed,
    NodeFailed,
    NotOnTailnet,
    StateDirError,
    TimedOut,
    Unreachable,
)

T = TypeVar("T")

# Dials that wait at the same time: each holds a thread until it connects or times out.
MAX_DIALS = 64
# All other calls. They have threads of their own, so that no dial can keep a logout from being the first thing sent.
MAX_CALLS = 64
# For a call that only has to get through this process.
CALL_SECONDS = 5.0
# Empty, and the two names that it has: ipn.IsLoginServerSynonym.
TAILSCALES_CONTROL = ("", DEFAULT_CONTROL_URL, "https://login.tailscale.com")
# Where client secrets are exchanged, whatever the control server is; `oauthBaseURL` in libtailscale/oauth.go.
OAUTH_URL = "https://api.tailscale.com"
# Added in Python to the time-out in C, for the way through the thread pool.
GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The configuration of one node; the fields are those of `tailscale_new` in tailscale.h."""

    hostname: str
    state_dir: Path
    control_url: str = ""
    auth_key: str = field(default="", repr=False)
    client_secret: str = field(default="", repr=False)
    tags: tuple[str, ...] = ()
    ephemeral: bool = True
    accept_routes: bool = True
    upload_logs: bool = False
    allow_host_network: bool = False
    verbose: bool = False
    redact: tuple[str, ...] = field(default=(), repr=False)

    @property
    def other_control(self) -> str | None:
        """The control server, unless it is Tailscale's own."""
        return None if self.control_url in TAILSCALES_CONTROL else self.control_url

    @property
    def oauth_url(self) -> str:
        """Where the client secret is exchanged: the only server that a start waits for."""
        return _oauth_url(self.client_secret)

    def to_json(self) -> str:
        return dumps(asdict(self), default=str)


def _oauth_url(client_secret: str) -> str:
    return parse_qs(client_secret.partition("?")[2]).get("baseURL", [OAUTH_URL])[0]


class Loopback(NamedTuple):
    """The node's port on 127.0.0.1 and its two passwords (SOCKS5 user "tsnet"; LocalAPI with an empty user)."""

    host: str
    port: int
    socks_password: str
    api_password: str

    def __repr__(self) -> str:
        return f"Loopback({self.host}:{self.port})"


@cache
def _extension() -> Any:  # noqa: ANN401 - a cffi module has no types
    try:
        from cctailscale import _libtailscale  # type: ignore[attr-defined] # a binary
    except ImportError as error:
        raise NodeFailed(f"its extension cannot be loaded ({error}); reinstall cc-tailscale") from error
    _owner.append(os.getpid())
    return _libtailscale


_owner: list[int] = []


@cache
def _threads(dials: bool) -> anyio.CapacityLimiter:
    """The pool for dials, or the one for all else. Made late, since a limiter needs a running loop."""
    return anyio.CapacityLimiter(MAX_DIALS if dials else MAX_CALLS)


def load() -> None:
    """Loads the extension and with it the Go runtime. Blocking (some milliseconds); safe to repeat."""
    _extension()


class _Subject(NamedTuple):
    """What a call is about, for the text of its error."""

    target: str
    seconds: float = 0.0
    state_dir: Path = Path()


def _call(name: str, *arguments: object, about: _Subject) -> None:
    """Calls `tailscale_<name>` and raises what its code stands for."""
    extension = _extension()
    if _owner[0] != os.getpid():
        raise ForkError(_owner[0], os.getpid())
    error = extension.ffi.new("char **")
    code = getattr(extension.lib, f"tailscale_{name}")(*arguments, error)
    if code != extension.lib.TAILSCALE_OK:
        raise _failure(code, name, _take(error), about)


def _take(pointer: Any) -> str:  # noqa: ANN401 - a cffi pointer
    """The string behind a `char **` that C handed out, which is freed."""
    extension = _extension()
    try:
        return extension.ffi.string(pointer[0]).decode("utf-8", "replace") if pointer[0] else ""
    finally:
        extension.lib.tailscale_free(pointer[0])
        pointer[0] = extension.ffi.NULL


def _failure(code: int, call: str, text: str, about: _Subject) -> CcTailscaleError:
    lib = _extension().lib
    joining = call in ("start", "login")
    errors: dict[int, Callable[[], CcTailscaleError]] = {
        lib.TAILSCALE_ERR_CLOSED: NodeClosed,
        lib.TAILSCALE_ERR_TIMEOUT: lambda: (
            # All else in a start takes milliseconds. A login may also wait for the control client that it replaces.
            ControlUnreachable(
                about.target,
                f"{'its OAuth server said nothing' if call == 'start' else 'the login did not begin'} "
                f"within {about.seconds:g} s",
            )
            if joining
            else TimedOut(about.target, about.seconds)
        ),
        lib.TAILSCALE_ERR_NOT_ON_TAILNET: lambda: NotOnTailnet(about.target, text),
        lib.TAILSCALE_ERR_REFUSED: lambda: ConnectionRefused(about.target),
        lib.TAILSCALE_ERR_UNREACHABLE: lambda: (
            ControlUnreachable(about.target, text) if joining else Unreachable(about.target, text)
        ),
        lib.TAILSCALE_ERR_KEY: lambda: KeyRefused(text, "TS_CLIENT_SECRET"),
        lib.TAILSCALE_ERR_STATE: lambda: StateDirError(
            # The end of Go's text is the system's reason; before it come the names of Go's functions and files.
            about.state_dir,
            f"cannot be used ({text.rpartition(': ')[2]})",
            "Free some space, or correct its owner and permissions.",
        ),
    }
    return errors.get(code, lambda: NodeFailed(f"{call}: {text}"))()


async def _in_thread(
    call: Callable[[], T], dispose: Callable[[T], object], seconds: float, *, dials: bool = False
) -> T:
    """Runs `call` in a thread. If nobody waits for its result any more, `dispose` gets it."""
    lock = threading.Lock()
    results: list[T] = []
    abandoned = False

    def run() -> None:
        result = call()
        with lock:
            results.append(result)
            if abandoned:
                dispose(result)

    try:
        with anyio.fail_after(seconds + GRACE_SECONDS):
            await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=_threads(dials))
    except BaseException as stopped:
        with lock:
            abandoned = True
            for result in results:
                dispose(result)
        if isinstance(stopped, TimeoutError):
            raise NodeFailed(f"a call did not return within {seconds:g} s") from stopped
        raise
    return results[0]


def _nothing(_: object) -> None:
    """Disposes of a result that holds nothing."""


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class NodeHandle:
    """One node in Go. Made by `open`, ended by `close`; the calls are those of tailscale.h."""

    def __init__(self, number: int, config: NodeConfig) -> None:
        self._number = number
        self._config = config

    @classmethod
    async def open(cls, config: NodeConfig) -> "NodeHandle":
        """Makes a node (`tailscale_new`). Nothing is sent before `start`. Raises NodeFailed."""

        def new() -> NodeHandle:
            number = _extension().ffi.new("int *")
            _call("new", config.to_json().encode(), number, about=_Subject(config.hostname))
            return cls(number[0], config)

        return await _in_thread(new, cls._close_now, CALL_SECONDS)

    async def start(self, seconds: float) -> None:
        """Starts the node, and exchanges an OAuth client secret first; the bus tells the rest.

        Raises KeyRefused, ControlUnreachable (the OAuth server), StateDirError, NodeClosed, NodeFailed.
        """
        about = _Subject(self._config.oauth_url, seconds, self._config.state_dir)
        await _in_thread(lambda: _call("start", self._number, _milliseconds(seconds), about=about), _nothing, seconds)

    async def loopback(self) -> Loopback:
        """Opens (once) the port for SOCKS5 and LocalAPI. Raises NodeClosed, NodeFailed."""

        def loopback() -> Loopback:
            new = _extension().ffi.new
            address, socks, api = new("char **"), new("char **"), new("char **")
            _call("loopback", self._number, address, socks, api, about=_Subject(self._config.hostname))
            host, _, port = _take(address).rpartition(":")
            return Loopback(host, int(port), _take(socks), _take(api))

        return await _in_thread(loopback, _nothing, CALL_SECONDS)

    async def dial(self, address: str, seconds: float) -> socket.socket:
        """A connection to "ip:port" on the tailnet, through the guard.

        Raises NotOnTailnet, ConnectionRefused, Unreachable, TimedOut, NodeClosed, NodeFailed.
        """
        about = _Subject(address, seconds)
        return await self._socket_from("dial", address.encode(), _milliseconds(seconds), about=about)

    async def listen(self, port: int) -> socket.socket:
        """A socket on which connections to `port` of this node arrive; see `tailscale_listen`.

        Raises NodeClosed, NodeFailed.
        """
        return await self._socket_from("listen", f":{port}".encode(), about=_Subject(f":{port}", CALL_SECONDS))

    async def _socket_from(self, name: str, *arguments: object, about: _Subject) -> socket.socket:
        def call() -> socket.socket:
            fd = _extension().ffi.new("int *", -1)
            _call(name, self._number, b"tcp", *arguments, fd, about=about)
            return socket.socket(fileno=fd[0])

        return await _in_thread(call, socket.socket.close, about.seconds, dials=name == "dial")

    async def whois(self, address: str) -> str:
        """Which device has `address`, an IP or "ip:port": the JSON of LocalAPI's `whois`, or "null" for no device.

        An empty address is this node's own. Raises TimedOut, NodeClosed, NodeFailed.
        """
        about = _Subject("the node", CALL_SECONDS)

        def whois() -> str:
            answer = _extension().ffi.new("char **")
            _call("whois", self._number, address.encode(), _milliseconds(CALL_SECONDS), answer, about=about)
            return _take(answer)

        return await _in_thread(whois, _nothing, CALL_SECONDS)

    async def known(self, seconds: float) -> bool:
        """Asks control whether it still has this device (`tailscale_known`).

        Raises TimedOut and Unreachable (control does not say), NodeClosed, NodeFailed.
        """
        about = _Subject("control", seconds)

        def known() -> bool:
            answer = _extension().ffi.new("int *")
            _call("known", self._number, _milliseconds(seconds), answer, about=about)
            return bool(answer[0])

        return await _in_thread(known, _nothing, seconds)

    async def netcheck(self, seconds: float) -> str:
        """What the network around this host is like: the JSON document of `tailscale_netcheck`.

        Raises Unreachable (control has named no DERP region yet), TimedOut, NodeClosed, NodeFailed.
        """
        about = _Subject("the DERP regions", seconds)

        def netcheck() -> str:
            report = _extension().ffi.new("char **")
            _call("netcheck", self._number, _milliseconds(seconds), report, about=about)
            return _take(report)

        return await _in_thread(netcheck, _nothing, seconds)

    async def login(self, auth_key: str, client_secret: str, seconds: float) -> None:
        """Logs the node in again, in its place (`tailscale_login`); the bus tells what comes of it.

        Raises KeyRefused and ControlUnreachable (both of a client secret's exchange), NodeClosed, NodeFailed.
        """
        about = _Subject(_oauth_url(client_secret), seconds, self._config.state_dir)

        def login() -> None:
            keys = auth_key.encode(), client_secret.encode()
            _call("login", self._number, *keys, _milliseconds(seconds), about=about)

        await _in_thread(login, _nothing, seconds)

    async def logout(self, seconds: float) -> None:
        """Tells control that the node is gone, and waits for the answer. Raises TimedOut, NodeClosed, NodeFailed."""
        about = _Subject("control", seconds)
        await _in_thread(lambda: _call("logout", self._number, _milliseconds(seconds), about=about), _nothing, seconds)

    async def close(self, seconds: float = CALL_SECONDS) -> None:
        """Ends the node and every connection through it. Closing twice is no error."""
        await _in_thread(lambda: self._close_now(seconds), _nothing, seconds)

    def _close_now(self, seconds: float = CALL_SECONDS) -> None:
        with suppress(NodeClosed, TimedOut):  # closed already, or still closing by itself
            _call("close", self._number, _milliseconds(seconds), about=_Subject(self._config.hostname, seconds))
