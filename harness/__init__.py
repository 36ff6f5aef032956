"""What every plugin imports: ``hookimpl``, ``Method`` and ``HarnessError`` (no torch behind them)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.errors import HarnessError
    from harness.hookspecs import hookimpl
    from harness.methods.method import Method

__all__ = ["HarnessError", "Method", "hookimpl"]

# Looked up when they are asked for: the command line asks for none of them, and pluggy takes longer than all else here.
_HOMES = {"HarnessError": "harness.errors", "Method": "harness.methods.method", "hookimpl": "harness.hookspecs"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name != "__version__":
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("token-harness")
    except PackageNotFoundError:  # a source tree on sys.path that nobody installed
        return "0+unknown"
