"""`python .ci/check_tag.py TAG`: whether a release's tag, the version in the package and the changelog agree.

It ends with 0 if they do, and otherwise with 1 and a line for each thing to put right.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def disagreements(tag: str, package: str, changelog: str) -> list[str]:
    """What keeps `tag` from being released, given the texts of the package's `__init__.py` and of CHANGELOG.md."""
    found = re.search(r'^__version__ = "([^"]+)"$', package, re.MULTILINE)
    version = found[1] if found else "nothing"
    wrong = []
    if tag != f"v{version}":
        wrong.append(
            f"the tag is {tag} and __version__ in src/cctailscale/__init__.py says {version}: it has to be v{version}"
        )
    if not re.search(rf"^## \[?{re.escape(version)}\]?( |$)", changelog, re.MULTILINE):
        wrong.append(f"CHANGELOG.md has no section {version}: give what is under Unreleased that heading")
    return wrong


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python .ci/check_tag.py TAG", file=sys.stderr)
        return 2
    package = (ROOT / "src" / "cctailscale" / "__init__.py").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    wrong = disagreements(arguments[0], package, changelog)
    for line in wrong:
        print(f"check_tag: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
