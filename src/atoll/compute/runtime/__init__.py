"""Where tasks run: one small interface, and the runtimes behind it."""
