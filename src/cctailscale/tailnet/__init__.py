"""The tailnet from this process's side: the node, what it knows, and connections through it."""
