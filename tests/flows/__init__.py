"""End to end: the official SDK, the sandbox, the service as it runs, a subscriber."""
