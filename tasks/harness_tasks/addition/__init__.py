"""Three-digit addition with the sum reversed."""
