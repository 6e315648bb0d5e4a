"""The main job on a tailnet of its own, shown step by step: `nox -s demo`, or `python -m demo` once all is built."""
