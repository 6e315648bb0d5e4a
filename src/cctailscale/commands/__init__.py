"""What people type: `cc-tailscale doctor`, `status`, `fetch`, … Loaded for these alone, never by the server."""
