"""Plain text: bits per byte of ordinary text, beside what a method was made for."""
