"""What can be typed after `cc-tailscale`. An argument that goes to a tool has the name of the tool's parameter."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import get_args

from cctailscale import __version__
from cctailscale.tailnet.results import PingType, Protocol, RecordType

# Each command that calls a tool, and which.
TOOLS = {
    "status": "tailscale_status",
    "devices": "tailscale_devices",
    "whois": "tailscale_whois",
    "dns": "tailscale_dns_lookup",
    "ping": "tailscale_ping",
    "connect": "tailscale_connect_test",
    "fetch": "tailscale_fetch",
    "netcheck": "tailscale_netcheck",
    "acl": "tailscale_acl_check",
    "cert": "tailscale_cert",
    "forward": "tailscale_port_forward",
}
_COMMANDS = {tool: f"cc-tailscale {command}" for command, tool in TOOLS.items()}
_NAMED = re.compile("|".join(_COMMANDS))

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD")
DESCRIPTION = "Puts Claude Code on your tailnet. Without a command it is the MCP server, on stdin and stdout."
EPILOG = """\
Each command but login and team joins the tailnet as a device of its own, which is gone when it ends. Settings are
environment variables, TS_AUTHKEY_FILE first of all; without a key a link to log in is shown. The result goes to stdout,
progress and errors to stderr. Exit code: 0; 1 if it failed or the answer is no; 2 for a wrong command line."""


def in_shell_words(text: str) -> str:
    """A text of a tool's with the commands' names in place of the tools'."""
    return _NAMED.sub(lambda found: _COMMANDS[found[0]], text)


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The command line: `command`, `json`, and the arguments that were given. Ends the process if it is wrong."""
    parser = argparse.ArgumentParser(prog="cc-tailscale", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"cc-tailscale {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True, title="commands")
    commands.add_parser("serve", help="the MCP server; what a client starts")

    def command(name: str, about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        made.add_argument("--json", action="store_true", default=False, help="the result as JSON")
        return made

    command("login", "log in once, by a link; the device stays for the project's sessions (TS_EPHEMERAL=false)")
    command("doctor", "check everything, one thing after the other, and say what to do")
    command("status", "where this node stands: names, addresses, tailnet, owner, health")
    _devices(command)
    _diagnoses(command)
    _fetch(command("fetch", "send an HTTP request to a host on the tailnet"))
    command("netcheck", "the network around this machine: UDP, NAT, latency of the DERP regions")
    _own_standing(command)
    inbox = command("inbox", "how many messages wait for your Claude Code sessions, and from whom")
    inbox.add_argument("--hook", action="store_true", help="answer Claude Code's hook, as the plug-in does")
    forward = command("forward", "a port on 127.0.0.1 that leads to a tailnet host, until Ctrl-C")
    _host(forward)
    forward.add_argument("port", type=int)
    forward.add_argument("--local-port", type=int, metavar="N", help="on 127.0.0.1; default: a free one")
    team = command("team", "a team of the sessions on this machine, live: members, who works on what, all tasks")
    team.add_argument("name", nargs="?", default=None, help="default: the one in which something happened last")
    return parser.parse_args(words)


_Adder = Callable[[str, str], argparse.ArgumentParser]


def _devices(command: _Adder) -> None:
    devices = command("devices", "the devices of the tailnet")
    devices.add_argument(
        "filter", nargs="*", default=[], metavar="WORD", help="to be found in name, address, OS, owner, tag or route"
    )
    devices.add_argument("--online-only", action="store_true", help="leave out those that are offline")
    whois = command("whois", "which device has an address or name, and whose it is")
    whois.add_argument("address", help="IP, IP:port or name")


def _diagnoses(command: _Adder) -> None:
    dns = command("dns", "ask the tailnet's own DNS")
    dns.add_argument("name", help="name, or address to be looked up backwards")
    dns.add_argument("type", nargs="?", type=str.upper, choices=get_args(RecordType), default="A", help="default: A")
    ping = command("ping", "latency and path to a device: direct, or relayed by whom")
    _host(ping)
    ping.add_argument("--type", choices=get_args(PingType), help="default: disco")
    ping.add_argument("-c", "--count", type=int, metavar="N", help="default: 4")
    _timeout(ping, "for each reply; default: 5")
    connect = command("connect", "whether a TCP port takes connections from here, and why not")
    _host(connect)
    connect.add_argument("port", type=int)
    _timeout(connect, "default: 5")


def _fetch(fetch: argparse.ArgumentParser) -> None:
    fetch.description = (
        "Sends an HTTP request to a host on the tailnet and writes the body of the answer to stdout: as text on a "
        "terminal, as it is, and all of it, anywhere else."
    )
    fetch.add_argument("url", help="http or https")
    fetch.add_argument("-X", "--method", type=str.upper, choices=METHODS, help="default: GET, with a body POST")
    fetch.add_argument("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="to send along")
    fetch.add_argument("-d", "--body", metavar="TEXT", help="to send")
    fetch.add_argument("-i", "--include", action="store_true", default=False, help="status line and headers as well")
    fetch.add_argument("-k", "--insecure", action="store_true", default=False, help="do not verify the certificate")
    fetch.add_argument("--no-redirects", action="store_true", default=False, help="do not follow redirects")
    fetch.add_argument(
        "--max-bytes", type=int, metavar="N", help="of the body, on a terminal and with -i or --json; default: 100000"
    )
    _timeout(fetch, "for the answer; where all of the body is written, for each silence in it; default: 30")


def _own_standing(command: _Adder) -> None:
    acl = command("acl", "who may reach which ports of a device that joins as this one does")
    acl.add_argument("--source", metavar="WHO", help="a device's name, an address, or a tag such as tag:ci")
    acl.add_argument("--port", type=int, metavar="N")
    acl.add_argument("--protocol", choices=get_args(Protocol), help="default: tcp")
    cert = command("cert", "the HTTPS certificate that a host serves, or this node's own")
    cert.add_argument("domain", nargs="?", metavar="host", help="default: this node")
    cert.add_argument("--save-to", metavar="FILE", help="chain and key of this node, below the project's folder")


def _host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", help="short or full MagicDNS name, or address")


def _timeout(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("--timeout", dest="timeout_seconds", type=float, metavar="SECONDS", help=about)
