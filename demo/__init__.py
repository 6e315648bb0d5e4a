"""What cc-tailscale does, on a tailnet of its own, step by step: `nox -s demo`, or `python -m demo` once built."""
