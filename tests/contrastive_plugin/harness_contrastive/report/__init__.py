"""What is shown; nothing here decides an answer."""
