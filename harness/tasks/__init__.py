"""Finding tasks, and what a task may build on."""
