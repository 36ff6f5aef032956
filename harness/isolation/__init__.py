"""A user's Python file in a process of its own, within time limits."""
