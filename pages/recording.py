"""`python -m pages.recording`: plays the demo and writes what it showed to docs/demo.svg, which plays it again.

A window of some lines, moved on by CSS: an image that GitHub shows, with no script in it.
"""

from __future__ import annotations

import html
import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

FILE = Path(__file__).parent.parent / "docs" / "demo.svg"
COMMAND = "nox -s demo"
COLUMNS = 80
LINES = 26
# The demo takes seconds, of which most pass in its joins; as fast as one can read is slower.
SECONDS_PER_LINE = 0.45
LAST_SECONDS = 5
PLAY_SECONDS = 120

# Rich's own format fetches fonts; this one takes what is there. Doubled braces are CSS's.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} HEIGHT" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace }}
.{unique_id}-matrix {{ font-size: {char_height}px; line-height: {line_height}px }}
.{unique_id}-matrix text {{ white-space: pre }}
#play {{ animation: play DURATIONs step-end infinite }}
@keyframes play {{ KEYFRAMES }}
@media (prefers-reduced-motion: reduce) {{ #play {{ animation: none }} }}
{styles}
</style>
<defs>
<clipPath id="window"><rect x="0" y="0" width="{terminal_width}" height="WINDOW"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#window)">
<g id="play">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</g>
</svg>
"""


def main() -> int:
    environ = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    played = subprocess.run(
        [sys.executable, "-m", "demo"], env=environ, capture_output=True, text=True, timeout=PLAY_SECONDS, check=False
    )
    if played.returncode != 0:
        print(played.stdout + played.stderr, file=sys.stderr)
        return 1
    FILE.write_text(as_svg(played.stdout), encoding="utf-8")
    print(f"{FILE.name}: {FILE.stat().st_size / 1000:.0f} kB")
    return 0


def as_svg(shown: str) -> str:
    """What a terminal showed, as an SVG that scrolls through it."""
    lines = Text.from_ansi(f"$ {COMMAND}\n{shown.rstrip()}").split("\n")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    for line in lines:
        console.print(line, no_wrap=True, overflow="ellipsis", end="\n")
    drawn = console.export_svg(title=COMMAND, theme=MONOKAI, code_format=FORMAT, unique_id="demo")
    return _moving(drawn, len(lines))


def _moving(drawn: str, count: int) -> str:
    """Fills in what moves: a step a line, once the window is full, and a while at the end."""
    (height,) = {float(found) for found in re.findall(r"line-height: ([\d.]+)px", drawn)}
    steps = max(count - LINES, 0)
    seconds = (LINES + steps) * SECONDS_PER_LINE + LAST_SECONDS
    frames = " ".join(
        f"{100 * (LINES + step) * SECONDS_PER_LINE / seconds:.2f}% {{ transform: translateY({-step * height:.1f}px) }}"
        for step in range(1, steps + 1)
    )
    top, below = 41, 16  # rich's title bar, and its margin
    window = LINES * height
    drawn = re.sub(
        r'(<rect fill="#[0-9a-f]+" stroke=[^>]*? height=")[\d.]+', rf"\g<1>{window + top + below:.0f}", drawn
    )
    filled = {"HEIGHT": f"{window + top + below + 2:.0f}", "WINDOW": f"{window:.1f}"}
    filled |= {"DURATION": f"{seconds:.1f}", "KEYFRAMES": f"0% {{ transform: translateY(0) }} {frames}"}
    for name, value in filled.items():
        drawn = drawn.replace(name, value, 1)
    return drawn


def words(drawn: str) -> str:
    """The text of a recording, for those who look for something in it."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", drawn)).split())


if __name__ == "__main__":
    sys.exit(main())
