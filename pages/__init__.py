"""The pages of `docs/` that are made from the code: the tools with real answers, and the settings.

`python -m pages` makes them; `python -m pages.recording` records the demo.
"""
