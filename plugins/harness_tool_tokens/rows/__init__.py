"""A tool's row in the output head."""
