"""LMs and how they answer."""
