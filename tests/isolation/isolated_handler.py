"""What the process of these tests does: list a file's functions, and call one with a number."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from harness.isolation.process import Failure


def describe(module: ModuleType) -> dict[str, Any]:
    return {"functions": [name for name in vars(module) if not name.startswith("_")]}


def answer(module: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    if request["number"] < 0:
        raise Failure("negative", "no number below 0")
    return {"result": getattr(module, request["function"])(request["number"])}
