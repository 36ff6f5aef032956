"""The task files, and what they read and judge with."""
