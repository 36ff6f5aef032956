"""Records to tables, Markdown and the page."""
