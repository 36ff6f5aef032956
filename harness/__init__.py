"""What every plugin imports: ``hookimpl``, ``Method`` and ``HarnessError`` (no torch behind them)."""

from importlib.metadata import PackageNotFoundError, version

from harness.errors import HarnessError
from harness.hookspecs import hookimpl
from harness.methods.method import Method

__all__ = ["HarnessError", "Method", "__version__", "hookimpl"]

try:
    __version__ = version("token-harness")
except PackageNotFoundError:  # a source tree on sys.path that nobody installed
    __version__ = "0+unknown"
