"""`python -m demo`: plays every step. Exit code 0 if each did what it says, else 1."""

import sys

import anyio

from demo.scenes import STEPS
from demo.screen import Screen
from demo.stage import play


def main() -> int:
    screen = Screen()
    screen.title("cc-tailscale, on a tailnet of its own", "Nothing here needs an account or leaves this machine.")
    try:
        return 0 if anyio.run(play, STEPS, screen) else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
