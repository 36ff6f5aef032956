"""Numbers to take away: rows for a spreadsheet or a program, and one table for a paper."""
