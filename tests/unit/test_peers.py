"""Devices as a person sees them: pages, words, paths, owners."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cctailscale.errors import BadName
from cctailscale.tailnet import peers
from cctailscale.tailnet.models import Status, WhoIs
from cctailscale.tailnet.peers import identity, page, path_of, router_of, split_port, with_port
from cctailscale.tailnet.results import Devices

SEEN = "2026-01-02T03:04:05Z"
USERS = {
    "1": {"ID": 1, "LoginName": "alice@example.com", "DisplayName": "Alice Ann"},
    "9": {"ID": 9, "LoginName": "tagged-devices", "DisplayName": "Tagged Devices"},
}


def peer(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {
        "ID": f"n{number}",
        "DNSName": f"{name}.tail1234.ts.net.",
        "HostName": name,
        "OS": "linux",
        "UserID": 1,
        "TailscaleIPs": [f"100.64.0.{number}", f"fd7a:115c:a1e0::{number}"],
        "AllowedIPs": [f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number}/128"],
        "Online": True,
        "LastSeen": SEEN,
    } | more


def status(*others: dict[str, Any], **me: Any) -> Status:
    mine = peer(1, "me", **me)
    return Status.model_validate(
        {"Self": mine, "TailscaleIPs": mine["TailscaleIPs"], "User": USERS, "Peer": {p["ID"]: p for p in others}}
    )


def names(found: Devices) -> list[str]:
    return [row.name.partition(".")[0] for row in found.devices]


def test_this_node_comes_first_and_the_others_by_name() -> None:
    found = page(status(peer(2, "zoe"), peer(3, "bob"), peer(4, "adam")), "", False, 50, None)
    assert names(found) == ["me", "adam", "bob", "zoe"]
    assert [row.this_node for row in found.devices] == [True, None, None, None]
    assert (found.total, found.online, found.cursor, found.notice) == (4, 4, None, None)


def test_pages_together_hold_every_device_once() -> None:
    everyone = status(*(peer(number, f"host{number % 7}") for number in range(2, 60)))
    cursor, seen = None, []
    for _ in range(100):
        found = page(everyone, "", False, 7, cursor)
        seen += [row.addresses[0] for row in found.devices]
        assert found.total == 59
        cursor = found.cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 59


def test_a_page_of_devices_with_all_that_there_can_be_is_shorter_and_the_rest_follows() -> None:
    tags = [f"tag:{'x' * 60}{number}" for number in range(30)]
    routes = [f"2001:db8:{number:x}::/48" for number in range(1000)]
    everyone = status(
        *(peer(number, f"{'h' * 60}{number}", Tags=tags, AllowedIPs=routes) for number in range(2, 202)), Tags=tags
    )
    cursor, seen = None, []
    for _ in range(201):
        found = page(everyone, "", False, 100, cursor)
        assert found.devices
        assert len(found.model_dump_json()) < 4 * 10_000  # Claude Code warns at 10,000 tokens
        seen += [row.addresses[0] for row in found.devices]
        cursor = found.cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 201


def test_a_page_goes_on_right_where_devices_came_and_went() -> None:
    first = page(status(peer(2, "a"), peer(3, "c"), peer(4, "e")), "", False, 3, None)
    assert names(first) == ["me", "a", "c"]
    rest = page(status(peer(5, "b"), peer(6, "d"), peer(4, "e")), "", False, 3, first.cursor)
    assert names(rest) == ["d", "e"]  # "c", with which the page ended, has gone


@pytest.mark.parametrize(
    "words",
    [
        "web",
        "WEB",
        "web.tail1234.ts.net.",
        "100.64.0.2",
        "fd7a:115c:a1e0::2",
        "tag:web",
        "10.1.0.0/16",
        "web linux",
        " ",
    ],
)
def test_words_are_looked_for_in_all_that_a_row_shows(words: str) -> None:
    web = peer(2, "web", Tags=["tag:web"], UserID=9)
    web["AllowedIPs"].append("10.1.0.0/16")
    found = page(status(web), words, False, 50, None)
    assert "web" in names(found)
    assert (names(found) == ["me", "web"]) == (not words.strip())


def test_every_word_has_to_be_there() -> None:
    assert page(status(peer(2, "web")), "web windows", False, 50, None).total == 0


def test_an_owner_is_found_by_login_and_by_name_but_not_for_a_tagged_device() -> None:
    everyone = status(peer(2, "hers"), peer(3, "robot", UserID=1, Tags=["tag:ci"]), Tags=["tag:agent"])
    for words in ("alice", "ann", "alice@example.com"):
        assert names(page(everyone, words, False, 50, None)) == ["hers"]
    assert page(everyone, "tagged-devices", False, 50, None).total == 0


def test_offline_devices_are_left_out_on_request_and_counted_otherwise() -> None:
    everyone = status(peer(2, "up"), peer(3, "down", Online=False))
    assert names(page(everyone, "", True, 50, None)) == ["me", "up"]
    found = page(everyone, "", False, 50, None)
    assert (found.total, found.online) == (3, 2)
    down = next(row for row in found.devices if row.name.startswith("down"))
    up = next(row for row in found.devices if row.name.startswith("up"))
    assert down.last_seen == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert up.last_seen is None


def test_a_tagged_device_has_tags_and_never_the_pseudo_user() -> None:
    (_, row) = page(status(peer(2, "robot", Tags=["tag:ci"], UserID=9)), "", False, 50, None).devices
    assert (row.owner, row.tags) == (None, ["tag:ci"])


def test_an_exit_node_offers_no_subnet_and_a_subnet_router_does() -> None:
    leaver = peer(2, "exit", ExitNodeOption=True)
    leaver["AllowedIPs"] += ["0.0.0.0/0", "::/0"]
    router = peer(3, "router")
    router["AllowedIPs"] += ["10.0.0.0/24", "fd00::/64"]
    (_, exit_row, router_row) = page(status(leaver, router), "", False, 50, None).devices
    assert (exit_row.exit_node, exit_row.routes) == (True, [])
    assert (router_row.exit_node, router_row.routes) == (None, ["10.0.0.0/24", "fd00::/64"])


def test_a_row_leaves_out_what_is_empty() -> None:
    (row,) = page(status(), "", False, 50, None).devices
    assert set(row.model_dump()) == {"name", "addresses", "os", "owner", "online", "this_node"}


def test_devices_that_are_known_only_as_the_other_end_of_a_share_are_not_listed() -> None:
    assert names(page(status(peer(2, "stranger", ShareeNode=True)), "", False, 50, None)) == ["me"]


@pytest.mark.parametrize(
    ("facts", "path"),
    [
        ({}, None),
        ({"Relay": "fra"}, None),
        ({"Relay": "fra", "Active": True}, "DERP fra"),
        ({"Relay": "fra", "Active": True, "CurAddr": "192.0.2.1:41641"}, "direct 192.0.2.1:41641"),
        ({"Relay": "fra", "Active": True, "PeerRelay": "192.0.2.1:7:vni:1"}, "peer relay 192.0.2.1:7:vni:1"),
    ],
)
def test_a_path_is_known_once_there_was_traffic(facts: dict[str, Any], path: str | None) -> None:
    assert path_of(next(iter(status(peer(2, "web", **facts)).peers.values()))) == path


def test_while_control_does_not_answer_the_list_says_so() -> None:
    found = page(status(Online=False), "", False, 50, None)
    assert found.notice == peers.AWAY
    assert "notice" not in page(status(), "", False, 50, None).model_dump()


def test_what_others_chose_cannot_move_the_cursor_of_a_terminal() -> None:
    found = page(status(peer(2, "x", DNSName="", HostName="a\x1b[2J b\u202ec")), "", False, 50, None)
    assert found.devices[1].name == "a_[2J_b_c"


@given(st.text(max_size=20), st.integers(1, 5), st.from_regex(peers.CURSOR_PATTERN, fullmatch=True) | st.none())
def test_any_words_and_any_cursor_give_a_page(words: str, limit: int, cursor: str | None) -> None:
    found = page(status(peer(2, "a"), peer(3, "b"), peer(4, "c")), words, False, limit, cursor)
    assert len(found.devices) <= limit
    assert len(found.devices) <= found.total


# ---- who is it -------------------------------------------------------------------------------------------------------


def who(**node: Any) -> WhoIs:
    known = {
        "StableID": "n2",
        "Name": "web.tail1234.ts.net.",
        "Addresses": ["100.64.0.2/32", "fd7a:115c:a1e0::2/128"],
        "Hostinfo": {"OS": "linux"},
        "Online": True,
        "LastSeen": SEEN,
    }
    return WhoIs.model_validate({"Node": known | node, "UserProfile": USERS["1"], "CapMap": None})


def test_an_identity_names_the_owner_and_the_addresses() -> None:
    found = identity(who(KeyExpiry="2027-01-01T00:00:00Z"), status())
    assert found.model_dump(mode="json") == {
        "name": "web.tail1234.ts.net",
        "stable_id": "n2",
        "addresses": ["100.64.0.2", "fd7a:115c:a1e0::2"],
        "os": "linux",
        "owner": {"login": "alice@example.com", "display_name": "Alice Ann"},
        "online": True,
        "key_expiry": "2027-01-01T00:00:00Z",
    }


def test_the_identity_of_a_tagged_device_has_tags_instead_of_an_owner() -> None:
    found = identity(who(Tags=["tag:web"]), status())
    assert (found.owner, found.tags, found.key_expiry) == (None, ["tag:web"], None)


def test_this_node_is_marked_as_itself() -> None:
    assert identity(who(StableID="n1"), status()).this_node is True


def test_capabilities_are_shown_and_long_values_are_not() -> None:
    few = who().model_copy(update={"capabilities": {"example.com/cap/x": [{"a": 1}], "example.com/cap/y": None}})
    assert identity(few, status()).capabilities == {"example.com/cap/x": [{"a": 1}], "example.com/cap/y": []}
    long = who().model_copy(update={"capabilities": {"example.com/cap/x": ["v" * 5000]}})
    assert identity(long, status()).capabilities == {"example.com/cap/x": "granted; its values are too long to show"}


def test_the_router_in_front_of_an_address_is_the_one_with_the_longest_prefix() -> None:
    wide, narrow = peer(2, "wide"), peer(3, "narrow")
    wide["AllowedIPs"].append("10.0.0.0/8")
    narrow["AllowedIPs"].append("10.1.2.0/24")
    everyone = status(wide, narrow)
    assert router_of(everyone, "10.1.2.3") == "narrow.tail1234.ts.net"
    assert router_of(everyone, "10.9.9.9") == "wide.tail1234.ts.net"
    assert router_of(everyone, "192.0.2.1") == ""
    assert router_of(everyone, "fd00::1") == ""


# ---- a host with a port ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("web", "web"),
        ("web.", "web."),
        ("web:80", "web"),
        ("100.64.0.1", "100.64.0.1"),
        ("100.64.0.1:65535", "100.64.0.1"),
        ("fd7a::1", "fd7a::1"),
        ("[fd7a::1]", "fd7a::1"),
        ("[fd7a::1]:1", "fd7a::1"),
    ],
)
def test_a_port_is_taken_off_a_host(text: str, host: str) -> None:
    assert split_port(text) == host


@pytest.mark.parametrize(
    "host", ["web", "web.tail1234.ts.net", "100.64.0.1", "fd7a:115c:a1e0::1", "[fd7a:115c:a1e0::1]"]
)
def test_a_port_that_is_put_on_a_host_can_be_taken_off_again(host: str) -> None:
    assert with_port(host, 80).endswith(":80")
    assert split_port(with_port(host, 80)) == host.strip("[]")


@pytest.mark.parametrize(
    "text",
    [
        "web:0",
        "web:65536",
        "web:",
        "web:http",
        "web:-1",
        "web:+1",
        "[fd7a::1]:",
        "[fd7a::1]80",
        "web:²",
        "a:" + "9" * 9,
    ],
)
def test_a_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadName, match=r"has a port that is no number from 1 to 65535\. .* Give a short name \(web\)"):
        split_port(text)
