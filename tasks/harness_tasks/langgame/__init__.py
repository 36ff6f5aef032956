"""LangGame: which of four words has a property of its letters."""
