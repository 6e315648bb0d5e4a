"""`python -m cctailscale` is `cc-tailscale`."""

import sys

from cctailscale.cli import main

if __name__ == "__main__":
    sys.exit(main())
