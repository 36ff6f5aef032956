"""Results that other tools measured, read from their own files: what they state of a score, and the documents behind it."""
