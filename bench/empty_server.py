"""The floor of every MCP server in Python: the SDK's own, with nothing in it."""

from mcp.server.mcpserver import MCPServer

if __name__ == "__main__":
    MCPServer("empty").run()
