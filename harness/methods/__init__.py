"""Method, and what a method may build on."""

from harness.methods.method import Baseline, Method

__all__ = ["Baseline", "Method"]
