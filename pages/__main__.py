"""`python -m pages`: asks the tools anew and writes each page that has changed. Exit code 1 if one was out of date."""

from __future__ import annotations

import asyncio
import sys

from pages import answers, settings, team, tools


def main() -> int:
    answers.FILE.write_text(answers.as_text(asyncio.run(answers.asked())), encoding="utf-8")
    pages = {
        tools.PAGE: tools.page(answers.kept()),
        settings.PAGE: settings.page(),
        team.PAGE: team.page(team.PAGE.read_text(encoding="utf-8"), asyncio.run(team.played())),
    }
    changed = [page for page, text in pages.items() if not page.exists() or page.read_text(encoding="utf-8") != text]
    for page in changed:
        page.write_text(pages[page], encoding="utf-8")
        print(f"{page.name} was out of date, and has been written anew")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
