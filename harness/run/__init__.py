"""The story of one command: what it asks, what is checked and asked, and the records it leaves."""

from harness.run.evaluating import SomeFailed, evaluate
from harness.run.run import Run

__all__ = ["Run", "SomeFailed", "evaluate"]
