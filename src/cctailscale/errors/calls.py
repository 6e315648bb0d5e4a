"""What a tool cannot do for its caller: forwards, files, certificates."""

# The names are the field's words for what happened; "Error" at the end of each would say nothing more.
# ruff: noqa: N818

from __future__ import annotations

from cctailscale.errors.text import MAX_ADDRESS_CHARS, CcTailscaleError, plain


class BadCall(CcTailscaleError):
    """The arguments of a tool do not make a whole; `problem` and `next_step` are sentences of ours."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem, "Nothing was done.", next_step)


class NoDescriptors(CcTailscaleError):
    """This process may open no file or connection more (EMFILE), or the whole machine may not (ENFILE)."""

    def __init__(self) -> None:
        super().__init__(
            "This process has as many files and connections open as it may.",
            "Whether this call was carried out is not known; the node and what was stored before are well.",
            "Call again in some seconds. If it stays, restart the server, with a higher limit (ulimit -n).",
        )


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


class CertificateUnavailable(CcTailscaleError):
    """The node has no certificate for `domain` and cannot get one. `meaning` and `next_step` depend on why not."""

    def __init__(self, domain: str, reason: str, meaning: str, next_step: str) -> None:
        self.domain = plain(domain)
        super().__init__(f"There is no certificate for {self.domain}: {plain(reason).rstrip('.')}.", meaning, next_step)
