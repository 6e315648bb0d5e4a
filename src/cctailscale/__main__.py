"""`python -m cctailscale` is `cc-tailscale`."""

from cctailscale.cli import main

if __name__ == "__main__":
    main()
