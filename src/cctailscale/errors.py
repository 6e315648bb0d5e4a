"""Every error that this project raises on purpose.

::

    CcTailscaleError
    ├── SettingsError           one or more settings cannot be used
    ├── StateDirError           the directory that keeps the node's keys cannot be used
    ├── JoinError               the node is not on the tailnet
    │   ├── LoginNeeded           no key, or the key has expired: somebody has to open a link
    │   ├── KeyRefused            control does not take the key
    │   ├── ApprovalNeeded        an administrator has to approve the device
    │   ├── LockedOut             tailnet lock: a trusted device has to sign the node's key
    │   ├── NotLetIn              a person was waited for, who did not log in or approve in time
    │   ├── ControlUnreachable    control gives no answer
    │   └── JoinTimeout           none of these, and yet not there in time
    ├── NodeError               the node cannot serve this call
    │   ├── NodeFailed            it failed in a way that has no name here: most likely a defect
    │   ├── NodeClosed            it was closed, because the server stops
    │   ├── NodeGone              control deleted the device
    │   └── ForkError             a forked child called into Go
    ├── DialError               one address on the tailnet, one attempt
    │   ├── BadUrl                not an address that can be asked for
    │   ├── BadHeader             a request header that is not the caller's to set
    │   ├── BadName               neither a name nor an address
    │   ├── NoSuchName            the tailnet's DNS does not know the name
    │   ├── ResolverFailed        the resolver that the tailnet's DNS has for the name gives no answer
    │   ├── NoSuchDevice          the address belongs to no device of the tailnet
    │   ├── NotOnTailnet          the guard: no peer and no accepted route owns it
    │   ├── ConnectionRefused     the peer is there, nothing listens on the port
    │   ├── Unreachable           no path to the peer
    │   ├── TimedOut              no answer in time, also what a packet filter's drop looks like
    │   ├── TlsError              the peer's certificate or handshake was not accepted
    │   └── PeerProtocolError     the answer is not sound HTTP, or passes a limit
    ├── BadCall                 arguments of a tool that do not make a whole
    ├── ForwardError            a port forward cannot be made or closed
    │   ├── PortTaken             the local port cannot be listened on
    │   ├── OwnNode               the target is this node itself
    │   ├── InboundOff            the user has not allowed to show a port to the tailnet
    │   ├── PortUnfit             a port that must not be shown, or cannot be
    │   ├── ForwardsFull          there are as many as there can be
    │   └── NoSuchForward         no forward has that id
    ├── SaveError               a file cannot be written
    │   ├── SaveRefused           it lies where no tool may write
    │   └── SaveFailed            the file system did not take it
    ├── AgentError              a message between agents cannot be made, sent or kept
    │   ├── NoAgent               no agent answers there
    │   ├── AgentRefused          the agent there said no, and why
    │   ├── AnswerLost            the connection broke after the question had gone out
    │   ├── NobodyReceived        not one of the recipients has the message
    │   ├── BadDocument           it is not what the protocol says
    │   ├── MessageConflict       its sender has used its id for another one
    │   ├── InboxFull             too much is unread
    │   └── InboxUnusable         the inbox's file cannot be opened or written
    ├── CertificateUnavailable  the node has no certificate and cannot get one
    └── LocalApiError           the node's own LocalAPI refused a call

The text of each says what happened, what it means and what to do next, in that order; the three are attributes as
well. The classes take facts and write the text themselves, so that a fact reads the same wherever it is raised.

Two rules hold for every text. No secret goes in: addresses are shown without user, password, query and fragment. What
control or a peer chose (a reason, a name) is data: control characters are taken out and the length is capped.
"""

# The names are the field's words for what happened; "Error" at the end of each would say nothing more.
# ruff: noqa: N818

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

