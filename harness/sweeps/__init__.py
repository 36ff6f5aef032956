"""Sweeps: many ``harness eval`` commands from one file, each done once, by as many workers as there are."""
