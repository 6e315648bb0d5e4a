"""Agents on a local tailnet while things go wrong around them, by a plan that a seed makes; then what must hold."""
