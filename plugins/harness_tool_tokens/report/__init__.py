"""What was called, as tables and a page."""