# A reason from control or a peer is one sentence; more than this is not a reason.
MAX_REASON_CHARS = 300
# An agent's refusal is a reason and what to add (wire.Refusal).
MAX_REFUSAL_CHARS = 1000
# Of a message that reached none of many recipients.
MAX_OUTCOMES = 20
# URLs are shown to be recognised, not to be copied.
MAX_ADDRESS_CHARS = 200
# "Cc" and "Cf" can move a terminal's cursor or turn the direction of the text; "Zl" and "Zp" break lines.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def plain(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """Text that somebody else chose, as one printable line of at most `limit` characters."""
    # Cut before cleaning: the input may be megabytes. Twice the limit leaves room for what the cleaning takes out.
    text = text[: 2 * limit]
    printable = text
    if not text.isprintable():  # most texts are, and then need no look at each character
        printable = "".join(" " if unicodedata.category(c) in UNPRINTABLE else c for c in text)
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shown_address(address: str) -> str:
    """A URL or host:port as it may be shown: without user, password, query and fragment."""
    try:
        parts = urlsplit(address)
        if parts.netloc:
            return plain(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}", MAX_ADDRESS_CHARS)
    except ValueError:  # "http://[": urlsplit refuses it, and so will whoever is told about it
        pass
    bare = address.split("?", 1)[0].split("#", 1)[0]
    return plain(bare.rpartition("@")[2], MAX_ADDRESS_CHARS)


