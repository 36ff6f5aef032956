"""What a record is, and where it stands; ``frame`` gives records to pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.records.frames import frame as frame


def __getattr__(name: str) -> Any:
    """Import ``frame`` when it is asked for: reading records needs no pandas."""
    if name == "frame":
        from harness.records.frames import frame

        return frame
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
