"""Why there is no node: its settings, its directory, its join, its end."""

# The names are the field's words for what happened; "Error" at the end of each would say nothing more.
# ruff: noqa: N818

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cctailscale.errors.text import CcTailscaleError, plain, shown_address


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """What is wrong with one setting. `problem` never holds the value that was given: it may be a secret."""

    variable: str
    problem: str
    example: str

    def __str__(self) -> str:
        return f"{self.variable} {self.problem} (Example: {self.example})"


class SettingsError(CcTailscaleError):
    """One or more environment variables cannot be used; `problems` has them all."""

    def __init__(self, problems: Sequence[SettingProblem]) -> None:
        self.problems = tuple(problems)
        count = "A setting is" if len(self.problems) == 1 else f"{len(self.problems)} settings are"
        super().__init__(
            f"{count} wrong. " + " ".join(str(problem) for problem in self.problems),
            "Nothing is sent to the tailnet until that is put right.",
            'Correct the "env" block of this MCP server (or the environment it inherits) and restart it.',
        )


class StateDirError(CcTailscaleError):
    """The directory for the node's keys cannot be made, locked, written or trusted.

    `problem` follows on the path ("is a symbolic link"); `next_step` is what to do about exactly that.
    """

    def __init__(self, path: Path, problem: str, next_step: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(
            f"The state directory {plain(str(path))} {problem}.",
            "The node has no safe place for its keys, so it was not started.",
            next_step,
        )


class JoinError(CcTailscaleError):
    """The node is not on the tailnet; nothing was sent to any peer."""


class LoginNeeded(JoinError):
    """Somebody has to log in at `url`; None while control has not given a link yet."""

    def __init__(self, url: str | None) -> None:
        self.url = plain(url, 2048) if url else None
        where = f"Open {self.url} in a browser and log in" if self.url else "Log in at the link in tailscale_status"
        super().__init__(
            "This node is not logged in to the tailnet.",
            "No auth key is set, or the device's key has expired, so a person has to confirm it once.",
            f"{where}, then call the tool again. To join without a person, set TS_AUTHKEY or TS_AUTHKEY_FILE.",
        )


class KeyRefused(JoinError):
    """Control does not take the key. `reason` is control's own text; `source` the variable the key came from.

    An empty `source`: no key was used, and control has refused the device itself, or its login.
    """

    def __init__(self, reason: str, source: str = "TS_AUTHKEY") -> None:
        self.reason = plain(reason)
        self.source = source
        why = self.reason.rstrip(".") or "it gave no reason"
        if source:
            super().__init__(
                f"The control server refused the key from {source}: {why}.",
                "The key is mistyped, expired, revoked, or was single-use and has been used.",
                "Make a new key (reusable and ephemeral fits best) in the admin console, "
                f"put it in {source} and restart.",
            )
        else:
            super().__init__(
                f"The control server refused the login of this device: {why}.",
                "The link has expired, or the tailnet does not let in this person, or a device with these TS_TAGS.",
                "Call the tool again for a new link, or set TS_AUTHKEY or TS_AUTHKEY_FILE and restart.",
            )


class ApprovalNeeded(JoinError):
    """The tailnet approves devices by hand and this one (`hostname`) waits for it."""

    def __init__(self, hostname: str, control_url: str | None = None) -> None:
        self.hostname = hostname
        where = "https://login.tailscale.com/admin/machines" if control_url is None else shown_address(control_url)
        super().__init__(
            f"The device {hostname} is logged in and waits for approval.",
            "The tailnet requires an administrator to approve each new device.",
            f"Have it approved at {where}, then call the tool again; a pre-approved auth key needs no approval.",
        )


class LockedOut(JoinError):
    """Tailnet lock is on and nobody has signed this node's key `node_key` (public, "nodekey:…")."""

    def __init__(self, node_key: str) -> None:
        self.node_key = plain(node_key)
        super().__init__(
            "Tailnet lock is on and this device's key is not signed.",
            "The other devices do not accept this one, so nothing on the tailnet can be reached.",
            f"On a signing device run `tailscale lock sign {self.node_key}`, then call the tool again; "
            "or use an auth key that was signed with `tailscale lock sign`.",
        )


class NotLetIn(JoinError):
    """A command has waited `seconds` for what `obstacle` asks of a person. The link ends with it.

    So does its device, unless that `stays`.
    """

    def __init__(self, obstacle: JoinError, seconds: float, *, stays: bool = False) -> None:
        self.obstacle = obstacle
        what = "logged in" if isinstance(obstacle, LoginNeeded) else "approved the device"
        super().__init__(
            f"Nobody has {what} within {seconds:g} s.",
            f"The command ends here{'' if stays else ', and its device with it'}; "
            "a link that was shown is of no use any more.",
            "Run it again, with more time if it takes that (TS_JOIN_TIMEOUT, in seconds); "
            "to join without a person, set TS_AUTHKEY or TS_AUTHKEY_FILE.",
        )


class DeviceInUse(JoinError):
    """A command is about the device `hostname`, which another process has open."""

    def __init__(self, hostname: str) -> None:
        super().__init__(
            f"The device {plain(hostname)} of this project is in use by a session that runs now.",
            "Two processes cannot share one device; that session is logged in, or has a link.",
            "Ask Claude there for tailscale_status, or end that session and run the command again.",
        )


class ControlUnreachable(JoinError):
    """The control server `url` gives no answer; `reason` is what the attempt ended with.

    `joined`: the device has joined before, and goes on without.
    """

    def __init__(self, url: str, reason: str = "", *, joined: bool = False) -> None:
        self.url = shown_address(url)
        why = f" ({plain(reason)})" if reason else ""
        super().__init__(
            f"The control server {self.url} gave no answer{why}.",
            "This node goes on with what it knows; devices that come, go or change are not seen until it answers."
            if joined
            else "Without it this node cannot join the tailnet.",
            "Check the internet connection, TS_CONTROL_URL, and HTTPS_PROXY where a proxy is needed; then try again.",
        )


class JoinTimeout(JoinError):
    """The node did not run within `seconds`; `state` is the IPN state that it had reached by then."""

    def __init__(self, seconds: float, state: str) -> None:
        self.seconds = seconds
        self.state = state
        super().__init__(
            f"The node did not join the tailnet within {seconds:g} s (state: {plain(state)}).",
            "Control answers, but the join is not complete; it may be slow.",
            "Call the tool again, or give it longer with TS_JOIN_TIMEOUT (seconds).",
        )


class NodeError(CcTailscaleError):
    """The node cannot serve this call."""


class NodeFailed(NodeError):
    """The node failed for `reason`, which is of no other kind here: most likely a defect."""

    def __init__(self, reason: str) -> None:
        self.reason = plain(reason)
        super().__init__(
            f"The Tailscale node failed: {self.reason.rstrip('.')}.",
            "This should not happen; the tailnet itself may be fine.",
            "Try again, then restart the server; if it stays, report it with the log (TS_VERBOSE=1).",
        )


class NodeClosed(NodeError):
    """The node was closed while the call was under way, or before it."""

    def __init__(self) -> None:
        super().__init__(
            "The Tailscale node has been closed.",
            "The server is stopping; it takes no more calls.",
            "Reconnect the MCP server to go on.",
        )


class NodeGone(NodeError):
    """Control deleted the device `hostname` and no replacement could join.

    `single_use`: because the key allows no second device; `refusal` is what control said to it.
    """

    def __init__(self, hostname: str, *, single_use: bool = False, refusal: str = "") -> None:
        self.hostname = hostname
        why = f" ({plain(refusal)})" if refusal else ""
        super().__init__(
            f"The device {hostname} was removed from the tailnet.",
            "Ephemeral devices are removed when they were offline for a while, a sleeping laptop for example.",
            f"Its key cannot make another one{why}: set a reusable key and restart the server."
            if single_use
            else "Call the tool again: a new device joins in its place.",
        )


class ForkError(NodeError):
    """A forked child called into Go, whose threads exist only in the parent."""

    def __init__(self, owner_pid: int, pid: int) -> None:
        super().__init__(
            f"Process {pid} was forked from {owner_pid}, which owns the Tailscale node.",
            "The Go runtime does not survive a fork, so the call was refused instead of hanging.",
            "Start child processes with exec (subprocess, or multiprocessing's spawn method).",
        )


class LocalApiError(CcTailscaleError):
    """LocalAPI refused `endpoint` with the HTTP `status` (None: no answer); `reason` is its text."""

    def __init__(self, endpoint: str, status: int | None, reason: str) -> None:
        self.endpoint = endpoint
        self.status = status
        self.reason = plain(reason)
        answer = "gave no answer" if status is None else f"answered {status}"
        super().__init__(
            f"The node's LocalAPI {answer} to {plain(endpoint, 80)}: {self.reason.rstrip('.') or 'no reason given'}.",
            "The node could not do what the tool needs.",
            "Try again; if it stays, restart the server.",
        )
