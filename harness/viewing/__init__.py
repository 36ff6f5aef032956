"""A run, or two side by side, as one HTML page: every document with its answers, found, filtered and linked to."""
