"""What can be called, and calling it."""
