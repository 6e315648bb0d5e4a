"""Agents: cc-tailscale processes on this tailnet that write to each other. docs/agent-protocol.md is the protocol."""
