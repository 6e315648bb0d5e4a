"""The pages of `docs/` that are made from the code: the tools with real answers, the settings, and a team's
transcripts.

`python -m pages` makes them; `python -m pages.recording` records the demo.
"""