class CcTailscaleError(Exception):
    """Base of all of them. `str()` is the whole text; it needs no traceback to be understood.

    `happened`, `meaning` and `next_step` are its three sentences; `meaning` may be empty.
    """

    def __init__(self, happened: str, meaning: str, next_step: str) -> None:
        self.happened = happened
        self.meaning = meaning
        self.next_step = next_step
        super().__init__(" ".join(part for part in (happened, meaning, next_step) if part))


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
    """A command has waited `seconds` for what `obstacle` asks of a person. Its device ends with it, the link too."""

    def __init__(self, obstacle: JoinError, seconds: float) -> None:
        self.obstacle = obstacle
        what = "logged in" if isinstance(obstacle, LoginNeeded) else "approved the device"
        super().__init__(
            f"Nobody has {what} within {seconds:g} s.",
            "The command ends here, and its device with it; a link that was shown is of no use any more.",
            "Run it again, with more time if it takes that (TS_JOIN_TIMEOUT, in seconds); "
            "to join without a person, set TS_AUTHKEY or TS_AUTHKEY_FILE.",
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


class DialError(CcTailscaleError):
    """One attempt to reach one `target` (URL or host:port, shown without credentials) failed."""

    def __init__(self, target: str, happened: str, meaning: str, next_step: str) -> None:
        self.target = target
        super().__init__(happened, meaning, next_step)


class BadUrl(DialError):
    """`url` cannot be asked for; `problem` follows on it ("has no host")."""

    def __init__(self, url: str, problem: str) -> None:
        target = shown_address(url)
        super().__init__(
            target,
            f"The URL {target} {plain(problem).rstrip('.')}.",
            "Nothing was sent.",
            "Give an http or https URL with a host on the tailnet, such as http://web:8080/health.",
        )


class BadHeader(DialError):
    """The request header `name` cannot be sent; `problem` follows on it ("is set by HTTP itself")."""

    def __init__(self, url: str, name: str, problem: str) -> None:
        self.name = plain(name, 80)
        super().__init__(
            shown_address(url),
            f"The header {self.name} {plain(problem).rstrip('.')}.",
            "Nothing was sent.",
            "Leave it out, or correct it, and call again.",
        )


class BadName(DialError):
    """`host` is in no form that a tool takes; `problem` follows on it ("has a space in it")."""

    def __init__(self, host: str, problem: str = "is neither a name nor an address in its usual form") -> None:
        target = plain(host, MAX_ADDRESS_CHARS)
        super().__init__(
            target,
            f"{target or 'An empty text'} {plain(problem).rstrip('.')}.",
            "Nothing was sent.",
            "Give a short name (web), a full name (web.tail1234.ts.net), an IPv4 address (100.64.0.1) "
            "or an IPv6 address (fd7a:115c:a1e0::1).",
        )


class NoSuchName(DialError):
    """The tailnet's own DNS has no address for `name`.

    With `redirected_from`, the URL whose redirects led there, the name is the word of a peer, and is not shown.
    """

    def __init__(self, name: str, redirected_from: str | None = None) -> None:
        target = plain(name, MAX_ADDRESS_CHARS) if redirected_from is None else shown_address(redirected_from)
        super().__init__(
            target,
            f"The tailnet has no name {target}."
            if redirected_from is None
            else f"{target} redirects to a name that the tailnet does not have.",
            "Only the tailnet's own DNS is asked (MagicDNS and its split-DNS routes), never this machine's resolver.",
            "Check the spelling, or give the peer's 100.x address.",
        )


class ResolverFailed(DialError):
    """Whether there is `name` is not known: `resolvers`, to which the tailnet's DNS sends such names, said `rcode`."""

    def __init__(self, name: str, resolvers: Sequence[str], rcode: str) -> None:
        target = plain(name, MAX_ADDRESS_CHARS)
        super().__init__(
            target,
            f"The name {target} could not be looked up: {plain(' and '.join(resolvers))} said {plain(rcode)}.",
            "The tailnet's DNS sends such names there, and it did not answer: whether the name exists is not known.",
            "Check that the resolver is online, or give the host's address.",
        )


class NoSuchDevice(DialError):
    """No device of the tailnet has the address of `target`; `behind` is the subnet router in front of it, if any."""

    def __init__(self, target: str, behind: str = "") -> None:
        shown = shown_address(target)
        router = plain(behind)
        super().__init__(
            shown,
            f"No device of this tailnet has the address {shown}.",
            f"It is behind the subnet router {router}: hosts there are no devices of the tailnet."
            if router
            else "The tailnet knows its own devices only, not public addresses nor hosts of other networks.",
            f"Ask about {router} instead."
            if router
            else "Give a device's name or its 100.x or fd7a: address; tailscale_devices lists them.",
        )


class NotOnTailnet(DialError):
    """The guard refused `target`: no peer and no accepted route owns its address. `reason` says more."""

    def __init__(self, target: str, reason: str = "") -> None:
        shown = shown_address(target)
        why = f" ({plain(reason).rstrip('.')})" if reason else ""
        super().__init__(
            shown,
            f"{shown} is not on the tailnet{why}.",
            "No peer and no accepted subnet route owns that address, so nothing was sent.",
            "Use a device of the tailnet; for hosts behind a subnet router, have its route approved.",
        )


class ConnectionRefused(DialError):
    """The peer answered that nothing listens at `target` (a TCP reset)."""

    def __init__(self, target: str) -> None:
        shown = shown_address(target)
        super().__init__(
            shown,
            f"{shown} refused the connection.",
            "The device is reachable, but nothing listens on that port.",
            "Check the port, and that the service listens on the tailnet address and not on 127.0.0.1 alone.",
        )


class Unreachable(DialError):
    """There is no path to `target`; `reason` is what the network said."""

    def __init__(self, target: str, reason: str = "") -> None:
        shown = shown_address(target)
        why = f" ({plain(reason).rstrip('.')})" if reason else ""
        super().__init__(
            shown,
            f"There is no path to {shown}{why}.",
            "The device, or the subnet router in front of it, is offline.",
            "See with tailscale_status whether this node is healthy, and try again once the device is back.",
        )


class TimedOut(DialError):
    """No answer from `target` within `seconds`; `stage` says during what.

    It is one of `_STAGES`, or another one of a connection that stands ("reading the body").
    """

    _STAGES: ClassVar = {
        "connecting": (
            "The device is offline, or the tailnet's access rules drop the traffic: a drop looks the same.",
            "Check that the device is online and that the policy allows this port; then try again.",
        ),
        "looking the name up": (
            "The resolver to which the tailnet's DNS sends such names did not answer, so nothing was sent to the host.",
            "Check that the resolver is online (tailscale_dns_lookup names it), or give the host's address.",
        ),
    }

    def __init__(self, target: str, seconds: float, stage: str = "connecting") -> None:
        self.seconds = seconds
        self.stage = stage
        shown = shown_address(target)
        meaning, next_step = self._STAGES.get(
            stage,
            (
                "The connection stands, but the service is slow or stuck.",
                "Try again with a larger timeout, or look at the service.",
            ),
        )
        super().__init__(shown, f"{shown} gave no answer within {seconds:g} s ({stage}).", meaning, next_step)


class TlsError(DialError):
    """TLS with `target` failed for `reason` (the verifier's or the peer's)."""

    def __init__(self, target: str, reason: str) -> None:
        shown = shown_address(target)
        super().__init__(
            shown,
            f"No secure connection to {shown}: {plain(reason).rstrip('.')}.",
            "The certificate is not trusted, does not fit the name or has expired, or the port does not speak TLS.",
            "Use the device's full MagicDNS name; for a private CA, set SSL_CERT_FILE to its certificate.",
        )


class PeerProtocolError(DialError):
    """The answer of `target` cannot be used; `problem` follows on it ("sent more than 64 KiB of headers")."""

    def __init__(self, target: str, problem: str) -> None:
        shown = shown_address(target)
        super().__init__(
            shown,
            f"{shown} {plain(problem).rstrip('.')}.",
            "That is not a sound HTTP answer, so it was dropped.",
            "Check that the port speaks HTTP and that the URL and scheme are right.",
        )


class BadCall(CcTailscaleError):
    """The arguments of a tool do not make a whole; `problem` and `next_step` are sentences of ours."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem, "Nothing was done.", next_step)


class ForwardError(CcTailscaleError):
    """A port forward cannot be made or closed; those that there are go on."""


class PortTaken(ForwardError):
    """127.0.0.1:`port` cannot be listened on; `reason` is the operating system's."""

    def __init__(self, port: int, reason: str) -> None:
        self.port = port
        super().__init__(
            f"The local port {port} cannot be used: {plain(reason).rstrip('.')}.",
            "Another program listens there, or the port needs more rights (below 1024).",
            "Choose another local_port, or leave it out: 0 takes one that is free.",
        )


class OwnNode(ForwardError):
    """`target` is this node itself."""

    def __init__(self, target: str) -> None:
        shown = plain(target, MAX_ADDRESS_CHARS)
        super().__init__(
            f"{shown} is this node itself.",
            "A forward to it would lend this node's identity to whoever connects, so none was made.",
            "Name another device of the tailnet; what runs on this machine is on 127.0.0.1 already.",
        )


class InboundOff(ForwardError):
    """TS_ALLOW_INBOUND_FORWARD is not set."""

    def __init__(self) -> None:
        super().__init__(
            "Ports of this machine are not shown to the tailnet.",
            "It is off unless the user turns it on, since others then reach what listens on 127.0.0.1 alone.",
            'If the user wants it: set TS_ALLOW_INBOUND_FORWARD=1 in the "env" block of this MCP server, restart it.',
        )


class PortUnfit(ForwardError):
    """A forward from the tailnet cannot have `port`; `problem` follows on it ("is the agent's own")."""

    def __init__(self, port: str, problem: str, next_step: str) -> None:
        super().__init__(f"{port} {problem}.", "Nothing new is shown to the tailnet.", next_step)


class ForwardsFull(ForwardError):
    """There are `limit` forwards of that `direction` already."""

    def __init__(self, limit: int, direction: str = "to the tailnet") -> None:
        super().__init__(
            f"There are {limit} forwards {direction} already, and there can be no more.",
            "Each of them holds a port until it is closed.",
            'See them with action="list" and close one that is not needed.',
        )


class NoSuchForward(ForwardError):
    """No forward is called `forward_id`; `known` are those that there are."""

    def __init__(self, forward_id: str, known: tuple[str, ...]) -> None:
        there = f"There are {', '.join(known)}." if known else "There is none."
        super().__init__(
            f"No forward has the id {plain(forward_id, 40) or '(empty)'}.", there, 'Take an id from action="list".'
        )


class SaveError(CcTailscaleError):
    """A file cannot be written. Nothing of it is left behind."""


class SaveRefused(SaveError):
    """No tool may write to `path`; `problem` follows on it ("is a symbolic link")."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = plain(path, MAX_ADDRESS_CHARS)
        super().__init__(
            f"{self.path or 'An empty path'} {plain(problem).rstrip('.')}.",
            "Tools write new files below the project's folder, in folders that exist; no hidden ones, and nothing that "
            "configures an agent (CLAUDE.md, AGENTS.md).",
            "Give save_to another path, such as downloads/report.pdf, relative to the project's folder.",
        )


class SaveFailed(SaveError):
    """The file system did not take `path`, for `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = plain(path, MAX_ADDRESS_CHARS)
        super().__init__(
            f"{self.path} could not be written: {plain(reason).rstrip('.')}.",
            "What had been written of it was removed.",
            "Make room or see to the folder's permissions, then call again.",
        )


class AgentError(CcTailscaleError):
    """A message between agents cannot be made, sent or kept."""


class NoAgent(AgentError):
    """No agent answers at `target`; `why` says what was found instead."""

    def __init__(self, target: str, why: str) -> None:
        super().__init__(
            f"No agent answers at {shown_address(target)}: {plain(why)}.",
            "A Claude Code session there has to run cc-tailscale, and to have joined the tailnet.",
            "tailscale_agents lists the agents that answer.",
        )


class AgentRefused(AgentError):
    """The agent at `target` answered with an HTTP `status` from 400 on; `code` and `reason` are its refusal's."""

    def __init__(self, target: str, status: int, code: str, reason: str) -> None:
        self.status = status
        self.code = code
        super().__init__(
            f"The agent at {shown_address(target)} refused ({status} {plain(code)}).",
            f"It says: {plain(reason, MAX_REFUSAL_CHARS)}",
            "Do what it says, or ask the user of that agent.",
        )


class AnswerLost(AgentError):
    """The connection to the agent at `target` broke before its answer was complete."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"The connection to {shown_address(target)} broke before the answer was complete.",
            "The agent there has ended, or its device went away; what was asked may have been done all the same.",
            "Ask again.",
        )


class NobodyReceived(AgentError):
    """No recipient is known to have the message `message_id`; `outcomes` has a line for each."""

    def __init__(self, message_id: str, outcomes: Sequence[str]) -> None:
        shown = [plain(outcome).rstrip(".") for outcome in outcomes[:MAX_OUTCOMES]]
        if len(outcomes) > len(shown):
            shown.append(f"and {len(outcomes) - len(shown)} more alike")
        super().__init__(
            f"Nobody is known to have received the message: {'; '.join(shown)}.",
            "It is not sent later: what was not delivered is kept nowhere.",
            f'To try again, send it with id="{message_id}": nobody gets it twice. tailscale_agents lists the agents '
            "that answer now.",
        )


class BadDocument(AgentError):
    """A document of the agents' protocol (`kind`: "message") is not sound; `problem` follows on it ("is too large")."""

    def __init__(self, kind: str, problem: str) -> None:
        self.kind = kind
        self.problem = plain(problem).rstrip(".")
        super().__init__(
            f"The {kind} {self.problem}.",
            "It is not what the agents' protocol says, so nothing was done with it.",
            "docs/agent-protocol.md has the fields and their limits.",
        )


class MessageConflict(AgentError):
    """The sender has sent another message under the same `id`, which is the one that is kept."""

    def __init__(self, message_id: str) -> None:
        self.id = message_id
        super().__init__(
            f"Another message with the id {plain(message_id, 80)} is there already.",
            "A message with a known id is a retry and has to be the same; this one was not stored.",
            "Send it under a new id, or without one.",
        )


class InboxFull(AgentError):
    """`unread` messages of `unread_bytes` together are as much as an inbox holds."""

    def __init__(self, unread: int, unread_bytes: int) -> None:
        self.unread = unread
        self.unread_bytes = unread_bytes
        super().__init__(
            f"The inbox is full: {unread} unread messages of {unread_bytes // 1024} KiB.",
            "The message was not stored.",
            "Try again once the receiving agent has read some.",
        )


class InboxUnusable(AgentError):
    """The inbox in `path` cannot be opened, read or written; `problem` follows on it ("is on a full disk")."""

    def __init__(self, path: Path, problem: str, next_step: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(
            f"The inbox {plain(str(path))} {problem}.",
            "No message can be kept there, so none is accepted; what is in it stays.",
            next_step,
        )


class CertificateUnavailable(CcTailscaleError):
    """The node has no certificate for `domain` and cannot get one. `meaning` and `next_step` depend on why not."""

    def __init__(self, domain: str, reason: str, meaning: str, next_step: str) -> None:
        self.domain = plain(domain)
        super().__init__(f"There is no certificate for {self.domain}: {plain(reason).rstrip('.')}.", meaning, next_step)


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
