"""The policies that the documents show: read as Tailscale reads them, and as the local tailnet takes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
# A string, which is kept; or a comment, or a comma behind the last thing of its list or object (tailscale/hujson).
_HUJSON = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/|,(?=(?:\s|//[^\n]*|/\*.*?\*/)*[\]}])', flags=re.DOTALL)


def parsed(hujson: str) -> Any:
    """JSON with comments and trailing commas. Raises ValueError."""
    return json.loads(_HUJSON.sub(lambda found: found[1] or " ", hujson))


def shown(document: str) -> list[Any]:
    """Every block of JSON in a document, in order."""
    blocks = re.findall(r"^```jsonc?\n(.*?)^```$", (DOCS / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [parsed(block) for block in blocks]


def for_localnet(policy: dict[str, Any], **groups: list[str]) -> dict[str, Any]:
    """The policy as PUT /policy takes it, which knows no groups (`groups`: "dev" is "group:dev") and no autogroups."""
    members = policy.get("groups", {}) | {f"group:{name}": logins for name, logins in groups.items()}
    grants = [
        grant | {"src": [login for source in grant["src"] for login in members.get(source, [source])]}
        for grant in policy["grants"]
    ]
    owners = {tag: ["alice@example.com"] for tag in policy["tagOwners"]}  # who stands for autogroup:admin
    return {"rules": [], "grants": grants, "tag_owners": owners}
