"""Tasks that several methods are judged by."""

from pathlib import Path

from harness import hookimpl


@hookimpl
def harness_task_folders() -> list[Path]:
    """Return the one folder that holds all shared task files: this package's own."""
    return [Path(__file__).parent]
