"""Engines of the model library; each runs in a child process and shares only a task directory with the platform."""
