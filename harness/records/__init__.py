"""What a record is, and where it stands."""
