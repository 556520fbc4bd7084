"""The training engine: runs in a child process of its own and shares only a task directory with the platform."""
