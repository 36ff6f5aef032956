"""Method, and what a method may build on."""
