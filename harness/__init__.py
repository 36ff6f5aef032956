"""What every plugin imports: ``hookimpl``, ``Method`` and ``HarnessError`` (no torch behind them)."""

from typing import Any

from harness.errors import HarnessError
from harness.hookspecs import hookimpl
from harness.methods.method import Method

__all__ = ["HarnessError", "Method", "hookimpl"]


def __getattr__(name: str) -> Any:
    """Look the version up when it is asked for: reading package metadata takes longer than all else here."""
    if name != "__version__":
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("token-harness")
    except PackageNotFoundError:  # a source tree on sys.path that nobody installed
        return "0+unknown"
