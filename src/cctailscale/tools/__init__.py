"""What Claude sees: one module a subject, one function a tool."""
