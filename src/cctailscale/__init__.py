"""An MCP server that puts Claude Code on a tailnet: one process, with the Tailscale node inside it.

This module imports nothing: whoever needs a part imports that part, so that the server answers `initialize` before
anything heavy is loaded.
"""

# The one place of the version: the build reads it from here (tool.hatch.version in pyproject.toml).
__version__ = "0.1.0"
